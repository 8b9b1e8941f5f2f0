"""User values to opaque bytes and back, so that bytes from the network run no code.

Values are pickles of protocol 3, on purpose: from protocol 4 on nearly every value carries a
frame of nine more bytes, and a task should cost the journal less than forty in all.

The payload of a task has one of three forms, told apart by the first byte:

    a pickle (0x80)                            the function's one argument
    "c" + pickle of (args, kwargs)             a call
    "f" + pickle of (function, args, kwargs)   a call that names its own function

Reading goes by the allow-list of `allow`; whatever is refused or broken raises PayloadError.
"""

import pickle
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskyard import batch
from taskyard.allow import STANDARD, Allow
from taskyard.errors import PayloadError, TaskFailed
from taskyard.jsonable import name_of, to_json
from taskyard.unpickle import load_spliced, loads

if TYPE_CHECKING:  # slots start without msgspec
    from taskyard.messages import Failure

__all__ = [
    "Call", "RemoteTraceback", "call", "call_of", "dump_exception", "dumps", "dumps_many", "load_exception",
    "loads", "loads_block", "parse", "parse_block", "to_json",
]  # fmt: skip

LIMIT = 1 << 20  # bytes of a value, unless TASKYARD_PAYLOAD says otherwise
PROTOCOL = 3
EXCEPTION_LIMIT = 65536  # bytes; a larger exception comes back as text

Call = tuple[str | None, tuple[Any, ...], dict[str, Any]]  # function where the payload names it

_FEW = 4  # values in a block from which on one unpickler for all is quicker than one for each


# ---------------------------------------------------------------- to bytes


def dumps(value: object, limit: int = LIMIT) -> bytes:
    """Return the value as bytes; raises PayloadError if it does not travel or is beyond `limit` bytes."""
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:  # noqa: BLE001 - __reduce__ is the user's, and may raise anything
        data = _dumps_newer(value)
    if len(data) > limit:
        raise PayloadError(
            f"a value of type {name_of(type(value))} takes {len(data):,} bytes and {limit:,} is the most that"
            " a task may carry (TASKYARD_PAYLOAD): put the data on shared storage and send its path"
        )
    return data


def dumps_many(values: Sequence[object], limit: int = LIMIT) -> list[bytes]:
    """Return each value as bytes, as `dumps` does."""
    dump = pickle.dumps
    try:
        data = [dump(value, PROTOCOL) for value in values]
    except Exception:  # noqa: BLE001 - one by one, to fall back or to name the one at fault
        return [dumps(value, limit) for value in values]
    if data and max(map(len, data)) > limit:
        return [dumps(value, limit) for value in values]
    return data


def call(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = LIMIT) -> bytes:
    """Return the payload that calls the job's function with these arguments."""
    return b"c" + dumps((args, kwargs), limit)


def call_of(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = LIMIT) -> bytes:
    """Return the payload that calls `function` ("module:function") with these arguments."""
    return b"f" + dumps((function, args, kwargs), limit)


def _dumps_newer(value: object) -> bytes:
    """What protocol 3 cannot write, another may; else say what is wrong with the value."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        if "<lambda>" in text or "<locals>" in text:
            cure = "functions travel by name only: define it at the top of a module of the tasks folder"
        else:
            cure = "send plain data (numbers, text, lists, dicts), and make the rest in the task itself"
        raise PayloadError(
            f"a value of type {name_of(type(value))} does not travel ({type(error).__name__}: {text}): {cure}"
        ) from error


# ---------------------------------------------------------------- from bytes


def loads_block(block: bytes, count: int, allow: Allow = STANDARD) -> list[Any]:
    """Return the `count` values of a block, quicker than `loads` for each; raises PayloadError.

    A ProtocolError says that it is no block of `count` values.
    """
    if count >= _FEW:
        values = load_spliced(block, _bounds(block, count), 0, allow)
        if values is not None:
            return values
    return [loads(data, allow) for data in batch.unpack(block, count)]


def parse(payload: bytes, allow: Allow = STANDARD) -> Call:
    """Return (function or None, args, kwargs) of a task's payload; raises PayloadError."""
    kind = payload[:1]
    if kind == b"\x80":
        return None, (loads(payload, allow),), {}
    if kind == b"c":
        return _checked_call(loads(payload[1:], allow))
    if kind == b"f":
        return _checked_named_call(loads(payload[1:], allow))
    raise PayloadError("a task's payload is of no known form: was it made by another version?")


def parse_block(block: bytes, count: int, allow: Allow = STANDARD) -> list[Call]:
    """Return (function or None, args, kwargs) of each payload of a block, as `parse` does."""
    if count >= _FEW:
        bounds = _bounds(block, count)
        kinds = {block[start : start + 1] for start in bounds[:-1]}
        kind = kinds.pop()
        if not kinds and kind in (b"\x80", b"c", b"f"):
            values = load_spliced(block, bounds, 0 if kind == b"\x80" else 1, allow)
            if values is not None:
                if kind == b"\x80":
                    return [(None, (value,), {}) for value in values]
                check = _checked_call if kind == b"c" else _checked_named_call
                return [check(value) for value in values]
    return [parse(payload, allow) for payload in batch.unpack(block, count)]


def _checked_call(value: Any) -> Call:
    if type(value) is tuple and len(value) == 2:
        return _checked_named_call((None, *value))
    raise PayloadError("a task's payload is no call: was it made by another version?")


def _checked_named_call(value: Any) -> Call:
    if type(value) is tuple and len(value) == 3:
        function, args, kwargs = value
        if type(args) is tuple and type(kwargs) is dict and isinstance(function, str | None):
            return function, args, kwargs
    raise PayloadError("a task's payload is no call: was it made by another version?")


def _bounds(block: bytes, count: int) -> list[int]:
    """Where the values of a block begin, and where the last one ends."""
    batch.check(block, count)
    head = 4 * (count + 1)
    offsets = array("I", block[:head])
    if sys.byteorder == "big":
        offsets.byteswap()
    shift = head - offsets[0]
    return [offset + shift for offset in offsets]


# ---------------------------------------------------------------- exceptions as values


class RemoteTraceback(Exception):
    """Where in the worker an exception was raised, as text: the `__cause__` of what comes back."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


def dump_exception(error: BaseException, allow: Allow = STANDARD, limit: int = EXCEPTION_LIMIT) -> bytes:
    """Return an exception as a value, or b"" if it does not survive the way there and back.

    Many don't: an `__init__` whose parameters are not what it hands on is enough. The class itself
    need not be allowed here.
    """
    if not isinstance(error, Exception):
        return b""
    try:
        data = dumps(error, limit)
        back = loads(data, allow.plus(type(error)))
    except PayloadError:
        return b""
    return data if type(back) is type(error) else b""


def load_exception(failure: "Failure", allow: Allow = STANDARD) -> Exception:
    """Return what to raise for a failure, and never raise itself.

    The exception comes back as its own type where that is a builtin or allowed, else as TaskFailed
    with its type and message as text; the traceback in the worker hangs on it either way.
    """
    error: object = None
    if failure.exception:
        with suppress(PayloadError):  # of a class that is not known here: its text will do
            error = loads(failure.exception, allow)
    if not isinstance(error, Exception):
        kind = f"{failure.type}: " if failure.type and failure.reason == "raised" else ""
        error = TaskFailed(f"{kind}{failure.message}" or f"a task did not complete: {failure.reason}")
    if failure.traceback:
        error.__cause__ = RemoteTraceback(failure.traceback)
    return error
