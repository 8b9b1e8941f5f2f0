"""Judging what submitters send: jobs, chunks of tasks, the end of them (rules 4 to 6)."""

from math import inf

from taskyard import batch
from taskyard.errors import BacklogFullError, ConflictError, GapError, UsageError
from taskyard.messages import Chunk, Chunked, Close, Closing, Ending, Open, Opening
from taskyard_master.jobs import MOST, Job
from taskyard_master.plans import Plan, portions
from taskyard_master.spans import Pending


def create(request: Open, wall: float) -> Plan:
    """A new job; UsageError if its options cannot be."""
    options = request.options
    for name, value in (("max_attempts", options.max_attempts), ("max_losses", options.max_losses)):
        if not 1 <= value <= MOST:
            raise UsageError(f"{name} of job {request.job!r} is {value}: give 1 to {MOST}")
    for name, seconds in (("timeout", options.timeout), ("retention", options.retention)):
        if not 0 <= seconds < inf:
            raise UsageError(f"{name} of job {request.job!r} is {seconds}: give seconds, 0 or more")
    return Plan([(_opening(request, wall), b"")])


def reopen(job: Job, request: Open, wall: float) -> Plan:
    """Coming back to a job: nothing to commit unless it was closed as incomplete."""
    if (job.submitter, job.function) != (request.submitter, request.function):
        raise ConflictError(f"job {job.id!r} belongs to another submission: choose another id")
    if job.state == "cancelled":
        raise UsageError(f"job {job.id!r} was cancelled: submit a new one")
    if job.chunks:
        raise Pending(job.chunks[-1][1])
    return Plan([(_opening(request, wall), b"")]) if job.state == "incomplete" else Plan()


def _opening(request: Open, wall: float) -> Opening:
    return Opening(request.job, request.name, request.function, request.options, request.submitter, wall)


def chunk(job: Job, request: Chunk, limit: int) -> Plan:
    """Tasks of a job: see `Ledger.chunk`."""
    if job.state == "cancelled":
        raise UsageError(f"job {job.id!r} was cancelled: it takes no more tasks")
    if request.first > job.tail:
        message = f"job {job.id!r} has {job.tail} tasks: a chunk cannot start at {request.first}"
        raise GapError(message, job.tail)
    if request.count < 1 or request.first < 0:
        raise UsageError(f"a chunk of {request.count} tasks from {request.first} on cannot be")
    if request.first < job.tail:
        return _repeat(job, request)
    accepting(job)
    backlog = job.unfinished + job.tail - job.next
    if limit and backlog and backlog + request.count > limit:
        raise BacklogFullError(f"job {job.id!r} has {backlog} unfinished tasks of at most {limit}: wait")
    plan = Plan(accepted=request.count)
    for first, count, block in portions(request.first, request.count, request.block):
        digest = request.digest if count == request.count else batch.digest(block)
        plan.records.append((Chunked(job.id, first, count, digest), block))
    return plan


def _repeat(job: Job, request: Chunk) -> Plan:
    """What was accepted before adds nothing, if it is the same; if that was long ago, it is taken to be."""
    end = request.first + request.count
    for stop, ticket in job.chunks if end > job.next else ():
        if stop >= end or stop == job.tail:
            raise Pending(ticket)
    if end > job.tail or not _same(job, request):
        raise ConflictError(
            f"job {job.id!r}: other tasks were accepted from {request.first} on; has it two submitters?"
        )
    return Plan(duplicates=request.count)


def _same(job: Job, request: Chunk) -> bool:
    """Whether a repeated chunk agrees with the digests that are remembered of its range."""
    parts: dict[tuple[int, int], bytes] = {}
    for first, count, digest in job.digests:
        if not digest or first >= request.first + request.count or first + count <= request.first:
            continue
        if (first, count) == (request.first, request.count):
            return digest == request.digest
        if not parts:
            cut = portions(request.first, request.count, request.block)
            parts = {(start, many): batch.digest(block) for start, many, block in cut}
        if parts.get((first, count)) != digest:
            return False
    return True


def accepting(job: Job) -> None:
    """Raise UsageError if a job takes no more tasks."""
    if job.state != "open":
        raise UsageError(f"job {job.id!r} is {job.state}: open it again or submit a new one")


def free(job: Job, block: bytes, worker: str, host: str, seconds: float, wall: float) -> Plan:
    """A result that no lease asked for: a task of its own that is completed at once."""
    accepting(job)
    task = batch.pack([b""])
    chunked = Chunked(job.id, job.tail, 1, batch.digest(task))
    ending = Ending(job.id, job.tail, 1, "completed", 0, 1, worker, host, wall - seconds, seconds, wall)
    return Plan([(chunked, task), (ending, block)], accepted=1)


def close(job: Job, request: Close, wall: float) -> Plan:
    """No more chunks: see `Ledger.close`."""
    if request.total > job.tail:
        message = f"job {job.id!r} has {job.tail} tasks and cannot be closed at {request.total}"
        raise GapError(message, job.tail)
    if request.total < job.tail and not request.reason:
        raise ConflictError(f"job {job.id!r} has {job.tail} tasks already, not {request.total}")
    if job.state == "open" or (job.state == "incomplete" and not request.reason):
        return Plan([(Closing(job.id, job.tail, request.reason, wall), b"")])
    return Plan()
