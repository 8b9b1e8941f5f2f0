"""How many tasks to ask for, and how many to hand to a slot at once, from how long tasks took.

Pure: what is measured comes in, numbers go out. A lease should hold about a tenth of a
second of work for each slot, so that a request costs next to nothing and yet no worker
sits on what another one could run. A slot is given some hundredths of a second at a time,
less where tasks are uneven: what lies behind a slow one is taken back from it, and between
two batches a slot loses about a tenth of a millisecond. Where tasks take long, both come
down to one task a slot, and nothing is asked for before a slot is free: a request takes a
millisecond, and a long task that waits here while another worker idles takes long.

Of a function that is not known yet a worker takes one task a slot, and after that no
more than five times what it has seen of it, so a wrong guess stays small.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_SECONDS = 0.1  # of work for each slot in a lease
REFILL_SECONDS = 0.05  # of work for each slot that is left when the next lease is asked for
BATCH_SECONDS = 0.06  # of work in a slot's batch
SINGLE_SECONDS = 0.02  # tasks that take longer are handed out one by one, and none lies ready in the slot
SLOW_SECONDS = 0.25  # tasks that take longer are asked for only when a slot is free
KEEP_SECONDS = 2.0  # of work for each slot; what is held beyond it goes back
STUCK_SECONDS = 1.0  # without an end of any task, after which what is queued counts as long
SURE_TASKS = 8  # after which a pace is reason enough to give tasks back
BATCH_TASKS = 4096  # in a slot's batch
_WEIGHT = 1 / 8  # of one more task in the averages
_SPREADS = 2.0  # how many mean deviations above the mean the estimate lies
_GROWTH = 4  # tasks asked for, over those seen
_MANY = 16  # tasks seen at once, whose time rises no more than so many times at once:
_RISE = 2.0  # a processor that somebody else had for ten milliseconds looks like slow tasks, otherwise


@dataclass(slots=True)
class Pace:
    """How long tasks of one function take: mean and mean deviation, recent ones weighing most."""

    seen: int = 0
    mean: float = 0.0  # seconds a task
    spread: float = 0.0

    def observe(self, count: int, seconds: float) -> None:
        """`count` tasks took `seconds` together."""
        each = seconds / count
        if self.seen and count >= _MANY:
            each = min(each, _RISE * self.mean)
        if not self.seen:
            self.mean, self.spread = each, each / 2
        else:
            weight = 1 - (1 - _WEIGHT) ** min(count, 1000)
            self.spread += weight * (abs(each - self.mean) - self.spread)
            self.mean += weight * (each - self.mean)
        self.seen += count

    @property
    def estimate(self) -> float:
        """Seconds to reckon with for a task; never 0."""
        return max(self.mean + _SPREADS * self.spread, 1e-7)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to ask the master for: tasks of a function not known yet, and of those that are."""

    want: int
    wants: dict[str, int]


@dataclass(slots=True)
class Paces:
    """The paces of all functions that this worker has run."""

    slots: int
    cap: int  # tasks in one lease at most
    of: dict[str, Pace] = field(default_factory=dict)

    def observe(self, function: str, count: int, seconds: float) -> None:
        self.of.setdefault(function, Pace()).observe(count, seconds)

    def lease(self, function: str) -> int:
        """Tasks that a lease of this function should hold."""
        pace = self.of.get(function)
        if pace is None:
            return min(self.slots, self.cap)
        tasks = int(LEASE_SECONDS * self.slots / pace.estimate)
        return max(1, min(max(tasks, self.slots), self.slots + _GROWTH * pace.seen, self.cap))

    def batch(self, function: str, queued: int) -> int:
        """Tasks to hand to a slot at once, of `queued` that all slots share."""
        pace = self.of.get(function)
        if pace is None:
            return 1
        tasks = int(BATCH_SECONDS / pace.estimate)
        return max(1, min(tasks, BATCH_TASKS, -(-queued // self.slots)))

    def lies_ready(self, function: str) -> bool:
        """Whether a slot that works should have the next batch lie ready."""
        pace = self.of.get(function)
        return pace is not None and pace.estimate < SINGLE_SECONDS

    def wish(self, queued: Mapping[str, int], idle: int) -> Wish | None:
        """What to ask for now, with so many tasks queued by function and so many slots idle.

        None: nothing, there is enough at hand, or what there is takes so long that asking can wait.
        """
        waiting = sum(queued.values())
        free = max(0, idle - waiting)
        quick = [name for name, pace in self.of.items() if pace.estimate < SLOW_SECONDS]
        work = sum(count * self._seconds(name) for name, count in queued.items())
        if not free and (not quick or work > self._enough(queued)):
            return None
        wants = dict.fromkeys(self.of, free)
        wants |= {name: max(free, self.lease(name) - queued.get(name, 0)) for name in quick}
        return Wish(free, {name: want for name, want in wants.items() if want})

    def _enough(self, queued: Mapping[str, int]) -> float:
        """Seconds of work with which asking can wait; half a lease where the cap keeps leases short, as
        tasks that are asked for by the hundred cost several times what they cost by the thousand."""
        half = max((self.lease(name) * self._seconds(name) / 2 for name in queued), default=0.0)
        return min(REFILL_SECONDS * self.slots, half)

    def excess(self, function: str, queued: int, stuck: float) -> int:
        """How many of the queued tasks to give back; `stuck`: seconds that no slot has come to an end."""
        pace = self.of.get(function)
        known = pace.estimate if pace is not None and pace.seen >= SURE_TASKS else 0.0
        seconds = max(known, stuck if stuck >= STUCK_SECONDS else 0.0)
        if queued * seconds <= KEEP_SECONDS * self.slots or queued <= self.slots:
            return 0
        return queued - max(self.slots, int(LEASE_SECONDS * self.slots / seconds))

    def _seconds(self, function: str) -> float:
        pace = self.of.get(function)
        return pace.estimate if pace is not None else SLOW_SECONDS
