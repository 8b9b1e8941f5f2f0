"""Ranges whose record is queued: who touches one waits for its commit."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Pending(Exception):
    """The request touches what is queued: await the commit of `ticket`, whatever comes of it, and retry."""

    def __init__(self, ticket: int) -> None:
        super().__init__(ticket)
        self.ticket = ticket


class Spans:
    """Disjoint half-open spans of indices, each with the ticket of its record."""

    __slots__ = ("_ends", "_starts", "_tickets")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._tickets: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, first: int, end: int, ticket: int = 0) -> None:
        """Add a span that overlaps no other."""
        at = bisect_right(self._starts, first)
        self._starts.insert(at, first)
        self._ends.insert(at, end)
        self._tickets.insert(at, ticket)

    def remove(self, first: int) -> None:
        """Remove the span that begins at `first`."""
        at = bisect_left(self._starts, first)
        del self._starts[at], self._ends[at], self._tickets[at]

    def hit(self, first: int, end: int) -> int | None:
        """The ticket of the first span that overlaps first..end, or None."""
        at = bisect_right(self._ends, first)
        if at < len(self._starts) and self._starts[at] < end:
            return self._tickets[at]
        return None

    def free(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts (first, end) of first..end that no span overlaps, in order."""
        at = bisect_right(self._ends, first)
        while first < end:
            stop = min(end, self._starts[at]) if at < len(self._starts) else end
            if first < stop:
                yield first, stop
            if stop == end:
                return
            first = self._ends[at]
            at += 1
