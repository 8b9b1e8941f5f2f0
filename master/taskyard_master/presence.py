"""Workers that come, stay away or go: hello, expiry and loss (rules 7, 8, 11 and 12)."""

from collections.abc import Iterable, Iterator

from taskyard import batch
from taskyard.errors import ConflictError
from taskyard.messages import Beginning, Ending, Failure, Granting, Held, Losing, Record, Returning, encode
from taskyard_master.jobs import Job
from taskyard_master.leases import Holder, Lease
from taskyard_master.plans import Plan, split
from taskyard_master.segments import READY, SHIFT, WIDTH
from taskyard_master.spans import Pending, Spans
from taskyard_master.state import State

MOST = 10_000  # losses that one look plans at most: they come in pieces if a lease is in shreds


def held_ranges(lease: Lease) -> Iterator[tuple[int, int]]:
    """The (first, count) that a lease still holds, in order."""
    for number, start, length in split(lease.first, lease.count):
        owner = lease.job.segments[number].owner
        if owner is not None:
            for first, count, by in owner.runs(start, length):
                if by == lease.id:
                    yield (number << SHIFT) + first, count


# ---------------------------------------------------------------- hello


def hello(state: State, holder: Holder, held: Iterable[Held], now: float) -> Plan:
    """What a worker names stays its own or is adopted; what it leaves out comes back free."""
    plan = Plan()
    named: dict[int, Spans] = {}
    adopted: list[tuple[Lease | None, Held]] = []
    for part in held:
        lease = state.leases.table.get(part.lease)
        if lease is not None and lease.boot == holder.boot and lease.job.id == part.job:
            spans = named.setdefault(lease.id, Spans())
            for first, end in list(spans.free(part.first, part.first + part.count)):
                spans.add(first, end)
        else:
            adopted.append((lease, part))
    for lease in list(holder.leases.values()):
        _release(lease, named.get(lease.id), plan)
    claimed: dict[str, Spans] = {}
    kept: set[int] = set()
    for lease, part in adopted:
        records = [] if lease is not None else _adopt(state, holder, part, claimed)
        plan.records += [(record, b"") for record in records]
        if records:
            kept.add(part.lease)
    # A worker drops a lease as a whole: one of which a part is still its own goes on, the rest comes late.
    plan.drop += dict.fromkeys(part.lease for _, part in adopted if part.lease not in kept)
    for number in named:
        state.leases.arm(state.leases.table[number], now)
    return plan


def _release(lease: Lease, named: Spans | None, plan: Plan) -> None:
    """Give back what a hello leaves out of a lease."""
    job = lease.job
    for first, count in held_ranges(lease):
        unqueued(job, first, first + count)
        for start, stop in (named or Spans()).free(first, first + count):
            plan.records.append((Returning(job.id, start, stop - start, lease.id, lease.suspect), b""))
            plan.accepted += stop - start


def _adopt(state: State, holder: Holder, part: Held, claimed: dict[str, Spans]) -> list[Granting]:
    """Grant what is ready of a range that was leased by a master before this one and has no record."""
    job = state.jobs.get(part.job)
    number, start = part.first >> SHIFT, part.first & (WIDTH - 1)
    end = part.first + part.count
    if job is None or not state.leases.foreign(part.lease) or part.first < 0 or part.count < 1:
        return []
    if end > job.next or start + part.count > WIDTH:
        return []
    unqueued(job, part.first, end)
    spans = claimed.setdefault(job.id, Spans())
    found = []
    for first, count, was in job.segments[number].state.runs(start, part.count):
        if was == READY:
            base = (number << SHIFT) + first
            for begin, stop in list(spans.free(base, base + count)):
                spans.add(begin, stop)
                found.append(
                    Granting(job.id, begin, stop - begin, part.lease, holder.worker, holder.boot, False)
                )
    return found


def unqueued(job: Job, first: int, end: int) -> None:
    """Raise Pending if a range of a job, or the job, is queued for something."""
    if job.barrier:
        raise Pending(job.barrier)
    ticket = job.pending.hit(first, end)
    if ticket is not None:
        raise Pending(ticket)


# ---------------------------------------------------------------- losses


def begin(lease: Lease | None, boot: str, number: int) -> Plan:
    """A suspect that stands alone is about to run: from now on its loss is charged."""
    if lease is None or lease.boot != boot or lease.left != 1 or not lease.suspect:
        raise ConflictError(f"lease {number} is not held by this worker: drop it")
    ((first, _),) = held_ranges(lease)
    unqueued(lease.job, first, first + 1)
    return Plan([] if lease.begun else [(Beginning(lease.job.id, first, number), b"")])


def lose(leases: Iterable[Lease], wall: float) -> Plan:
    """The records for leases that ran out, MOST at a time.

    What is queued for something else, or too much, is left to the next look.
    """
    plan = Plan()
    for lease in leases:
        job = lease.job
        if job.barrier:
            continue
        for first, count in held_ranges(lease):
            for start, stop in job.pending.free(first, first + count):
                plan.records.append(_loss(lease, start, stop - start, wall))
                plan.accepted += stop - start
                if len(plan.records) == MOST:
                    return plan
    return plan


def _loss(lease: Lease, first: int, count: int, wall: float) -> tuple[Record, bytes]:
    job, charged = lease.job, lease.begun and count == 1
    segment, at = job.segments[first >> SHIFT], first & (WIDTH - 1)
    losses = segment.losses.run(at)[0] if segment.losses is not None else 0
    if not charged or losses + 1 < job.options.max_losses:
        return Losing(job.id, first, count, lease.id, charged), b""
    failure = Failure(
        reason="lost",
        type="",
        message=f"its worker was lost {losses + 1} times while it ran alone, last {lease.holder.worker}",
    )
    record = Ending(
        job=job.id,
        first=first,
        count=1,
        state="dead",
        round=segment.rounds.run(at)[0] if segment.rounds is not None else 0,
        attempts=segment.attempts.run(at)[0] if segment.attempts is not None else 0,
        worker=lease.holder.worker,
        host="",
        started=0.0,
        seconds=0.0,
        at=wall,
    )
    return record, batch.pack([encode(failure)])
