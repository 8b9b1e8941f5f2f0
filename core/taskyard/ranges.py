"""Maps from an index to a small number, over a fixed width: the arithmetic that everything rests on.

Tasks move in ranges, so what is known of them is kept in runs of equal values:
`Runs` holds only those. `RangeMap` holds bytes, and turns to one byte an index
where the runs would be more than a 32nd of the width: then no pattern costs more
than `width` bytes, and every operation stays a scan in C. Nothing here costs a
step of Python an index.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cache

SHARE = 32  # at most width / SHARE runs, then bytes

Values = bytearray | array  # type: ignore[type-arg]  # what bytearray and array("Q") have in common


def _longs(values: Iterable[int]) -> "array[int]":
    return array("Q", values)


@cache
def _same(value: int) -> Callable[[bytearray, int, int], "re.Match[bytes] | None"]:
    """Match for the longest run of `value` from a position on: half a nanosecond an index."""
    return re.compile(b"\\x%02x*" % value, re.DOTALL).match


def replacing(values: Iterable[int], new: int) -> bytes:
    """A table for `RangeMap.translate` that turns each of `values` into `new`."""
    old = bytes(values)
    return bytes.maketrans(old, bytes([new]) * len(old))


class Runs:
    """A map index -> value kept as runs of equal values.

    `width` is how many indices there are (at most 65536, so that a start takes two
    bytes); all begin as 0. Values are 0..255, or with `wide` 0..2**64 - 1. An
    operation costs a binary search and one move of memory.
    """

    __slots__ = ("_pack", "starts", "values", "width")

    def __init__(self, width: int, wide: bool = False) -> None:
        self.width = width
        self._pack: Callable[[Iterable[int]], Values] = _longs if wide else bytearray
        self.starts = array("H", (0,))
        self.values: Values = self._pack((0,))

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.starts)

    def run(self, index: int) -> tuple[int, int]:
        """(value at `index`, end of the run that it is in)."""
        at = bisect_right(self.starts, index)
        end = self.starts[at] if at < len(self.starts) else self.width
        return self.values[at - 1], end

    def set(self, first: int, count: int, value: int) -> list[tuple[int, int]]:
        """Set `count` (at least 1) indices from `first`; returns what they were, as (value, how many)."""
        starts, values = self.starts, self.values
        end, total = first + count, len(starts)
        low = bisect_right(starts, first) - 1  # the run that holds `first`
        high = bisect_left(starts, end, low + 1)  # the first run from `end` on
        stop = starts[high] if high < total else self.width
        last = values[high - 1]
        if high == low + 1:
            old = [(last, count)]
            if last == value:
                return old
        else:
            old = self._between(low, high, first, end)
        new_starts, new_values = [], []
        if starts[low] < first:  # what is left of the first run stays
            before = values[low]
            low += 1
        else:
            before = values[low - 1] if low else -1
        if before != value:
            new_starts.append(first)
            new_values.append(value)
        if end < stop:  # what is left of the last run
            if last != value:
                new_starts.append(end)
                new_values.append(last)
        elif high < total and values[high] == value:
            high += 1
        starts[low:high] = array("H", new_starts)
        values[low:high] = self._pack(new_values)  # type: ignore[assignment]
        return old

    def _between(self, low: int, high: int, first: int, end: int) -> list[tuple[int, int]]:
        bounds = [first, *self.starts[low + 1 : high], end]
        found: dict[int, int] = {}
        for value, start, stop in zip(self.values[low:high], bounds, bounds[1:], strict=False):
            found[value] = found.get(value, 0) + stop - start
        return list(found.items())

    def runs(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first, count, value) of each run, clipped to `count` indices from `first`.

        What is set while iterating is seen from the next run on.
        """
        end = first + count
        while first < end:
            value, stop = self.run(first)
            stop = min(stop, end)
            yield first, stop - first, value
            first = stop

    def dump(self) -> tuple[bytes, bytes]:
        """Starts and values as bytes in this machine's order, for `load`."""
        return self.starts.tobytes(), bytes(memoryview(self.values).cast("B"))

    def load(self, starts: bytes, values: bytes) -> None:
        """Take over what `dump` gave."""
        self.starts = array("H", starts)
        self.values = bytearray(values) if self._pack is bytearray else array("Q", values)


