"""Bounds on what a pickle from the network may cost: memory, hashing, and what it grows to.

Each bound answers an attack that fits into a few bytes, and is wide enough that no honest value
meets it before it meets the limit of a payload.
"""

from collections.abc import Iterable
from typing import Any

from taskyard.errors import PayloadError
from taskyard.plain_inert import PRIMITIVES, Inert, is_key

STEPS = 1 << 18  # opcodes in a pickle, where a row of numbers counts once
DEPTH = 200  # containers within containers
NODES = 50_000  # that any value may have when everything shared is written out

_CHARGE = 16 << 20  # bytes
_TUPLE_KEY = 8  # items
_KEY_BITS = 2048  # of an integer in a key
_ALIKE = 40  # keys of one dict or set that may share a hash; of the powers of two, 34 do
_EASY = 1 << 60  # integers below it have hashes of their own
_TEXTS = frozenset((str, bytes, bytearray))
_CONTAINERS = frozenset((tuple, list, dict, set, frozenset, Inert))
_LOOK = _CONTAINERS | _TEXTS
_HASH_WELL = PRIMITIVES - {int}  # text has a secret in its hash, and floats come at most 34 to one


class Limits:
    """What one pickle has used up so far."""

    __slots__ = ("_alike", "_charged")

    def __init__(self) -> None:
        self._charged = 0
        self._alike: dict[tuple[int, int], int] = {}  # (owner, hash) -> keys

    def charge(self, size: int) -> None:
        """Count bytes that the value takes beyond those of its pickle."""
        self._charged += size
        if self._charged > _CHARGE:
            raise PayloadError(
                "a value repeats large texts, or has a great many sets or objects: send it in several"
            )

    def check_keys(self, owner: int, keys: Iterable[Any]) -> None:
        """Let only keys pass that hash and compare in no time; `owner` is the dict or set they go into.

        The hash of a tuple, or of a large integer, has no secret in it: a peer can find thousands that
        share one, and a dict of n of them takes n * n comparisons.
        """
        for key in keys:
            kind = type(key)
            if kind is str or kind in _HASH_WELL or (kind is int and -_EASY < key < _EASY):
                continue
            if kind is Inert and is_key(key):
                continue
            parts = key if kind is tuple else (key,)
            if len(parts) > _TUPLE_KEY:
                raise _no_key()
            for part in parts:
                if type(part) not in PRIMITIVES or (type(part) is int and part.bit_length() > _KEY_BITS):
                    raise _no_key()
                if type(part) in _TEXTS:
                    self.charge(len(part))  # comparing two equal tuples compares their texts
            place = (owner, hash(key))
            self._alike[place] = self._alike.get(place, 0) + 1
            if self._alike[place] > _ALIKE:
                raise PayloadError("too many keys of one dict have the same hash: use text as keys")


def check_shape(value: Any, nodes: int) -> None:
    """Walk a value as JSON or repr() would, writing out what is shared each time it comes.

    It may have `nodes` nodes, of which text is one for every 32 bytes, and be DEPTH deep; a value
    that contains itself is deeper than any. Raises PayloadError.
    """
    level = [value]
    for _ in range(DEPTH + 1):
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind in _TEXTS:
                nodes -= len(node) >> 5
            elif kind is dict:
                below += node
                below += node.values()
            elif kind is Inert:
                below += node.parts()
            elif kind in _CONTAINERS:
                if _LOOK.isdisjoint(map(type, node)):
                    nodes -= len(node)  # a row of numbers, perhaps a long one
                else:
                    below += node
            if len(below) > nodes:
                raise PayloadError("a value repeats the same containers too often: send them once")
        if not below:
            return
        nodes -= len(below)
        level = below
    raise too_deep()


def too_deep() -> PayloadError:
    """Return the error for what is nested beyond DEPTH."""
    return PayloadError(
        f"a value has containers in more than {DEPTH} containers, or in themselves: make it flatter"
    )


def _no_key() -> PayloadError:
    return PayloadError(
        "a key of a dict, or a member of a set, is neither a number nor text nor a tuple"
        f" of up to {_TUPLE_KEY} of them: use one of these"
    )
