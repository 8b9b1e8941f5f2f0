"""The state as bytes and back, so that a start replays only what came after."""

from math import ceil

import msgspec

from taskyard.messages import Opening, Struct
from taskyard.ranges import RangeMap, Runs
from taskyard_master.alarms import TICKS
from taskyard_master.jobs import Job
from taskyard_master.leases import Lease
from taskyard_master.segments import KIND, NONE, WIDTH, Segment
from taskyard_master.state import State

Map = tuple[bytes, bytes] | None


class SegmentShot(Struct):
    state: tuple[bytes, bytes]
    owner: Map
    attempts: Map
    rounds: Map
    losses: Map
    due: dict[int, float]  # state byte -> Unix seconds


class JobShot(Struct):
    opening: Opening
    state: str
    reason: str
    error: str
    ended: float
    next: int
    retries: int
    finished: int
    seconds: float
    digests: list[tuple[int, int, bytes]]
    results: int
    taken: tuple[int, int, int]
    segments: list[SegmentShot]


class LeaseShot(Struct):
    id: int
    job: str
    first: int
    count: int
    left: int
    boot: str
    worker: str
    suspect: bool
    begun: bool


class Shot(Struct):
    jobs: list[JobShot]
    leases: list[LeaseShot]
    tombstones: dict[str, float]


_decoder = msgspec.msgpack.Decoder(Shot)


def dump(state: State) -> bytes:
    """Everything durable: jobs, the deleted ones that are still known, and leases."""
    shot = Shot(
        [_job(job, state.offset) for job in state.jobs.values()],
        [_lease(lease) for lease in state.leases.table.values()],
        state.tombstones,
    )
    return msgspec.msgpack.encode(shot)


def load(state: State, data: bytes, now: float) -> None:
    """Fill an empty state; leases last their time from `now` on."""
    shot = _decoder.decode(data)
    state.tombstones = dict(shot.tombstones)
    for job_shot in shot.jobs:
        _restore_job(state, job_shot, now)
    for held in shot.leases:
        job = state.jobs[held.job]
        holder = state.leases.holder(held.boot, held.worker)
        lease = Lease(held.id, job, held.first, held.count, holder, held.suspect, state.lease)
        lease.begun = held.begun
        state.leases.add(lease, held.left)
        state.leases.arm(lease, now)
    for job in state.jobs.values():
        state.touch(job)


def _job(job: Job, offset: float) -> JobShot:
    opening = Opening(job.id, job.name, job.function, job.options, job.submitter, job.created)
    return JobShot(
        opening=opening,
        state=job.state,
        reason=job.reason,
        error=job.error,
        ended=job.ended,
        next=job.next,
        retries=job.retries,
        finished=job.finished,
        seconds=job.seconds,
        digests=[part for part in job.digests if part[0] < job.next],
        results=job.results,
        taken=job.taken,
        segments=[_segment(segment, offset) for segment in job.segments],
    )


def _segment(segment: Segment, offset: float) -> SegmentShot:
    due = {
        code: tick / TICKS + offset for tick, code in segment.codes.items() if code in segment.state.counts
    }
    return SegmentShot(
        state=segment.state.dump(),
        owner=_map(segment.owner),
        attempts=_map(segment.attempts),
        rounds=_map(segment.rounds),
        losses=_map(segment.losses),
        due=due,
    )


def _map(found: RangeMap | Runs | None) -> Map:
    return found.dump() if found is not None else None


def _lease(lease: Lease) -> LeaseShot:
    holder = lease.holder
    return LeaseShot(
        id=lease.id,
        job=lease.job.id,
        first=lease.first,
        count=lease.count,
        left=lease.left,
        boot=holder.boot,
        worker=holder.worker,
        suspect=lease.suspect,
        begun=lease.begun,
    )


def _restore_job(state: State, shot: JobShot, now: float) -> None:
    job = Job(shot.opening, now)
    job.state = shot.state  # type: ignore[assignment]
    job.reason, job.error, job.ended = shot.reason, shot.error, shot.ended
    job.next = job.tail = shot.next
    job.retries, job.finished, job.seconds = shot.retries, shot.finished, shot.seconds
    job.digests.extend(shot.digests)
    job.results = shot.results
    job.taken = job.taking = shot.taken
    state.jobs[job.id] = job
    for number, part in enumerate(shot.segments):
        segment = job.segment(number)
        segment.state.restore(*part.state)
        if part.owner is not None:
            segment.owner = Runs(WIDTH, wide=True)
            segment.owner.load(*part.owner)
        segment.attempts = _restore_map(part.attempts)
        segment.rounds = _restore_map(part.rounds)
        segment.losses = _restore_map(part.losses)
        for code, due in part.due.items():
            tick = ceil((due - state.offset) * TICKS - 0.01)
            while tick in segment.codes:  # the clocks have moved, and two times fell together
                tick += 1
            segment.codes[tick] = code
            state.alarms.set(job, number, tick)
        for value, many in segment.state.counts.items():
            if value != NONE:
                job.counts[KIND[value]] += many


def _restore_map(shot: Map) -> RangeMap | None:
    if shot is None:
        return None
    found = RangeMap(WIDTH)
    found.restore(*shot)
    return found
