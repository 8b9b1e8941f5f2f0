"""One job: its options, its tasks by segments, how many are in each state, and what is queued."""

from collections import deque
from collections.abc import Collection, Iterator
from typing import Literal, TypeAlias

from taskyard.messages import JobStatus, Opening, Options
from taskyard_master.plans import split
from taskyard_master.segments import (
    CANCELLED,
    COMPLETED,
    DEAD,
    DELAYED,
    LEASED,
    READY,
    SHIFT,
    SUSPECT,
    WIDTH,
    Segment,
)
from taskyard_master.spans import Spans

# Where a job stands among others: worker seconds, last turn, a serial (so that jobs are never compared).
Entry: TypeAlias = "tuple[float, int, int, Job]"

ENDED = {COMPLETED: "completed", DEAD: "dead", CANCELLED: "cancelled"}
MOST = 255  # attempts, losses and rounds are kept as bytes
DIGESTS = 64  # chunks whose digests are remembered, for repeats


class Job:
    """State of one job. `next` is what was accepted; `tail` is `next` with the queued chunks."""

    __slots__ = (
        "barrier",
        "charge",
        "chunks",
        "counts",
        "created",
        "digests",
        "ended",
        "entry",
        "error",
        "finished",
        "function",
        "hints",
        "id",
        "name",
        "next",
        "options",
        "pending",
        "reason",
        "renewed",
        "results",
        "retries",
        "seconds",
        "segments",
        "spent",
        "state",
        "stopping",
        "submitter",
        "tail",
        "taken",
        "taking",
        "turn",
    )

    def __init__(self, opening: Opening, now: float) -> None:
        self.id = opening.job
        self.name = opening.name
        self.function = opening.function
        self.options: Options = opening.options
        self.submitter = opening.submitter
        self.created = opening.at
        self.renewed = now  # monotonic: the submitter's last sign of life
        self.state: Literal["open", "closed", "incomplete", "cancelled"] = "open"
        self.reason = ""
        self.error = ""  # the latest failure in one line
        self.ended = 0.0  # Unix seconds
        self.next = 0
        self.segments: list[Segment] = []
        self.counts = [0] * (DELAYED + 1)  # by state
        self.retries = 0
        self.finished = 0  # executions that were measured
        self.seconds = 0.0  # worker seconds that they took
        self.digests: deque[tuple[int, int, bytes]] = deque(maxlen=DIGESTS)  # the latest chunks
        self.results = 0  # completed tasks that gave one
        self.taken = (0, 0, 0)  # seq of the row, results of it taken, results taken in all
        # What is queued.
        self.tail = 0
        self.chunks: deque[tuple[int, int]] = deque()  # (end, ticket)
        self.taking = self.taken
        self.pending = Spans()
        self.barrier = 0  # ticket of a queued record that concerns the whole job
        self.stopping = False  # that record cancels or deletes: grant nothing more
        # Its turn among the jobs of its priority.
        self.spent = 0.0  # worker seconds, moved up on coming back so that it has no credit for its absence
        self.charge = 0.0  # worker seconds that its leases are likely to take
        self.turn = 0
        self.entry: Entry | None = None
        self.hints = {READY: 0, SUSPECT: 0}  # no segment below has any

    def segment(self, number: int) -> Segment:
        """The segment of that number, made if it is the next one."""
        while len(self.segments) <= number:
            self.segments.append(Segment())
        return self.segments[number]

    def lowest(self, state: int) -> Iterator[int]:
        """Numbers of the segments that have any READY (or SUSPECT), lowest first."""
        segments, low = self.segments, True
        for number in range(self.hints[state], len(segments)):
            if state in segments[number].state.counts:
                low = False
                yield number
            elif low:
                self.hints[state] = number + 1

    @property
    def unfinished(self) -> int:
        counts = self.counts
        return counts[READY] + counts[LEASED] + counts[DELAYED] + counts[SUSPECT]

    @property
    def pace(self) -> float:
        """Worker seconds a task, measured; 0 before anything was."""
        return self.seconds / self.finished if self.finished else 0.0

    @property
    def over(self) -> bool:
        """Whether it takes no more tasks and nothing is unfinished."""
        return self.state != "open" and not self.unfinished

    def suits(self, functions: Collection[str]) -> bool:
        """Whether a worker that has these functions can run it; without one, any worker with some."""
        return self.function in functions or (not self.function and bool(functions))

    def ended_run(self, index: int) -> tuple[int, str]:
        """(count, state) of the finished tasks from `index` on, within a segment, that ended alike."""
        if not 0 <= index < self.next:
            return 0, ""
        at = index & (WIDTH - 1)
        state, end = self.segments[index >> SHIFT].state.run(at)
        return (end - at, ENDED[state]) if state in ENDED else (0, "")

    def settled(self, first: int, count: int) -> bool:
        """Whether nobody can ask anything more of these tasks: a dead one can be given another round."""
        return all(
            state in (COMPLETED, CANCELLED)
            for number, start, many in split(first, count)
            for _, _, state in self.segments[number].state.runs(start, many)
        )

    def dead_in(self, first: int, end: int) -> int:
        """How many tasks of first..end are dead."""
        if first == 0 and end == self.next:
            return self.counts[DEAD]
        many = 0
        for number, start, count in split(first, end - first):
            state = self.segments[number].state
            if DEAD in state.counts:
                many += state.image()[start : start + count].count(DEAD)
        return many

    def status(self) -> JobStatus:
        counts = self.counts
        return JobStatus(
            id=self.id,
            name=self.name,
            function=self.function,
            state=self.state,
            total=self.next,
            ready=counts[READY],
            leased=counts[LEASED],
            delayed=counts[DELAYED],
            suspect=counts[SUSPECT],
            completed=counts[COMPLETED],
            dead=counts[DEAD],
            cancelled=counts[CANCELLED],
            retries=self.retries,
            seconds=self.seconds,
            created=self.created,
            ended=self.ended,
            priority=self.options.priority,
            note=self.reason,
            error=self.error,
        )
