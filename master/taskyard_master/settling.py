"""Judging outcomes: what counts, what is a duplicate, and what follows from it (rules 9, 11 to 13)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from taskyard import backoff, batch
from taskyard.errors import ProtocolError
from taskyard.messages import Ending, Outcome, Retrying, Returning, decode_failure
from taskyard_master.jobs import Job
from taskyard_master.leases import Lease
from taskyard_master.plans import Plan, portions, split
from taskyard_master.segments import FINISHED, LEASED, NONE, SHIFT
from taskyard_master.spans import Pending, Spans
from taskyard_master.state import State

ATTEMPT = ("failed", "timeout", "killed")  # kinds that charge one

# first, count, attempts so far, round
Run = tuple[int, int, int, int]


@dataclass(slots=True)
class Sender:
    """Who reports, and when: Unix seconds and a random number in [0, 1) for the jitter."""

    boot: str
    worker: str
    host: str
    wall: float
    draw: float


def settle(state: State, outcomes: list[Outcome], sender: Sender) -> Plan:
    """The records that outcomes lead to; raises Pending where a range or job is queued for something.

    Blocks were checked against their counts before (`batch.check`).
    """
    plan = Plan()
    claimed: dict[str, Spans] = {}
    for outcome in outcomes:
        job = state.jobs.get(outcome.job)
        if job is None:
            plan.duplicates += outcome.count
            continue
        if job.barrier:
            raise Pending(job.barrier)
        first, end = max(0, outcome.first), min(outcome.first + outcome.count, job.next)
        ticket = job.pending.hit(first, end)
        if ticket is not None:
            raise Pending(ticket)
        accepted = 0
        if len(outcomes) == 1:
            accepted = _judge(state, job, outcome, first, end, sender, plan)
        else:  # what two outcomes of one message claim goes to the first
            spans = claimed.setdefault(job.id, Spans())
            for start, stop in list(spans.free(first, end)):
                spans.add(start, stop)
                accepted += _judge(state, job, outcome, start, stop, sender, plan)
        plan.accepted += accepted
        plan.duplicates += outcome.count - accepted
    return plan


def _judge(state: State, job: Job, outcome: Outcome, first: int, end: int, sender: Sender, plan: Plan) -> int:
    """Add the records for first..end of an outcome; returns how many tasks it counts for."""
    if outcome.kind == "completed":
        lease = None
    else:
        lease = state.leases.table.get(outcome.lease)
        if lease is None or lease.job is not job or lease.boot != sender.boot:
            return 0
    accepted = 0
    for run in _runs(job, first, end, lease):
        accepted += run[1]
        if outcome.kind == "completed":
            plan.records += _endings(outcome, run, sender, "completed")
        elif outcome.kind in ATTEMPT and run[2] + 1 < job.options.max_attempts:
            plan.records += _retryings(outcome, run, sender)
        elif outcome.kind in ATTEMPT or outcome.kind == "refused":
            plan.records += _endings(outcome, run, sender, "dead")
        elif lease is not None:
            plan.records += [(record, b"") for record in _returning(outcome, run, lease)]
    if accepted and outcome.block and outcome.kind != "completed":
        job.error = _line(outcome)
    return accepted


def _runs(job: Job, first: int, end: int, lease: Lease | None) -> Iterator[Run]:
    """The parts of first..end that an outcome counts for, split where attempts or rounds differ.

    Without a lease: all that is unfinished. With one: what that lease holds.
    """
    start = stop = attempts = round_ = 0
    for number, offset, count in split(first, end - first):
        base = number << SHIFT
        for at, many, was, owner, tried, rounds in job.segments[number].pieces(offset, count):
            if was in FINISHED or was == NONE:
                continue
            if lease is not None and (was != LEASED or owner != lease.id):
                continue
            at += base
            if stop == at and start < at and tried == attempts and rounds == round_ and at != base:
                stop += many
                continue
            if start < stop:
                yield start, stop - start, attempts, round_
            start, stop, attempts, round_ = at, at + many, tried, rounds
    if start < stop:
        yield start, stop - start, attempts, round_


def _rows(outcome: Outcome, run: Run) -> Iterator[tuple[int, int, bytes]]:
    """(first, count, block) of the rows that a part of an outcome fills."""
    first, count, _, _ = run
    start = first - outcome.first
    return portions(first, count, batch.cut(outcome.block, outcome.count, start, start + count))


def _endings(
    outcome: Outcome, run: Run, sender: Sender, state: Literal["completed", "dead"]
) -> Iterator[tuple[Ending, bytes]]:
    _, _, attempts, round_ = run
    for first, count, block in _rows(outcome, run):
        record = Ending(
            job=outcome.job,
            first=first,
            count=count,
            state=state,
            round=round_,
            attempts=attempts + 1,
            worker=sender.worker,
            host=sender.host,
            started=outcome.started,
            seconds=outcome.seconds * count / outcome.count,
            at=sender.wall,
            void=outcome.void,
        )
        yield record, block


def _retryings(outcome: Outcome, run: Run, sender: Sender) -> Iterator[tuple[Retrying, bytes]]:
    attempts = run[2] + 1
    due = sender.wall + backoff.delay(attempts, sender.draw)
    for first, count, block in _rows(outcome, run):
        seconds = outcome.seconds * count / outcome.count
        yield Retrying(outcome.job, first, count, attempts, due, sender.worker, seconds), block


def _returning(outcome: Outcome, run: Run, lease: Lease) -> Iterator[Returning]:
    """Given back: as it came, or each alone if its slot was killed from outside."""
    first, count, _, _ = run
    if outcome.kind == "released":
        yield Returning(outcome.job, first, count, lease.id, lease.suspect)
        return
    for index in range(first, first + count):
        yield Returning(outcome.job, index, 1, lease.id, True)


def _line(outcome: Outcome) -> str:
    """The first failure of an outcome in one line."""
    try:
        failure = decode_failure(batch.unpack(batch.cut(outcome.block, outcome.count, 0, 1), 1)[0])
    except (msgspec.MsgspecError, ProtocolError):
        return ""
    return f"{failure.type or failure.reason}: {failure.message}"
