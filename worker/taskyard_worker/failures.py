"""From an exception to the bytes of a `messages.Failure`, without importing msgspec.

A slot starts in a fifth of the time without it, and what it needs of msgpack is an
array of six strings. A Failure from here always fits into `memory.ROOM`.
"""

import sys
from types import TracebackType

from taskyard import values
from taskyard.errors import PayloadError

MESSAGE = 1000  # characters
TRACEBACK = 8000
EXCEPTION = 16 << 10  # bytes of the exception as a value; larger ones do not travel


def raised(error: BaseException) -> bytes:
    """The failure of a function that raised; the agent's own frames are left out."""
    code = error.code if isinstance(error, SystemExit) else None
    message = f"the function called sys.exit({code!r})" if isinstance(error, SystemExit) else text(error)
    try:
        value = values.dump_exception(error)
    except Exception:  # noqa: BLE001 - whatever an exception does when it is pickled
        value = b""
    return encode("raised", name(error), message, trace(error), value if len(value) <= EXCEPTION else b"")


def refused(error: BaseException, shown: bool = False) -> bytes:
    """The failure of a task that can never succeed; `shown`: with the traceback of the error's cause."""
    cause = error.__cause__
    if shown and cause is not None:
        return encode("refused", name(cause), text(error), trace(cause))
    return encode("refused", name(error), text(error))


def encode(reason: str, type_name: str, message: str, traceback: str = "", exception: bytes = b"") -> bytes:
    """A Failure in msgpack: an array of the tag, four strings and bytes."""
    strings = (
        b"\xdb%b%b" % (len(raw).to_bytes(4), raw)
        for raw in (
            part.encode(errors="replace") for part in ("Failure", reason, type_name, message, traceback)
        )
    )
    return b"\x96%b\xc6%b%b" % (b"".join(strings), len(exception).to_bytes(4), exception)


def name(error: BaseException) -> str:
    """ "module.Name" of an exception's class, "Name" for builtins."""
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def text(error: BaseException) -> str:
    """What an exception says, on one line."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - __str__ is the user's
        words = "(its text cannot be made)"
    if isinstance(error, PayloadError) or not words:
        return words[:MESSAGE]
    line = " | ".join(part.strip() for part in words.splitlines() if part.strip())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 3] + "..."


def trace(error: BaseException) -> str:
    """The tail of an exception's traceback, from the user's code on."""
    import traceback  # takes 10 ms, and most slots never need it

    frame: TracebackType | None = error.__traceback__
    own = (sys.modules[__name__].__package__ or "") + "."
    while frame is not None and _is_own(frame, own):
        frame = frame.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, frame))
    except Exception:  # noqa: BLE001 - as in `text`; recursion errors, too
        return ""
    return lines if len(lines) <= TRACEBACK else "...\n" + lines[-TRACEBACK:].partition("\n")[2]


def _is_own(frame: TracebackType, own: str) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    return module == "__main__" or module.startswith((own, "taskyard.", "importlib", "_frozen_importlib"))
