"""Pickles of stdlib peers, read as data: nothing is imported or called, nothing gets out of hand.

`loads` reads what Python 3.8 to 3.15 sends to a manager: plain data in the opcodes of protocols 2
to 5, and objects of a few harmless classes, which stay closed (see `plain_inert`). It is a machine
of its own, not `pickle.Unpickler` with a `find_class`, because an allow-list keeps code out and
lets bombs in: nine bytes make that machine allocate two gigabytes, a hundred keep it hashing for
days. Here

- lengths are believed when the bytes are there, and the memo is a list, written at its end only;
- steps are counted, and so is what reading the memo repeats;
- keys are primitives, short tuples of them, or closed objects, and those that share a hash are counted;
- a value that is large, or repeats containers, is walked, and must end within a budget and a depth.

Scanning a pickle and handing harmless ones to the machine in C was considered and left out: what is
harmless depends on the order of opcodes as much as on their set, so the scan would be this machine.

`dumps` and the replies are those of `plain_encode`, offered here so that one import does.
"""

import pickle
import re
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any

from taskyard.errors import PayloadError
from taskyard.plain_encode import dumps, error, returned, traceback
from taskyard.plain_inert import Inert, Members, called, malformed, named, takes
from taskyard.plain_limits import DEPTH, NODES, STEPS, Limits, check_shape, too_deep

__all__ = ["Inert", "dumps", "error", "loads", "returned", "traceback"]

_EMPTY_SET = 216  # bytes
_OBJECT = 512  # bytes, or rather a tenth of it and a few microseconds
_SHORT = 64  # bytes of text that may be repeated at will: it takes an opcode each time
_FLAT = 4 * DEPTH  # objects on the stack outside of any MARK

_MARK, _STOP, _FRAME = pickle.MARK[0], pickle.STOP[0], pickle.FRAME[0]
_MEMOIZE, _BINPUT, _LONG_BINPUT = pickle.MEMOIZE[0], pickle.BINPUT[0], pickle.LONG_BINPUT[0]
_BINGET, _LONG_BINGET = pickle.BINGET[0], pickle.LONG_BINGET[0]
_TUPLE1, _TUPLE2, _TUPLE3 = pickle.TUPLE1[0], pickle.TUPLE2[0], pickle.TUPLE3[0]
_LIST, _DICT, _SET = pickle.EMPTY_LIST[0], pickle.EMPTY_DICT[0], pickle.EMPTY_SET[0]
_APPEND, _SETITEM, _BUILD = pickle.APPEND[0], pickle.SETITEM[0], pickle.BUILD[0]
_APPENDS, _SETITEMS, _TUPLE = pickle.APPENDS[0], pickle.SETITEMS[0], pickle.TUPLE[0]
_ADDITEMS, _FROZENSET = pickle.ADDITEMS[0], pickle.FROZENSET[0]
_GLOBAL, _STACK_GLOBAL = pickle.GLOBAL[0], pickle.STACK_GLOBAL[0]
_REDUCE, _NEWOBJ, _NEWOBJ_EX = pickle.REDUCE[0], pickle.NEWOBJ[0], pickle.NEWOBJ_EX[0]
_TEXT = pickle.SHORT_BINUNICODE[0]
_CLOSING = frozenset((_APPENDS, _SETITEMS, _TUPLE, _ADDITEMS, _FROZENSET))  # take all up to the last MARK

_CONSTANTS = {
    pickle.NONE[0]: None,
    pickle.NEWTRUE[0]: True,
    pickle.NEWFALSE[0]: False,
    pickle.EMPTY_TUPLE[0]: (),
}
_NUMBERS = {  # the opcode, which is skipped, and the number
    pickle.BININT1[0]: struct.Struct("<xB"),
    pickle.BININT2[0]: struct.Struct("<xH"),
    pickle.BININT[0]: struct.Struct("<xi"),
    pickle.BINFLOAT[0]: struct.Struct(">xd"),
}
_row_of_numbers = re.compile(rb"(?:K.)++|(?:M..)++|(?:J.{4})++|(?:G.{8})++", re.DOTALL).match
_ROW = 8  # numbers of one kind that are worth reading together


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _text(raw: bytes) -> str:
    return str(raw, "utf-8", "surrogatepass")


