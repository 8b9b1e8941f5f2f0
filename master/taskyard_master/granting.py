"""Granting leases: who gets what, and how much of it (rules 10 and 12)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from taskyard_master.jobs import Job
from taskyard_master.leases import Holder, Lease
from taskyard_master.plans import Granted
from taskyard_master.segments import READY, SHIFT, SUSPECT, WIDTH
from taskyard_master.state import State

RANGES = 64  # leases a call at most
LEAST = 16  # a worker asks for a tenth of a second of work; so much less of it is not worth sharing


@dataclass(slots=True)
class Ask:
    """What a worker asks for: see `Ledger.grant`."""

    holder: Holder
    functions: Collection[str]
    want: int
    wants: Mapping[str, int]
    share: int
    now: float
    seconds: float
    only: str

    def suits(self, job: Job) -> bool:
        return job.id == self.only if self.only else job.suits(self.functions)


def grant(state: State, ask: Ask) -> list[Granted]:
    """Lease tasks to a worker at once; empty if there is nothing for it now."""
    leases, holder = state.leases, ask.holder
    if holder.boot in leases.serving:
        if not ask.only:
            return []  # a suspect runs alone
        leases.serving.discard(holder.boot)  # a plain peer may get first and put later: nothing is held back
    if state.suspects:
        found = _suspect(state, ask)
        if found is not None:
            return found
    holder.reserved = 0.0
    return _ready(state, ask)


def shrink(state: State, lease: Lease, keep: int) -> None:
    """Give back all but the first `keep` tasks of a grant, at once: ready, or suspect as they were."""
    first, count = lease.first + keep, lease.count - keep
    if count <= 0:
        return
    number, start = first >> SHIFT, first & (WIDTH - 1)
    lease.count = keep
    if lease.suspect:
        state.suspect(lease.job, number, start, count)
    else:
        state.change(lease.job, number, start, count, READY)
    state.touch(lease.job)


# ---------------------------------------------------------------- suspects


def _suspect(state: State, ask: Ask) -> list[Granted] | None:
    """A suspect range; nothing, as the worker has to be empty first; or None: go on to ready tasks."""
    leases, holder = state.leases, ask.holder
    found = _next_suspect(state, ask)
    if found is None:
        return None
    job, number, first, count = found
    limit = max(1, leases.present // 4)
    if holder.left:
        if ask.only:
            return None
        chosen = sum(other.reserved > ask.now for other in leases.holders.values() if other is not holder)
        if chosen + len(leases.serving) >= limit:
            return None
        holder.reserved = ask.now + state.lease
        return []
    if len(leases.serving) >= limit:
        return None
    holder.reserved = 0.0
    lease = _lease(state, ask, job, number, first, 1 if ask.only else count, True)
    state.touch(job)
    return [lease]


def _next_suspect(state: State, ask: Ask) -> tuple[Job, int, int, int] | None:
    """The first suspect range (job, segment, first, count) of the best job, or None if others rank higher."""
    suited = [job for job in state.suspects.values() if ask.suits(job)]
    suited.sort(key=lambda job: (-job.options.priority, job.spent + job.charge))
    if not suited:
        return None
    ready = None if ask.only else state.turns.priority(ask.functions)
    for job in suited:
        if ready is not None and ready > job.options.priority:
            return None
        for number in job.lowest(SUSPECT):
            segment, base = job.segments[number], number << SHIFT
            first, count = segment.piece()
            while count:
                if job.pending.hit(base + first, base + first + count) is None:
                    return job, number, first, count
                first, count = segment.piece(first + count)
    return None


# ---------------------------------------------------------------- ready tasks


def _ready(state: State, ask: Ask) -> list[Granted]:
    found: list[Granted] = []
    if ask.only:
        job = state.jobs.get(ask.only)
        if job is not None and job.counts[READY] and not job.stopping:
            _take(state, ask, job, ask.want, found)
        return found
    need = 1.0  # of what the worker wants, which differs by function
    skipped = []
    for job in state.turns.order(ask.functions):
        want = max(1, ask.wants.get(job.function, ask.want))
        took = _take(state, ask, job, max(1, round(want * need)), found)
        if not took:
            state.turns.skip(job)
            skipped.append(job)
            continue
        need -= took / want
        if need <= 0 or len(found) >= RANGES or job.counts[READY]:
            break
    for job in skipped:
        state.turns.update(job)
    return found


def _take(state: State, ask: Ask, job: Job, size: int, found: list[Granted]) -> int:
    """Lease ready ranges of one job, in order, `size` tasks at most; returns how many.

    The last tasks of a job go out in ever smaller ranges, so that all workers end together, down to what
    takes no time that matters.
    """
    size = min(size, max(-(-job.counts[READY] // (2 * max(1, ask.share))), size // LEAST))
    took = 0
    for number in job.lowest(READY):
        state_map, base = job.segments[number].state, number << SHIFT
        first = state_map.find(READY)
        while first >= 0:
            end = state_map.run(first)[1]
            for start, stop in list(job.pending.free(base + first, base + end)):
                count = min(stop - start, size - took)
                found.append(_lease(state, ask, job, number, start - base, count, False))
                took += count
                if took == size or len(found) >= RANGES:
                    state.turns.serve(job)
                    state.touch(job)
                    return took
            first = state_map.find(READY, end)
    if took:
        state.turns.serve(job)
        state.touch(job)
    return took


def _lease(state: State, ask: Ask, job: Job, number: int, first: int, count: int, suspect: bool) -> Granted:
    leases, holder = state.leases, ask.holder
    index = (number << SHIFT) + first
    lease = Lease(leases.new_id(), job, index, count, holder, suspect, ask.seconds)
    state.hand(lease, number, first, count)
    leases.arm(lease, ask.now)
    return Granted(
        lease=lease.id,
        job=job.id,
        function=job.function,
        first=index,
        count=count,
        timeout=job.options.timeout,
        suspect=suspect,
        worker=holder.worker,
        boot=holder.boot,
    )
