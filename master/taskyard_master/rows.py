"""How the records of one commit become rows: pure.

Single tasks that lie side by side share a row (ten million rows of one task take
seconds just to read), so chunks merge with chunks and outcomes with outcomes. To
make merging safe the order is: openings and chunks, then grants, then the rest;
records of one commit never touch the same range otherwise, because a request that
touches what is pending waits for its commit.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from taskyard import batch
from taskyard.messages import Chunked, Ending, Opening, Record


class Entry(NamedTuple):
    """A record and the block beside it, which may be empty."""

    record: Record
    block: bytes


class _Row:
    """A row in the making: entries that lie side by side."""

    def __init__(self, entry: Entry) -> None:
        self.parts = [entry]
        self.count: int = getattr(entry.record, "count", 0)
        self.size = len(entry.block)

    def takes(self, entry: Entry) -> bool:
        return self.size + len(entry.block) <= batch.MAX_BYTES and _side_by_side(
            self.parts[0].record, self.count, entry.record
        )

    def add(self, entry: Entry) -> int:
        """Append; returns the offset of the entry's first task within the row."""
        offset = self.count
        self.parts.append(entry)
        self.count += getattr(entry.record, "count", 0)
        self.size += len(entry.block)
        return offset

    def entry(self) -> Entry:
        first = self.parts[0]
        if len(self.parts) == 1:
            return first
        block = batch.join([(part.block, getattr(part.record, "count", 0)) for part in self.parts])
        if isinstance(first.record, Chunked):
            return Entry(replace(first.record, count=self.count, digest=b""), block)
        assert isinstance(first.record, Ending)
        seconds = sum(part.record.seconds for part in self.parts if isinstance(part.record, Ending))
        return Entry(replace(first.record, count=self.count, seconds=seconds), block)


def _side_by_side(head: Record, count: int, record: Record) -> bool:
    if isinstance(head, Chunked) and isinstance(record, Chunked):
        return (
            head.job == record.job
            and record.first == head.first + count
            and record.first >> batch.SEGMENT_BITS == head.first >> batch.SEGMENT_BITS
        )
    if isinstance(head, Ending) and isinstance(record, Ending):
        return (
            record.first == head.first + count
            and record.first >> batch.SEGMENT_BITS == head.first >> batch.SEGMENT_BITS
            and replace(record, first=0, count=0, started=0.0, seconds=0.0, at=0.0)
            == replace(head, first=0, count=0, started=0.0, seconds=0.0, at=0.0)
        )
    return False


def arrange(entries: Sequence[Entry], grants: Sequence[Entry]) -> tuple[list[Entry], list[tuple[int, int]]]:
    """Rows to write, and for each of `entries` its (row, offset within the row)."""
    places: list[tuple[int, int]] = [(0, 0)] * len(entries)
    rows: list[_Row] = []
    open_rows: dict[tuple[str, str], int] = {}

    def place(number: int, entry: Entry) -> None:
        key = (type(entry.record).__name__, entry.record.job)
        at = open_rows.get(key)
        if at is not None and rows[at].takes(entry):
            places[number] = (at, rows[at].add(entry))
            return
        rows.append(_Row(entry))
        open_rows[key] = len(rows) - 1
        places[number] = (len(rows) - 1, 0)

    early = [isinstance(entry.record, Opening | Chunked) for entry in entries]
    for number, entry in enumerate(entries):
        if early[number]:
            place(number, entry)
    rows.extend(_Row(grant) for grant in grants)
    for number, entry in enumerate(entries):
        if not early[number]:
            place(number, entry)
    return [row.entry() for row in rows], places