_SIZED: dict[int, tuple[int, Callable[[bytes], Any]]] = {  # bytes of the length; what the content becomes
    pickle.BINUNICODE[0]: (4, _text),
    pickle.SHORT_BINBYTES[0]: (1, bytes),
    pickle.BINBYTES[0]: (4, bytes),
    pickle.BYTEARRAY8[0]: (8, bytearray),
    pickle.LONG1[0]: (1, _integer),
    pickle.LONG4[0]: (4, _integer),
}
_TEXTS = frozenset((str, bytes, bytearray))
_SHARED = frozenset((tuple, list, dict, set, frozenset, Inert))


def loads(data: bytes | bytearray | memoryview, allow: frozenset[str] = frozenset()) -> Any:
    """Return the plain value of a pickle, objects of harmless classes as `Inert`.

    `allow` adds classes: "module.Name" or "module.Outer.Inner". Raises PayloadError where
    the value is of a class, a size or a shape that does not travel (its sender may be told, and stay),
    and ProtocolError where the bytes are no pickle that a Python makes.
    """
    raw = bytes(data)
    if raw[:1] != pickle.PROTO or raw[1:2] not in (b"\2", b"\3", b"\4", b"\5"):
        raise malformed("not of protocol 2 to 5")
    try:
        return _Machine(allow).run(raw)
    except (IndexError, ValueError, struct.error) as error:
        raise malformed("cut short or garbled") from error


