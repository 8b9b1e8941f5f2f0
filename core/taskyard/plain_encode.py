"""Pickles for stdlib peers: plain data, closed objects, and the replies of a manager.

Everything is written in protocol 4, which Python 3.8 to 3.15 reads. Replies are put together
from finished pickles, so that a stored value is neither read nor written anew on its way out.
"""

import io
import pickle
import struct
from typing import Any

from taskyard.errors import PayloadError
from taskyard.plain_inert import HELPERS, Inert

PROTOCOL = 4
_SIMPLE = frozenset((str, int, bytes, float, bool, type(None)))
_PROTO = pickle.PROTO + bytes((PROTOCOL,))
_SIZE = struct.Struct("<I")

# The exceptions that a reply can carry: standard classes of every Python, which take plain arguments.
_ERRORS = {
    "queue.Empty": ("_queue", "Empty"),  # what queue.Empty is in CPython
    "queue.Full": ("queue", "Full"),
    **{
        name: ("builtins", name)
        for name in ("AttributeError", "KeyError", "OSError", "RuntimeError", "TypeError", "ValueError")
    },
}


def dumps(value: object) -> bytes:
    """Return the pickle of plain data, which may hold `Inert` objects; raises PayloadError for all else."""
    if type(value) in _SIMPLE:
        return pickle.dumps(value, PROTOCOL)
    file = io.BytesIO()
    try:
        try:
            _Pickler(file, PROTOCOL).dump(value)
        except _InertFound:
            writer = _Writer()
            writer.write(value)
            return _PROTO + writer.out + pickle.STOP
    except RecursionError:
        raise PayloadError("a value is nested too deeply to be sent: make it flatter") from None
    return file.getvalue()


def returned(pickled: bytes) -> bytes:
    """Return the reply `('#RETURN', value)` from the pickle of `value`, which is not looked into.

    `pickled` is of any protocol from 2 on. Nothing is memoised before it, so its memo keeps its
    numbers; its own PROTO stays in front, as the names of protocol 2 mean another module; and where
    STOP was the last byte of a frame, TUPLE2 takes its place, so that the frame keeps its length.
    """
    return b"%b\x8c\x07#RETURN%b\x86." % (_head(pickled), pickled[2:-1])


def error(name: str, *args: object) -> bytes:
    """Return the reply `('#ERROR', exception)` that the peer raises.

    `name` is "queue.Empty", "queue.Full", or one of AttributeError, KeyError, OSError, RuntimeError,
    TypeError and ValueError; `args` are plain data.
    """
    module, qualified = _ERRORS[name]
    pickled = dumps(args)
    where = b"\x8c%c%b\x8c%c%b\x93" % (len(module), module.encode(), len(qualified), qualified.encode())
    return b"%b\x8c\x06#ERROR%b%bR\x86." % (_PROTO, where, pickled[2:-1])


def traceback(text: str) -> bytes:
    """Return the reply `('#TRACEBACK', text)`, which the peer raises as a RemoteError."""
    return dumps(("#TRACEBACK", text))


def _head(pickled: bytes) -> bytes:
    if pickled[:1] != pickle.PROTO or pickled[-1:] != pickle.STOP:
        raise PayloadError(
            "a stored value is no pickle of protocol 2 or later: was it made by another program?"
        )
    return pickled[:2]


class _InertFound(Exception):
    """The value holds an `Inert`, which only `_Writer` can write."""


class _Pickler(pickle.Pickler):
    """The pickler in C, for exact builtin types only."""

    def reducer_override(self, value: Any) -> Any:
        """Refuse whatever is not plain; called for everything that C does not write by itself."""
        if type(value) is Inert:
            raise _InertFound
        if value is bytearray:  # what protocol 4 calls for each bytearray
            return NotImplemented
        raise _refused(value)


def _refused(value: object) -> PayloadError:
    kind = type(value)
    return PayloadError(
        f"a value of type {kind.__module__}.{kind.__qualname__} is not plain: send plain data"
    )


