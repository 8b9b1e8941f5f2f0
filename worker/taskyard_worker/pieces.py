"""What the agent holds: pieces of leases on their way to slots, and outcomes on their way back."""

import sys
import time
from array import array
from dataclasses import dataclass, field
from itertools import groupby

from taskyard import batch, messages
from taskyard.errors import ProtocolError
from taskyard.messages import Failure, Grant, Kind, Outcome
from taskyard_worker import memory
from taskyard_worker.memory import FAILED, REFUSED, Region

_KINDS: tuple[Kind, ...] = ("completed", "failed", "refused")  # by the values of `kinds` in memory


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tasks held under one lease, none of them begun: `count` from index `first`."""

    lease: int
    job: str
    function: str
    timeout: float  # seconds a task may run; 0 = no limit
    suspect: bool
    first: int
    count: int
    block: bytes  # of the whole grant, shared by all pieces of it
    total: int  # values in the block
    at: int = 0  # of the piece's first task in the block

    @classmethod
    def of(cls, grant: Grant) -> "Piece":
        return cls(
            grant.lease, grant.job, grant.function, grant.timeout, grant.suspect, grant.first, grant.count,
            grant.block, grant.count,
        )  # fmt: skip

    def cut(self, start: int, stop: int) -> "Piece":
        """The tasks start..stop of it, counted from its first."""
        if start == 0 and stop == self.count:
            return self
        return Piece(
            self.lease, self.job, self.function, self.timeout, self.suspect, self.first + start,
            stop - start, self.block, self.total, self.at + start,
        )  # fmt: skip

    def payloads(self, count: int) -> bytes:
        """The block of its first `count` payloads."""
        return batch.cut(self.block, self.total, self.at, self.at + count)

    def outcome(
        self, kind: Kind, index: int = 0, started: float = 0.0, failure: Failure | None = None
    ) -> Outcome:
        """What became of a task that gave no outcome itself; it began at monotonic `started`, if it did."""
        now = time.monotonic()
        seconds = now - started if started else 0.0
        block = batch.pack([messages.encode(failure)]) if failure else b""
        return Outcome(
            self.lease, self.job, self.first + index, 1, kind, time.time() - seconds, seconds, block
        )

    def released(self) -> Outcome:
        """Given back: not begun, and nobody's fault."""
        return Outcome(self.lease, self.job, self.first, self.count, "released", time.time(), 0.0, b"")


@dataclass(slots=True, eq=False)
class Batch:
    """A piece in a slot's memory.

    taken    outcomes that were read so far
    seen     outcomes that a look at the memory found; trusted at the next look
    limit    tasks beyond this one were taken back from the slot
    dropped  the lease is not this worker's any more: what has not begun must not run
    """

    seq: int
    piece: Piece
    region: Region
    limit: int
    taken: int = 0
    seen: int = 0
    recalling: int = -1  # the LIMIT that was written; in force once the slot must have seen it
    dropped: bool = field(default=False)

    @property
    def done(self) -> int:
        return min(int(self.region.state[memory.DONE]), self.piece.count)

    @property
    def phase(self) -> int:
        return int(self.region.state[memory.PHASE])

    @property
    def running(self) -> int | None:
        """Which task of the piece runs at the moment, as far as the memory shows."""
        done = self.done
        return done if self.phase == memory.RUNNING and done < self.piece.count else None

    def since(self, index: int) -> float:
        """When a task of the piece began, in monotonic seconds."""
        return float(self.region.times[index - 1] if index else self.region.began[0])

    def rest(self) -> Piece | None:
        """What has not begun and was not taken back; for a batch that has ended."""
        return self.piece.cut(self.done, self.limit) if self.done < self.limit else None

    def outcomes(self, done: int) -> list[Outcome]:
        """Take the outcomes up to the `done`-th, as runs of one kind."""
        start, self.taken = self.taken, done
        kinds = bytes(self.region.kinds[start:done])
        if not any(kinds):
            return [self._run(start, done, 0)] if done > start else []
        runs = []
        for kind, run in groupby(kinds):
            stop = start + sum(1 for _ in run)
            runs.append(self._run(start, stop, kind))
            start = stop
        return runs

    def _run(self, start: int, stop: int, kind: int) -> Outcome:
        ends, output, piece = self.region.ends, self.region.output, self.piece
        offsets = ends[start : stop + 1]
        block = b"".join((_little(offsets), output[offsets[0] : offsets[-1]]))
        try:
            batch.check(block, stop - start)
        except ProtocolError:  # a wild pointer in somebody's C code
            kind = FAILED
            failure = Failure("killed", "", "a task has overwritten the outcomes of this slot in memory")
            block = batch.pack([messages.encode(failure)] * (stop - start))
        began = self.since(start)
        seconds = max(0.0, self.region.times[stop - 1] - began)
        started = time.time() - time.monotonic() + began
        return Outcome(
            piece.lease,
            piece.job,
            piece.first + start,
            stop - start,
            _KINDS[min(kind, REFUSED)],
            started,
            seconds,
            block,
        )


def place(piece: Piece, seq: int, region: Region) -> Batch:
    """Write a piece into a region, ready to be announced to the slot."""
    text = f"{piece.job}\0{piece.function}".encode()
    block = piece.payloads(piece.count)
    state = region.state
    state[memory.SEQ], state[memory.FIRST], state[memory.COUNT] = seq, piece.first, piece.count
    state[memory.SIZE], state[memory.TEXT_SIZE] = len(block), len(text)
    state[memory.DONE], state[memory.PHASE], state[memory.LIMIT] = 0, memory.GIVEN, piece.count
    region.kinds[: piece.count] = bytes(piece.count)
    region.text[: len(text)] = text
    region.input[: len(block)] = block
    return Batch(seq, piece, region, piece.count)


def fits(piece: Piece, region: Region) -> int:
    """How many tasks of a piece a region takes; 0 if not even one."""
    space = len(region.input)
    if len(piece.job) + len(piece.function) > memory.TEXT // 4 - 1:  # four bytes a character at most
        return 0
    count = min(memory.TASKS, piece.count)
    if len(piece.block) <= space:
        return count
    count = batch.take(piece.payloads(count), count, space)
    return 0 if count == 1 and len(piece.payloads(1)) > space else count


def _little(offsets: memoryview) -> memoryview | bytes:
    if sys.byteorder == "little":
        return offsets
    swapped = array("I", offsets)
    swapped.byteswap()
    return swapped.tobytes()
