"""Who holds what, and until when."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf

from taskyard.ranges import Runs
from taskyard_master.jobs import Job

AGAIN = 1.0  # seconds until an expired lease is looked at again, should its loss not be committed


class Holder:
    """A worker process, or a connection of a plain peer: whoever holds leases, named by its boot id."""

    __slots__ = ("boot", "leases", "left", "reserved", "worker")

    def __init__(self, boot: str, worker: str) -> None:
        self.boot = boot
        self.worker = worker
        self.leases: dict[int, Lease] = {}
        self.left = 0  # tasks held
        self.reserved = 0.0  # chosen for a suspect until then: gets nothing new before it is empty


class Lease:
    """`left` tasks of the range from `first` on; which ones is in the segment's map of owners."""

    __slots__ = (
        "begun", "boot", "count", "deadline", "first", "holder", "id", "job", "left", "pace", "seconds",
        "suspect",
    )  # fmt: skip

    def __init__(
        self, lease: int, job: Job, first: int, count: int, holder: Holder, suspect: bool, seconds: float
    ) -> None:
        self.id = lease
        self.job = job
        self.first = first
        self.count = count
        self.left = 0
        self.holder = holder
        self.boot = holder.boot
        self.suspect = suspect
        self.begun = False  # a suspect that stands alone: it was told to be running
        self.seconds = seconds  # how long it lasts without a renewal
        self.deadline = inf  # monotonic
        self.pace = job.pace  # what a task of it was expected to take, in worker seconds


class Leases:
    """All leases and their holders."""

    def __init__(self, boot: int) -> None:
        self._boot = boot
        self._counter = 0
        self._deadlines: list[tuple[float, int]] = []  # with entries that are out of date
        self.table: dict[int, Lease] = {}
        self.holders: dict[str, Holder] = {}
        self.gone: set[str] = set()  # holders that are lost and still have leases
        self.serving: set[str] = set()  # holders of suspects

    def new_id(self) -> int:
        """A lease id that no master before or after will use."""
        self._counter += 1
        return self._boot << 40 | self._counter

    def foreign(self, lease: int) -> bool:
        """Whether an id was made by a master before this one."""
        return 0 < lease >> 40 < self._boot

    def holder(self, boot: str, worker: str) -> Holder:
        """The holder of that boot id, present from now on."""
        found = self.holders.get(boot)
        if found is None:
            found = self.holders[boot] = Holder(boot, worker)
        self.gone.discard(boot)
        return found

    @property
    def present(self) -> int:
        """How many holders are there."""
        return len(self.holders) - len(self.gone)

    def leave(self, boot: str, now: float) -> list[Lease]:
        """A holder is gone for good: its leases run out now."""
        holder = self.holders.get(boot)
        if holder is None:
            return []
        if not holder.leases:
            del self.holders[boot]
            return []
        self.gone.add(boot)
        holder.reserved = 0.0
        for lease in holder.leases.values():
            self.rearm(lease, now)
        return list(holder.leases.values())

    def add(self, lease: Lease, count: int) -> None:
        """A lease holds `count` more tasks; it is new if it held none."""
        if not lease.left:
            self.table[lease.id] = lease
            lease.holder.leases[lease.id] = lease
            if lease.suspect:
                self.serving.add(lease.boot)
        lease.left += count
        lease.holder.left += count
        lease.job.charge += lease.pace * count

    def take(self, owner: Runs, first: int, count: int) -> None:
        """Take tasks of a segment out of whatever leases hold them."""
        for _, many, number in list(owner.runs(first, count)):
            if number:
                self._shrink(self.table[number], many)
        owner.set(first, count, 0)

    def void(self, job: Job) -> None:
        """All leases of a job are over."""
        for lease in [lease for lease in self.table.values() if lease.job is job]:
            self._shrink(lease, lease.left)
        job.charge = 0.0

    def _shrink(self, lease: Lease, count: int) -> None:
        holder, job = lease.holder, lease.job
        lease.left -= count
        holder.left -= count
        job.charge -= lease.pace * count
        if lease.left:
            return
        del self.table[lease.id], holder.leases[lease.id]
        if lease.suspect and not any(other.suspect for other in holder.leases.values()):
            self.serving.discard(lease.boot)
        if not holder.leases and lease.boot in self.gone:
            self.gone.remove(lease.boot)
            del self.holders[lease.boot]

    def arm(self, lease: Lease, now: float) -> None:
        """A lease begins or is renewed: it lasts from now on."""
        new = lease.deadline == inf
        lease.deadline = now + lease.seconds
        if new and lease.deadline != inf:
            self._push(lease.deadline, lease.id)

    def rearm(self, lease: Lease, deadline: float) -> None:
        """A lease ends at `deadline`, sooner than it would have."""
        lease.deadline = deadline
        self._push(deadline, lease.id)

    def _push(self, deadline: float, lease: int) -> None:
        heappush(self._deadlines, (deadline, lease))
        if len(self._deadlines) > 4 * len(self.table) + 1024:
            self._deadlines = [
                (lease.deadline, lease.id) for lease in self.table.values() if lease.deadline < inf
            ]
            heapify(self._deadlines)

    def expired(self, now: float) -> Iterable[Lease]:
        """The leases whose time is over, each once in AGAIN seconds."""
        found: dict[int, Lease] = {}
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heappop(self._deadlines)
            lease = self.table.get(number)
            if lease is None or number in found:
                continue
            if lease.deadline <= now:
                found[number] = lease
            else:
                heappush(self._deadlines, (lease.deadline, number))
        for number in found:
            heappush(self._deadlines, (now + AGAIN, number))
        return found.values()

    def next_deadline(self) -> float:
        """When a lease will run out at the earliest, renewals aside; inf if none will."""
        while self._deadlines and self._deadlines[0][1] not in self.table:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else inf