class _Writer:
    """The pickler for values with closed objects in them: writes their names without importing them."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._memo: dict[object, int] = {}  # id() of an object, or a name -> its number

    def write(self, value: Any) -> None:
        """Append the opcodes that put `value` on the stack."""
        kind = type(value)
        out = self.out
        if kind in (int, float, bool, type(None)):
            out += pickle.dumps(value, 3)[2:-1]  # protocol 3 has no frames
        elif self._known(id(value)):
            pass
        elif kind is str:
            self._sized(pickle.BINUNICODE, value.encode("utf-8", "surrogatepass"))
            self._memoize(id(value))
        elif kind is bytes:
            self._sized(pickle.BINBYTES, value)
            self._memoize(id(value))
        elif kind is tuple:
            self._marked(value, pickle.TUPLE)
            self._memoize(id(value))
        elif kind is list:
            out += pickle.EMPTY_LIST
            self._memoize(id(value))
            self._marked(value, pickle.APPENDS)
        elif kind is dict:
            out += pickle.EMPTY_DICT
            self._memoize(id(value))
            self._marked([part for pair in value.items() for part in pair], pickle.SETITEMS)
        elif kind is set:
            out += pickle.EMPTY_SET
            self._memoize(id(value))
            self._marked(value, pickle.ADDITEMS)
        elif kind is frozenset:
            self._marked(value, pickle.FROZENSET)
            self._memoize(id(value))
        elif kind is bytearray:
            self._name("builtins", "bytearray")
            self._sized(pickle.BINBYTES, value)
            out += pickle.TUPLE1 + pickle.REDUCE
            self._memoize(id(value))
        elif kind is Inert:
            self._inert(value)
        else:
            raise _refused(value)

    def _inert(self, value: Inert) -> None:
        if value.args is None and (value.module, value.name) in HELPERS:
            raise PayloadError(f"the function {value.name} is not plain: send plain data")
        self._name(value.module, value.name)
        if value.args is None:
            return
        self._marked(value.args, pickle.TUPLE)
        if value.kwargs is not None:
            self.write(value.kwargs)
            self.out += pickle.NEWOBJ_EX
        else:
            self.out += pickle.NEWOBJ if value.new else pickle.REDUCE
        self._memoize(id(value))
        if value.items is not None:
            self._marked(value.items, pickle.APPENDS)
        if value.pairs is not None:
            self._marked(value.pairs, pickle.SETITEMS)
        if value.state is not None:
            self.write(value.state)
            self.out += pickle.BUILD

    def _name(self, module: str, name: str) -> None:
        if self._known((module, name)):
            return
        owner, _, attribute = name.rpartition(".")
        if owner and attribute.startswith("_"):  # as pickle writes it, and as allow-lists know it
            self._name("builtins", "getattr")
            self._marked((Inert(module, owner), attribute), pickle.TUPLE)
            self.out += pickle.REDUCE
            self._memoize((module, name))
        else:
            self._sized(pickle.BINUNICODE, module.encode())
            self._sized(pickle.BINUNICODE, name.encode())
            self.out += pickle.STACK_GLOBAL
            self._memoize((module, name))

    def _marked(self, items: Any, close: bytes) -> None:
        self.out += pickle.MARK
        for item in items:
            self.write(item)
        self.out += close

    def _sized(self, opcode: bytes, raw: bytes | bytearray) -> None:
        if len(raw) > 0xFFFFFFFF:
            raise PayloadError("a text of more than 4 GiB cannot be sent: send it in parts")
        self.out += opcode + _SIZE.pack(len(raw)) + raw

    def _memoize(self, key: object) -> None:
        self._memo[key] = len(self._memo)
        self.out += pickle.MEMOIZE

    def _known(self, key: object) -> bool:
        number = self._memo.get(key)
        if number is not None:
            self.out += pickle.LONG_BINGET + _SIZE.pack(number)
        return number is not None
