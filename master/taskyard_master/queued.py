"""Records that were planned and are on their way to disk: what they keep pending."""

from itertools import count

from taskyard.errors import UnknownJobError
from taskyard.messages import (
    Beginning,
    Cancelling,
    Chunked,
    Deleting,
    Ending,
    Granting,
    Losing,
    Record,
    Retrying,
    Returning,
    Taking,
)
from taskyard_master.jobs import Job
from taskyard_master.spans import Pending
from taskyard_master.state import State

RANGES = (Granting, Beginning, Ending, Retrying, Returning, Losing)


class Queued:
    """The held records by ticket.

    Records of ranges keep those pending; records of a whole job are its barrier.
    Chunks and takes only move the job's tail: what follows is judged as if they were
    committed, because it fails with them.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._tickets = count(1)
        self._held: dict[int, Record] = {}
        self._opening: dict[str, int] = {}  # jobs that are about to be

    def unknown(self, name: str) -> bool:
        """Whether there is no job of that id, not even a queued one."""
        return name not in self._state.jobs and name not in self._opening

    def job(self, name: str) -> Job:
        """A job by its id; raises Pending if it is queued as a whole, UnknownJobError if there is none."""
        if name in self._opening:
            raise Pending(self._opening[name])
        job = self._state.jobs.get(name)
        if job is None:
            raise UnknownJobError(f"there is no job {name!r}: see 'taskyard status'")
        if job.barrier:
            raise Pending(job.barrier)
        return job

    def hold(self, record: Record) -> int:
        """Queue a record; returns its ticket, a number that grows."""
        ticket = next(self._tickets)
        self._held[ticket] = record
        job = self._state.jobs.get(record.job)
        if job is None:
            self._opening[record.job] = ticket
        elif isinstance(record, Chunked):
            job.tail = record.first + record.count
            job.chunks.append((job.tail, ticket))
            job.digests.append((record.first, record.count, record.digest))
        elif isinstance(record, Taking):
            job.taking = (record.at, record.offset, job.taking[2] + record.count)
        elif isinstance(record, RANGES):
            job.pending.add(record.first, record.first + _length(record), ticket)
        else:
            job.barrier = ticket
            job.stopping = isinstance(record, Cancelling | Deleting)
            self._state.touch(job)
        return ticket

    def release(self, ticket: int, *, done: bool) -> Record:
        """A record is queued no more, because it was committed or because it failed."""
        record = self._held.pop(ticket)
        if self._opening.get(record.job) == ticket:
            del self._opening[record.job]
        job = self._state.jobs.get(record.job)
        if job is None:
            return record
        if isinstance(record, Chunked):
            _release_chunk(job, record, done)
        elif isinstance(record, Taking):
            if not done:
                job.taking = job.taken
        elif isinstance(record, RANGES):
            job.pending.remove(record.first)
        elif job.barrier == ticket:
            job.barrier, job.stopping = 0, False
            self._state.touch(job)
        return record


def _length(record: Record) -> int:
    return 1 if isinstance(record, Beginning) else getattr(record, "count", 0)


def _release_chunk(job: Job, record: Chunked, done: bool) -> None:
    if done:
        job.chunks.popleft()
        return
    job.tail = min(job.tail, record.first)  # those behind it were not committed either
    while job.chunks and job.chunks[-1][0] > record.first:
        job.chunks.pop()
    while job.digests and job.digests[-1][0] >= record.first:
        job.digests.pop()
