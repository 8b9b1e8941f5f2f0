"""What a judgement comes to: records to commit, and what to answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from taskyard import batch
from taskyard.messages import Granting, Record, Struct
from taskyard_master.segments import SHIFT, WIDTH


@dataclass(slots=True)
class Plan:
    """Records with their blocks (b"" where there is none), to be held and committed in this order.

    Nothing has changed yet. `accepted` and `duplicates` count tasks; `drop` lists
    leases that their worker is to be told to drop, once this is committed.
    """

    records: list[tuple[Record, bytes]] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
    drop: list[int] = field(default_factory=list)


class Granted(Struct):
    """A lease that was made: everything of a Grant but its block."""

    lease: int
    job: str
    function: str
    first: int
    count: int
    timeout: float
    suspect: bool  # with count 1: `begin` before it runs
    worker: str
    boot: str

    def record(self) -> Granting:
        """What the journal is to keep of it; nobody waits for that."""
        return Granting(self.job, self.first, self.count, self.lease, self.worker, self.boot, self.suspect)


def portions(first: int, count: int, block: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut `count` values, of the indices from `first` on, into (first, count, block) of one row each.

    No row crosses a segment's bounds, or is larger than a stored block may be unless
    one value is. The same values are always cut alike.
    """
    done = 0
    while done < count:
        many = min(count - done, WIDTH - ((first + done) & (WIDTH - 1)))
        yield from _halves(first + done, many, batch.cut(block, count, done, done + many))
        done += many


def _halves(first: int, count: int, block: bytes) -> Iterator[tuple[int, int, bytes]]:
    if len(block) <= batch.MAX_BYTES or count == 1:
        yield first, count, block
        return
    half = count // 2
    yield from _halves(first, half, batch.cut(block, count, 0, half))
    yield from _halves(first + half, count - half, batch.cut(block, count, half, count))


def split(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(segment, first within it, count) of the parts of a range."""
    end = first + count
    while first < end:
        number = first >> SHIFT
        stop = min(end, (number + 1) << SHIFT)
        yield number, first - (number << SHIFT), stop - first
        first = stop
