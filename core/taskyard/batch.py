"""Many opaque values as one block of bytes: offsets, then the values end to end.

A block of n values is n + 1 little-endian unsigned 32-bit offsets followed by
the bytes of the values; value i is `data[offset[i] - offset[0] : offset[i + 1] -
offset[0]]`. Offsets count from any base, so a slice of a block is made of two
slices of bytes: nobody touches single values on the way. How many values a
block holds travels beside it.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise

from taskyard.errors import ProtocolError

MAX_BYTES = 256 << 10  # a stored block is no larger, unless one value alone is
SEGMENT_BITS = 16  # no stored row, range of a lease or outcome crosses a multiple of 2**16 indices
_WIDTH = 4
_SWAP = sys.byteorder == "big"


def _offsets(raw: bytes | memoryview) -> "array[int]":
    result = array("I")
    result.frombytes(raw)
    if _SWAP:
        result.byteswap()
    return result


def _raw(offsets: "array[int]") -> bytes:
    if _SWAP:
        offsets = array("I", offsets)
        offsets.byteswap()
    return offsets.tobytes()


def pack(values: Sequence[bytes]) -> bytes:
    """One block of all the values, in order."""
    offsets = array("I", accumulate(map(len, values), initial=0))
    return _raw(offsets) + b"".join(values)


def unpack(block: bytes, count: int) -> list[bytes]:
    """The values of a block; raises ProtocolError if it is not a block of `count` values."""
    check(block, count)
    offsets = _offsets(block[: _WIDTH * (count + 1)])
    shift = _WIDTH * (count + 1) - offsets[0]
    bounds = [offset + shift for offset in offsets]
    return [block[a:b] for a, b in pairwise(bounds)]


def check(block: bytes, count: int) -> None:
    """Raise ProtocolError unless `block` is shaped as a block of `count` values."""
    head = _WIDTH * (count + 1)
    if count < 1 or len(block) < head:
        raise ProtocolError(f"a block of {len(block)} bytes cannot hold {count} values")
    offsets = _offsets(memoryview(block)[:head])
    if offsets[-1] - offsets[0] != len(block) - head:
        raise ProtocolError(f"a block of {count} values does not end where its offsets say")
    listed = offsets.tolist()
    if listed != sorted(listed):  # as fast as a look: sorting what is sorted is one pass in C
        raise ProtocolError(f"the offsets of a block of {count} values run backwards")


def cut(block: bytes, count: int, start: int, stop: int) -> bytes:
    """The block of values start..stop of a block of `count` values, values untouched."""
    if start == 0 and stop == count:
        return block
    view = memoryview(block)
    head = _WIDTH * (count + 1)
    offsets = _offsets(view[_WIDTH * start : _WIDTH * (stop + 1)])
    base = int.from_bytes(view[:_WIDTH], "little")
    begin, end = head + offsets[0] - base, head + offsets[-1] - base
    return b"".join((view[_WIDTH * start : _WIDTH * (stop + 1)], view[begin:end]))


def join(blocks: Iterable[tuple[bytes, int]]) -> bytes:
    """One block of the values of several (block, count), in order."""
    heads: array[int] = array("I", [0])
    bodies: list[memoryview] = []
    for block, count in blocks:
        view = memoryview(block)
        head = _WIDTH * (count + 1)
        offsets = _offsets(view[:head])
        shift = heads[-1] - offsets[0]
        heads.extend(offset + shift for offset in offsets[1:])
        bodies.append(view[head:])
    return b"".join((_raw(heads), *bodies))


def longest(block: bytes, count: int) -> int:
    """Bytes of the longest value."""
    offsets = _offsets(memoryview(block)[: _WIDTH * (count + 1)])
    return max(b - a for a, b in pairwise(offsets))


def take(block: bytes, count: int, space: int) -> int:
    """How many values from the start fit into `space` bytes; at least one."""
    if len(block) <= space:
        return count
    offsets = _offsets(memoryview(block)[: _WIDTH * (count + 1)])
    low, high = 1, count
    while low < high:
        middle = (low + high + 1) // 2
        if offsets[middle] - offsets[0] + _WIDTH * (middle + 1) <= space:
            low = middle
        else:
            high = middle - 1
    return low


def digest(block: bytes) -> bytes:
    """16 bytes that name the content of a block, for repeated chunks."""
    return blake2b(block, digest_size=16).digest()
