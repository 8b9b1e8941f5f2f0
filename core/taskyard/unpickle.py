"""Reading pickles by the allow-list: one value, or all values of a block at once.

Two machines: the unpickler in C for nearly everything, and the one in Python for values that
might change a class while they are read. Both ask `Allow.find` for every name.
"""

import io
import pickle
import re
from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from types import FunctionType
from typing import Any, ClassVar

from taskyard.allow import STANDARD, Allow
from taskyard.errors import PayloadError

# Without one of these bytes a pickle is data, and reading it runs nothing. Opcodes are single
# bytes, so an absent byte is an absent opcode. What is absent is all that can bring something
# callable onto the stack: GLOBAL, INST, EXT1, EXT2, EXT4, STACK_GLOBAL and, had it a hook,
# PERSID, BINPERSID. So stack and memo hold numbers, text, bytes, tuples, lists, dicts, sets,
# True, False, None and nothing else: REDUCE, OBJ, NEWOBJ and NEWOBJ_EX find nothing to call,
# and BUILD finds nothing that has a `__setstate__` or a `__dict__`. They raise, all five.
_REACHES = re.compile(rb"[ciPQ\x82-\x84\x93]").search
_NEWER = re.compile(rb"\x80[\x04-\x08]").search  # how a pickle of protocol 4 or later begins
_SPLICED = 3  # the last protocol that numbers its memo itself


def loads(data: bytes, allow: Allow = STANDARD) -> Any:
    """Return the value; raises PayloadError if it is broken or holds what is not allowed."""
    try:
        if not _REACHES(data):
            return pickle.loads(data)
        try:
            return _Quick(io.BytesIO(data), allow, b"b" in data).load()
        except _NeedsCareError:
            return _Careful(io.BytesIO(data), allow).load()
    except PayloadError:
        raise
    except Exception as error:  # what a broken pickle raises is anybody's guess
        text = " ".join(str(error).split())[:200]
        raise PayloadError(
            f"a value cannot be read ({type(error).__name__}: {text}): do both sides have the same code?"
        ) from error


def load_spliced(block: bytes, bounds: list[int], skip: int, allow: Allow) -> list[Any] | None:
    """Read all values as the items of one pickled list; None: read them one by one.

    Each value loses its STOP (and `skip` bytes at the front). One after the other they leave
    one object each on the stack, and number their memo from 0 anew. Protocol 4 and later count on
    an empty memo, so they are not read so. A value made to disturb the others does no more than
    that: the allow-list holds here too, and all values of a block come from one peer.
    """
    body = b"".join([block[start + skip : end - 1] for start, end in pairwise(bounds)])
    try:
        if _NEWER(body) and max([block[start + skip + 1] for start in bounds[:-1]]) > _SPLICED:
            return None
        spliced = b"(%bl." % body
        file = io.BufferedReader(io.BytesIO(spliced), len(spliced))
        values = _Quick(file, allow, b"b" in body).load()
    except Exception:  # noqa: BLE001 - whatever it is, one by one will tell, and which
        return None
    return values if type(values) is list and len(values) == len(bounds) - 1 else None


class _NeedsCareError(Exception):
    """A value may hold a BUILD, and names what a BUILD could change."""


class _Quick(pickle.Unpickler):
    """The unpickler in C with the allow-list, for all that no BUILD could harm."""

    def __init__(self, file: Any, allow: Allow, builds: bool) -> None:
        super().__init__(file)
        self._allow = allow
        self._builds = builds

    def find_class(self, module: str, name: str) -> Any:
        found, steady = self._allow.find(module, name)
        if self._builds and not steady:
            raise _NeedsCareError
        return found


class _Careful(pickle._Unpickler):
    """The unpickler in Python, five times slower: BUILD goes to objects only, never to classes."""

    def __init__(self, file: Any, allow: Allow) -> None:
        super().__init__(file)
        self._allow = allow

    def find_class(self, module: str, name: str) -> Any:
        return self._allow.find(module, name)[0]

    def _load_build(self: Any) -> None:
        if isinstance(self.stack[-2], type | Enum | FunctionType):
            raise PayloadError("a value tries to change a class: whoever sent it is not to be trusted")
        self.load_build()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: _load_build,
    }
