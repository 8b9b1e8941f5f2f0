"""Values as JSON for people: what JSON holds stays as it is, the rest is shown, bounded."""

import math
from binascii import b2a_base64
from typing import Any

REPR_LIMIT = 1000  # characters
_DEPTH = 64


def to_json(value: object, depth: int = _DEPTH) -> Any:
    """Return what `json.dumps` takes without an option, for any value.

    Tuples become lists and keys that are numbers text, as the json module does it. Bytes become
    {"$bytes": base64}; everything else {"$type": "module.Name", "$repr": text}.
    """
    if value is None or isinstance(value, bool):
        return value
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is float and math.isfinite(value):  # type: ignore[arg-type]
        return value
    if isinstance(value, bytes):
        return {"$bytes": b2a_base64(value, newline=False).decode("ascii")}
    if depth and (kind is list or isinstance(value, tuple)):
        return [to_json(item, depth - 1) for item in value]  # type: ignore[attr-defined]
    if depth and kind is dict and all(type(key) in (str, int) for key in value):  # type: ignore[attr-defined]
        return {str(key): to_json(item, depth - 1) for key, item in value.items()}  # type: ignore[attr-defined]
    return {"$type": name_of(kind), "$repr": bounded_repr(value)}


def bounded_repr(value: object, limit: int = REPR_LIMIT) -> str:
    """Return `repr(value)`, cut at `limit` characters; a repr that raises is named instead."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - __repr__ is the user's
        text = f"<{name_of(type(value))} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}..."


def name_of(kind: type) -> str:
    """Return a class's full name, "module.Name", or "Name" for a builtin."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
