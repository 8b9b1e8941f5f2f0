"""The committed state of all jobs, and how each record of the journal changes it.

Live and replayed records pass through the same code. A record says what was
decided, so nothing is drawn or chosen here. It changes only what is unfinished
in its range: a record that repeats what was done already does nothing.
"""

from collections.abc import Callable
from math import ceil
from typing import Any

from taskyard.messages import (
    Beginning,
    Cancelling,
    Chunked,
    Closing,
    Deleting,
    Ending,
    Granting,
    Losing,
    Opening,
    Record,
    Requeuing,
    Retrying,
    Returning,
    Taking,
)
from taskyard.ranges import Runs
from taskyard_master.alarms import TICKS, Alarms
from taskyard_master.jobs import Job
from taskyard_master.leases import Lease, Leases
from taskyard_master.plans import split
from taskyard_master.segments import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    DEAD,
    DELAYED,
    KIND,
    LEASED,
    READY,
    SHIFT,
    SUSPECT,
    TAIL,
    WIDTH,
    Segment,
)
from taskyard_master.turns import Turns

LONGEST = 600.0  # seconds that a delay can last at most, whatever the clocks say
REMEMBERED = 7 * 86400.0  # seconds that the id of a deleted job stays known


class State:
    """Jobs, leases and turns. `offset` is Unix time minus monotonic time."""

    def __init__(self, boot: int, lease: float, offset: float) -> None:
        self.jobs: dict[str, Job] = {}
        self.tombstones: dict[str, float] = {}  # deleted job -> Unix seconds until its id is forgotten
        self.leases = Leases(boot)
        self.turns = Turns()
        self.suspects: dict[str, Job] = {}  # jobs that have any
        self.lease = lease
        self.offset = offset
        self.alarms = Alarms(self.jobs)
        self._appliers: dict[type, Callable[[Any, float], None]] = {
            Opening: self._opening,
            Chunked: self._chunked,
            Closing: self._closing,
            Granting: self._granting,
            Beginning: self._beginning,
            Ending: self._ending,
            Retrying: self._retrying,
            Returning: self._returning,
            Losing: self._losing,
            Cancelling: self._cancelling,
            Requeuing: self._requeuing,
            Taking: self._taking,
            Deleting: self._deleting,
        }

    def apply(self, record: Record, now: float) -> None:
        """Change the state as a committed record says; of a job that is gone, nothing is left to change."""
        if isinstance(record, Opening) or record.job in self.jobs:
            self._appliers[type(record)](record, now)

    # ------------------------------------------------------------ the moves everything is made of

    def change(self, job: Job, number: int, first: int, count: int, state: int) -> None:
        """Set a range of a segment, keeping counts, leases and the starts of suspect ranges right."""
        segment, counts, leased = job.segments[number], job.counts, False
        for was, many in segment.state.set(first, count, state):
            counts[KIND[was]] -= many
            leased = leased or was == LEASED
        counts[KIND[state]] += count
        segment.head(first + count)
        if state in job.hints and number < job.hints[state]:
            job.hints[state] = number
        if leased and segment.owner is not None:
            self.leases.take(segment.owner, first, count)
            if not counts[LEASED]:
                job.charge = 0.0  # sums of floats do not come back to zero by themselves

    def suspect(self, job: Job, number: int, first: int, count: int) -> None:
        """A range of a segment is one suspect range."""
        if count > 1:
            self.change(job, number, first + 1, count - 1, TAIL)
        self.change(job, number, first, 1, SUSPECT)
        if count > 1:  # the change before saw its own tail as what is left of another range
            job.segments[number].state.set(first + 1, 1, TAIL)

    def hand(self, lease: Lease, number: int, first: int, count: int) -> None:
        """A lease takes a range of a segment that is not finished."""
        self.change(lease.job, number, first, count, LEASED)
        segment = lease.job.segments[number]
        if segment.owner is None:
            segment.owner = Runs(WIDTH, wide=True)
        segment.owner.set(first, count, lease.id)
        self.leases.add(lease, count)

    def touch(self, job: Job, segment: Segment | None = None) -> None:
        """After changes to a job: its turn, and whether it has suspects."""
        self.turns.update(job)
        if job.counts[SUSPECT] and not job.stopping:
            self.suspects[job.id] = job
        else:
            self.suspects.pop(job.id, None)
        if segment is not None:
            segment.rest(job.state != "open")

    def wake(self, now: float) -> None:
        """Delays that are over: their tasks are ready."""
        for job, number, many in self.alarms.ring(now):
            job.counts[DELAYED] -= many
            job.counts[READY] += many
            job.hints[READY] = min(job.hints[READY], number)
            self.touch(job)

    def _end(self, job: Job, at: float) -> None:
        if job.over and not job.ended:
            job.ended = at

    # ------------------------------------------------------------ one method a record

    def _opening(self, record: Opening, now: float) -> None:
        job = self.jobs.get(record.job)
        if job is None:
            self.jobs[record.job] = Job(record, now)
            self.tombstones.pop(record.job, None)
        else:  # it was incomplete, and its submitter is back
            job.state, job.reason, job.ended, job.renewed = "open", "", 0.0, now

    def _chunked(self, record: Chunked, now: float) -> None:
        job = self.jobs[record.job]
        count = record.first + record.count - job.next
        for number, first, many in split(job.next, count):
            job.segment(number)
            self.change(job, number, first, many, READY)
        job.next += max(0, count)
        if not job.digests or job.digests[-1][0] < record.first:  # else it was noted when it was queued
            job.digests.append((record.first, record.count, record.digest))
        job.tail = max(job.tail, job.next)
        job.renewed = now
        self.touch(job)

    def _closing(self, record: Closing, now: float) -> None:
        job = self.jobs[record.job]
        job.state, job.reason = "incomplete" if record.reason else "closed", record.reason
        self._end(job, record.at)
        if job.segments:
            job.segments[-1].rest(True)

    def _granting(self, record: Granting, now: float) -> None:
        job = self.jobs[record.job]
        lease = self.leases.table.get(record.lease)
        if lease is None:
            holder = self.leases.holder(record.boot, record.worker)
            lease = Lease(record.lease, job, record.first, record.count, holder, record.suspect, self.lease)
        elif lease.job is not job or lease.boot != record.boot:
            return  # two holders named one lease of an earlier master: the first has it
        end = max(lease.first + lease.count, record.first + record.count)
        lease.first = min(lease.first, record.first)
        lease.count = end - lease.first
        number, start = record.first >> SHIFT, record.first & (WIDTH - 1)
        for first, count in job.segments[number].unfinished(start, record.count):
            for part, many, state in list(job.segments[number].state.runs(first, count)):
                if state != LEASED:
                    self.hand(lease, number, part, many)
        if lease.left:
            self.leases.arm(lease, now)
        self.touch(job)

    def _beginning(self, record: Beginning, now: float) -> None:
        lease = self.leases.table.get(record.lease)
        if lease is not None:
            lease.begun = True

    def _ending(self, record: Ending, now: float) -> None:
        job = self.jobs[record.job]
        state = COMPLETED if record.state == "completed" else DEAD
        for number, start, many in split(record.first, record.count):
            for first, count in job.segments[number].unfinished(start, many):
                self.change(job, number, first, count, state)
                job.results += count if state == COMPLETED and not record.void else 0
        self._spend(job, record.count, record.seconds)
        self._end(job, record.at)
        self.touch(job, job.segments[record.first >> SHIFT])

    def _spend(self, job: Job, count: int, seconds: float) -> None:
        job.finished += count
        job.seconds += seconds
        job.spent += seconds

    def _retrying(self, record: Retrying, now: float) -> None:
        job = self.jobs[record.job]
        tick = ceil(min(max(record.due - self.offset, now), now + LONGEST) * TICKS)
        for number, start, many in split(record.first, record.count):
            segment = job.segments[number]
            for first, count in segment.unfinished(start, many):
                self.change(job, number, first, count, segment.delay(tick))
                segment.attempts = segment.counter(segment.attempts)
                segment.attempts.set(first, count, record.attempts)
            self.alarms.set(job, number, tick)
        job.retries += record.count
        self._spend(job, record.count, record.seconds)
        self.touch(job)

    def _returning(self, record: Returning, now: float) -> None:
        job = self.jobs[record.job]
        for number, start, many in split(record.first, record.count):
            for first, count in job.segments[number].unfinished(start, many):
                if record.suspect:
                    self.suspect(job, number, first, count)
                else:
                    self.change(job, number, first, count, READY)
        self.touch(job)

    def _losing(self, record: Losing, now: float) -> None:
        job = self.jobs[record.job]
        for number, start, many in split(record.first, record.count):
            segment = job.segments[number]
            for first, count in segment.unfinished(start, many):
                half = (count + 1) // 2
                self.suspect(job, number, first, half)
                if count > 1:
                    self.suspect(job, number, first + half, count - half)
                elif record.charged:
                    segment.losses = segment.counter(segment.losses)
                    segment.losses.set(first, 1, segment.losses.run(first)[0] + 1)
        self.touch(job)

    def _cancelling(self, record: Cancelling, now: float) -> None:
        job = self.jobs[record.job]
        job.state, job.reason = "cancelled", ""
        self.leases.void(job)
        for segment in job.segments:
            segment.owner = None
            for was, many in segment.state.translate(CANCEL):
                job.counts[KIND[was]] -= many
                job.counts[CANCELLED] += many
            segment.rest(True)
        self._end(job, record.at)
        self.touch(job)

    def _requeuing(self, record: Requeuing, now: float) -> None:
        job = self.jobs[record.job]
        for begin, length in record.ranges:
            for number, first, count in split(begin, length):
                many = job.segments[number].revive(first, count)
                job.counts[DEAD] -= many
                job.counts[READY] += many
                if many:
                    job.ended = 0.0
                    job.hints[READY] = min(job.hints[READY], number)
        self.touch(job)

    def _taking(self, record: Taking, now: float) -> None:
        job = self.jobs[record.job]
        job.taken = (record.at, record.offset, job.taken[2] + record.count)
        job.taking = max(job.taking, job.taken)

    def _deleting(self, record: Deleting, now: float) -> None:
        job = self.jobs.pop(record.job)
        job.stopping = True
        self.leases.void(job)
        self.touch(job)
        self.tombstones[record.job] = record.at + REMEMBERED