class RangeMap:
    """A map index -> 0..255 over `width` indices, all 0 at first; `counts` says how many have a value.

    `counts[value]` is there for values that occur, and only for those.
    """

    __slots__ = ("_dense", "_limit", "_runs", "counts", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.counts: dict[int, int] = {0: width}
        self._limit = max(1, width // SHARE)
        self._runs: Runs | None = Runs(width)
        self._dense = bytearray()

    @property
    def dense(self) -> bool:
        """Whether it is kept as one byte an index."""
        return self._runs is None

    def run(self, index: int) -> tuple[int, int]:
        """(value at `index`, end of the run that it is in)."""
        if self._runs is not None:
            return self._runs.run(index)
        value = self._dense[index]
        found = _same(value)(self._dense, index, self.width)
        return value, found.end() if found else index + 1

    def runs(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first, count, value) of each run, clipped to `count` indices from `first`.

        What is set while iterating is seen from the next run on.
        """
        end = first + count
        while first < end:
            value, stop = self.run(first)
            stop = min(stop, end)
            yield first, stop - first, value
            first = stop

    def find(self, value: int, first: int = 0) -> int:
        """The first index from `first` on that has `value`; -1 if there is none."""
        if value not in self.counts or first >= self.width:
            return -1
        if self._runs is None:
            return self._dense.find(value, first)
        at = bisect_right(self._runs.starts, first) - 1
        if self._runs.values[at] == value:
            return first
        at = self._runs.values.find(value, at + 1)  # type: ignore[union-attr]
        return self._runs.starts[at] if at >= 0 else -1

    def set(self, first: int, count: int, value: int) -> list[tuple[int, int]]:
        """Set `count` (at least 1) indices from `first`; returns what they were, as (value, how many)."""
        if self._runs is not None:
            old = self._runs.set(first, count, value)
            if len(self._runs) > self._limit:
                self._dense = bytearray(self.image())
                self._runs = None
        else:
            old = _histogram(self._dense[first : first + count])
            self._dense[first : first + count] = bytes((value,)) * count
        self._count(old, value, count)
        if self._runs is None and len(self.counts) == 1:
            self.compact()
        return old

    def _count(self, old: list[tuple[int, int]], value: int, count: int) -> None:
        counts = self.counts
        counts[value] = counts.get(value, 0) + count
        for was, many in old:
            if counts[was] == many:
                del counts[was]
            else:
                counts[was] -= many

    def translate(self, table: bytes) -> list[tuple[int, int]]:
        """Pass every value through `table` (256 bytes); returns what changed, as (old value, how many)."""
        changed = [(value, many) for value, many in self.counts.items() if table[value] != value]
        if not changed:
            return changed
        if self._runs is None:
            self._dense = self._dense.translate(table)
        else:
            starts, values = self._runs.starts, self._runs.values
            fresh = Runs(self.width)
            fresh.starts, fresh.values = array("H"), bytearray()
            before = -1
            for start, value in zip(starts, bytes(values).translate(table), strict=True):
                if value != before:
                    fresh.starts.append(start)
                    fresh.values.append(value)
                    before = value
            self._runs = fresh
        for value, _ in changed:
            del self.counts[value]
        for value, many in changed:
            self.counts[table[value]] = self.counts.get(table[value], 0) + many
        if self._runs is None and len(self.counts) == 1:
            self.compact()
        return changed

    def image(self) -> bytes:
        """All values, one byte each."""
        if self._runs is None:
            return bytes(self._dense)
        bounds = [*self._runs.starts, self.width]
        parts = zip(self._runs.values, bounds, bounds[1:], strict=False)
        return b"".join([bytes((value,)) * (stop - start) for value, start, stop in parts])

    def load(self, image: bytes) -> None:
        """Set every value at once from `width` bytes."""
        self._dense = bytearray(image)
        self._runs = None
        self.counts = dict(_histogram(self._dense))
        self.compact()

    def compact(self) -> None:
        """Go back from bytes to runs if those are few again."""
        if self._runs is not None:
            return
        runs = Runs(self.width)
        starts, values = array("H"), bytearray()
        for first, _, value in self.runs(0, self.width):
            if len(starts) == self._limit:
                return
            starts.append(first)
            values.append(value)
        runs.starts, runs.values = starts, values
        self._runs, self._dense = runs, bytearray()

    def dump(self) -> tuple[bytes, bytes]:
        """(starts, values) of the runs, or (nothing, all bytes): for `restore`."""
        return (b"", bytes(self._dense)) if self._runs is None else self._runs.dump()

    def restore(self, starts: bytes, values: bytes) -> None:
        """Take over what `dump` gave."""
        if not starts:
            self._dense, self._runs = bytearray(values), None
            self.counts = dict(_histogram(self._dense))
            return
        self._runs, self._dense = Runs(self.width), bytearray()
        self._runs.load(starts, values)
        self.counts = {}
        for _, count, value in self._runs.runs(0, self.width):
            self.counts[value] = self.counts.get(value, 0) + count


def _histogram(data: bytearray) -> list[tuple[int, int]]:
    """(value, how many) of the bytes: one scan in C for each distinct value."""
    found = []
    while data:
        value = data[0]
        many = data.count(value)
        found.append((value, many))
        data = data.translate(None, bytes((value,))) if many < len(data) else bytearray()
    return found