class _Machine:
    """Reads one pickle."""

    __slots__ = ("_allow", "_frozensets", "_limits")

    def __init__(self, allow: frozenset[str]) -> None:
        self._allow = allow
        self._limits = Limits()
        self._frozensets = 0

    def run(self, data: bytes) -> Any:  # noqa: C901 - one loop: a call an opcode would double the time
        """Execute the pickle; an operand beyond the end of `data` is noticed at the next opcode."""
        stack: list[Any] = []  # from the last MARK on
        outer: list[list[Any]] = []  # the stacks below it
        memo: list[Any] = []
        limits = self._limits
        shared = False
        rows = 0  # numbers that were read in rows
        length = len(data)
        at = 2
        for step in range(STEPS):  # noqa: B007 - used after the loop
            code = data[at]
            at += 1
            if code == _MEMOIZE:
                memo.append(stack[-1])
            elif code in _NUMBERS:
                number = _NUMBERS[code]
                size = number.size
                end = at - 1 + size
                if data[end] == code and end + _ROW * size < length and data[end + _ROW * size] == code:
                    row = _row_of_numbers(data, at - 1)
                    assert row is not None
                    end = row.end()
                    rows += (end - at) // size
                    stack += chain.from_iterable(number.iter_unpack(row[0]))
                else:
                    stack += number.unpack_from(data, at - 1)
                at = end
            elif code == _TEXT:
                end = at + 1 + data[at]
                stack.append(str(data[at + 1 : end], "utf-8", "surrogatepass"))
                at = end
            elif code == _TUPLE2:
                last = stack.pop()
                stack[-1] = (stack[-1], last)
            elif code == _MARK:
                outer.append(stack)
                stack = []
                if len(outer) > 2 * DEPTH:
                    raise too_deep()
            elif code == _BINGET or code == _LONG_BINGET:  # noqa: SIM109 - quicker
                if code == _BINGET:
                    value = memo[data[at]]
                    at += 1
                else:
                    value = memo[int.from_bytes(data[at : at + 4], "little")]
                    at += 4
                stack.append(value)
                kind = type(value)
                if kind in _SHARED:
                    shared = True
                elif kind not in _TEXTS:
                    raise malformed("a number in the memo")
                elif len(value) > _SHORT:
                    limits.charge(len(value))
            elif code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            elif code == _LIST or code == _DICT:  # noqa: SIM109 - quicker
                stack.append([] if code == _LIST else {})
                if len(stack) > _FLAT and not outer:  # nothing within DEPTH piles up like this
                    raise too_deep()
            elif code in _CLOSING:
                items = stack
                stack = outer.pop()
                if code == _TUPLE:
                    stack.append(tuple(items))
                else:
                    self._close(code, stack, items)
            elif code in _SIZED:
                size, make = _SIZED[code]
                start = at + size
                at = start + int.from_bytes(data[at:start], "little")
                stack.append(make(data[start:at]))
            elif code == _TUPLE1:
                stack[-1] = (stack[-1],)
            elif code == _TUPLE3:
                last, middle = stack.pop(), stack.pop()
                stack[-1] = (stack[-1], middle, last)
            elif code == _STOP:
                break
            elif code == _FRAME:
                at += 8
            elif code in (_BINPUT, _LONG_BINPUT):
                end = at + (1 if code == _BINPUT else 4)
                if int.from_bytes(data[at:end], "little") != len(memo):
                    raise malformed("the memo is not written in order")
                at = end
                memo.append(stack[-1])
            elif code == _GLOBAL:
                at = self._global(data, at, stack)
            else:
                self._rare(code, stack)
        else:
            raise PayloadError(f"a value has more than {STEPS:,} parts: send it in several")
        if at != length or outer or len(stack) != 1:
            raise malformed("more or less than one value")
        if shared or step > DEPTH:
            check_shape(stack[0], 2 * max(step + rows, NODES // 2, length >> 4))
        return stack[0]

    def _global(self, data: bytes, at: int, stack: list[Any]) -> int:
        """Read the two lines of a name, as protocols 2 and 3 write it, and return where they end."""
        middle = data.index(b"\n", at, at + 256)
        end = data.index(b"\n", middle + 1, middle + 257)
        stack.append(named(str(data[at:middle], "utf-8"), str(data[middle + 1 : end], "utf-8"), self._allow))
        return end + 1

    def _rare(self, code: int, stack: list[Any]) -> None:
        """Execute an opcode that takes its operands from the top of the stack."""
        if code == _SET:
            self._limits.charge(_EMPTY_SET)
            stack.append(set())
            return
        last = stack.pop()
        if code == _APPEND:
            self._close(_APPENDS, stack, [last])
        elif code == _SETITEM:
            key = stack.pop()
            self._close(_SETITEMS, stack, [key, last])
        elif code == _STACK_GLOBAL:
            stack[-1] = named(stack[-1], last, self._allow)
        elif code in (_REDUCE, _NEWOBJ):
            stack[-1] = self._call(stack[-1], last, None, code == _NEWOBJ)
        elif code == _NEWOBJ_EX and type(last) is dict:
            args = stack.pop()
            stack[-1] = self._call(stack[-1], args, last, True)
        elif code == _BUILD and type(stack[-1]) is Inert:
            takes(stack[-1], "state", self._allow)
            object.__setattr__(stack[-1], "state", last)
        else:
            raise malformed(f"opcode {code:#x}")

    def _close(self, code: int, stack: list[Any], items: list[Any]) -> None:
        """Put `items` into what lies on the stack, or make a frozenset of them."""
        if code == _FROZENSET:
            stack.append(self._frozen(items))
            return
        target = stack[-1]
        kind = type(target)
        if code == _APPENDS and kind is list:
            target += items
        elif code == _SETITEMS and kind is dict and len(items) % 2 == 0:
            self._fill(target, items)
        elif code == _ADDITEMS and kind is set:
            size = len(target) + len(items)
            self._limits.check_keys(id(target), items)
            target.update(items)
            if len(target) != size:
                raise malformed("a member twice")
        elif code == _APPENDS and kind is Inert:
            takes(target, "items", self._allow)
            if target.items is None:
                object.__setattr__(target, "items", [])
            target.items.extend(items)
        elif code == _SETITEMS and kind is Inert and len(items) % 2 == 0:
            takes(target, "pairs", self._allow)
            self._limits.check_keys(id(target), items[::2])
            if target.pairs is None:
                object.__setattr__(target, "pairs", [])
            target.pairs.extend(items)
        else:
            raise malformed("items for what takes none")

    def _fill(self, target: dict[Any, Any], items: list[Any]) -> None:
        size = len(target) + len(items) // 2
        keys = items[::2]
        self._limits.check_keys(id(target), keys)
        target.update(zip(keys, items[1::2], strict=True))
        if len(target) != size:
            raise malformed("a key twice")

    def _call(self, function: Any, args: Any, kwargs: Any, new: bool) -> Any:
        made = called(function, args, kwargs, new, self._allow)
        self._limits.charge(_OBJECT)
        if type(made) is not Members:
            return made
        members = self._frozen(made.items)
        return members if made.frozen else set(members)

    def _frozen(self, items: list[Any]) -> frozenset[Any]:
        self._frozensets += 1
        self._limits.check_keys(-self._frozensets, items)  # no id() is negative
        members = frozenset(items)
        if len(members) != len(items):
            raise malformed("a member twice")
        return members
