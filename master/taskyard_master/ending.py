"""Judging what ends: cancel, requeue, delete, retention, and results that are consumed (rules 15 to 17)."""

from typing import NamedTuple

from taskyard.errors import ConflictError, UsageError
from taskyard.messages import Cancelling, Deleting, Requeuing, Taking
from taskyard_master.jobs import MOST, Job
from taskyard_master.plans import Plan
from taskyard_master.segments import CANCELLED, COMPLETED
from taskyard_master.state import State


class Consuming(NamedTuple):
    """A job whose rows may go once they were taken."""

    job: str
    retention: float  # seconds
    taken: int  # seq of the row up to which plain peers took results, that one not all of it


def consuming(state: State) -> list[Consuming]:
    """The jobs of which anything may go: a retention of 0 is for ever."""
    return [
        Consuming(job.id, job.options.retention, job.taken[0])
        for job in state.jobs.values()
        if job.options.consume and job.options.retention and job.counts[COMPLETED] + job.counts[CANCELLED]
    ]


def cancel(state: State, job: Job, wall: float) -> Plan:
    """Final for all that is unfinished; nothing to do where nothing is."""
    if job.state == "cancelled" or job.over:
        return Plan()
    drop = [lease.id for lease in state.leases.table.values() if lease.job is job]
    return Plan([(Cancelling(job.id, wall), b"")], accepted=job.unfinished, drop=drop)


def requeue(job: Job, first: int, count: int) -> Plan:
    """The next round of what is dead in a range; the record names the range, not the tasks."""
    if job.state == "cancelled":
        raise UsageError(f"job {job.id!r} was cancelled, which is final: submit a new one")
    first = max(0, first)
    end = job.next if count < 0 else min(job.next, first + count)
    many = job.dead_in(first, end) if first < end else 0
    if not many:
        return Plan()
    if any(part.rounds is not None and max(part.rounds.counts) == MOST for part in job.segments):
        raise UsageError(f"tasks of job {job.id!r} were requeued {MOST} times: submit a new one")
    return Plan([(Requeuing(job.id, [(first, end - first)]), b"")], accepted=many)


def delete(job: Job, wall: float) -> Plan:
    """Forget a job that is over."""
    if not job.over:
        raise UsageError(f"job {job.id!r} is not over: cancel it first")
    return Plan([(Deleting(job.id, wall), b"")])


def expired(state: State, wall: float) -> list[str]:
    """Ids of the jobs whose retention is over; ids that were deleted long ago are forgotten."""
    for name in [name for name, until in state.tombstones.items() if until <= wall]:
        del state.tombstones[name]
    return [
        job.id
        for job in state.jobs.values()
        if job.ended and 0 < job.options.retention <= wall - job.ended and not job.barrier
    ]


def take(job: Job, at: int, offset: int, count: int) -> Plan:
    """Results up to the `offset`-th of row `at` are handed over, after those that are queued."""
    if (at, offset) <= job.taking[:2]:
        raise ConflictError(f"results of job {job.id!r} up to {job.taking[:2]} are taken already")
    return Plan([(Taking(job.id, at, offset, count), b"")], accepted=count)
