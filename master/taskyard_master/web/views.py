"""What the pages show, as plain data of bounded size, whatever the yard's size is."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from taskyard import batch
from taskyard.messages import JobStatus, StatusReply, WorkerStatus, decode_failure
from taskyard_master.service import Service
from taskyard_master.web.history import History, Run, Totals

LATEST = 8  # jobs in the overview, those with unfinished tasks first
PAGE = 50  # jobs or workers of one page
SLOTS = 8  # shown of one worker
HOSTS = 50
FAILED = 50  # failures of a job
SLOWEST = 20  # runs of a job
CHART = 180  # seconds of rates
RUNNING = 400  # tasks that run now, in the timeline

T = TypeVar("T")


def record(value: Any) -> dict[str, Any]:
    """A struct of the wire by its field names."""
    return {name: getattr(value, name) for name in value.__struct_fields__}


def overview(status: StatusReply, history: History, samples: int = CHART) -> dict[str, Any]:
    """What the stream tells each second; `samples` of the chart, as a viewer keeps those it has."""
    totals = Totals.of(status.jobs)
    rate = history.rate()
    unfinished = totals.backlog + totals.leased
    real = [job for job in status.jobs if _real(job)]
    return {
        "at": history.samples[-1].at if history.samples else 0.0,
        "master": record(status.master),
        "completed": totals.completed,
        "dead": totals.dead,
        "retries": totals.retries,
        "backlog": totals.backlog,
        "leased": totals.leased,
        "rate": rate,
        "eta": unfinished / rate if rate and unfinished else None,
        "slots": sum(worker.slots for worker in status.workers if worker.state != "missing"),
        "busy": sum(len(worker.running) for worker in status.workers),
        "workers": len(status.workers),
        "worker_states": dict(Counter(worker.state for worker in status.workers)),
        "samples": [list(sample) for sample in list(history.samples)[-samples:]],
        "jobs": [_job(job, history) for job in heapq.nsmallest(LATEST, real, key=_urgency)],
        "jobs_in_all": len(real),
    }


def jobs(status: StatusReply, history: History, search: str, state: str, offset: int) -> dict[str, Any]:
    """One page of the jobs that fit, unfinished first, newest first."""
    words = search.lower().split()
    found = [
        job
        for job in status.jobs
        if _real(job)
        and all(word in f"{job.id} {job.name} {job.function}".lower() for word in words)
        and _fits(job, state)
    ]
    shown, offset = _page(found, _urgency, offset)
    return {
        "jobs": [_job(job, history) for job in shown],
        "offset": offset, "page": PAGE, "found": len(found), "in_all": sum(map(_real, status.jobs)),
    }  # fmt: skip


def workers(status: StatusReply, search: str, host: str, offset: int) -> dict[str, Any]:
    """All hosts in sums, and one page of the workers that fit, busy first."""
    words = search.lower().split()
    found = [
        worker
        for worker in status.workers
        if (not host or worker.host == host)
        and all(word in f"{worker.id} {worker.host} {worker.state}".lower() for word in words)
    ]
    shown, offset = _page(found, lambda worker: (not worker.running, worker.id), offset)
    wanted = {running.job for worker in shown for running in worker.running[:SLOTS]}
    return {
        "workers": [_worker(worker) for worker in shown],
        "offset": offset, "page": PAGE, "found": len(found), "in_all": len(status.workers),
        "hosts": _hosts(status.workers), "names": _names(status.jobs, wanted),
    }  # fmt: skip


def job(service: Service, history: History, name: str) -> dict[str, Any]:
    """One job: its counts, its failures with reasons and tracebacks, its slowest runs."""
    (status,) = service.control.overview(name).jobs
    slowest = heapq.nlargest(
        SLOWEST,
        (run for run in history.runs if run.job == status.id),
        key=lambda run: run.seconds / run.tasks,
    )
    return {
        "job": _job(status, history),
        "failed": _failures(service, status),
        "slowest": [run._asdict() for run in slowest],
    }


def timeline(status: StatusReply, history: History, after: int) -> dict[str, Any]:
    """Runs that were noted after that many (`noted` is the next `after`), and what runs now."""
    new = min(len(history.runs), max(0, history.noted - after))
    runs: list[Run] = list(history.runs)[len(history.runs) - new :] if new else []
    now = [
        [worker.id, running.job, running.index, running.since]
        for worker in status.workers
        for running in worker.running
    ][:RUNNING]
    wanted = {run.job for run in runs} | {str(row[1]) for row in now}
    return {
        "noted": history.noted,
        "runs": [list(run) for run in runs],
        "running": now,
        "names": _names(status.jobs, wanted),
        "slots": {worker.id: worker.slots for worker in status.workers if worker.slots > 1},
    }


def _real(job: JobStatus) -> bool:
    return bool(job.total) or job.id != "plain"


def _unfinished(job: JobStatus) -> int:
    return job.ready + job.leased + job.delayed + job.suspect


def _urgency(job: JobStatus) -> tuple[bool, float]:
    return not _unfinished(job), -job.created


def _fits(job: JobStatus, state: str) -> bool:
    if state == "unfinished":
        return bool(_unfinished(job)) or job.state == "open"
    return not state or (state == "failed" and bool(job.dead)) or job.state == state


def _page(found: list[T], key: Callable[[T], Any], offset: int) -> tuple[list[T], int]:
    """The page that begins at `offset`, or the last one if there are not so many."""
    offset = min(offset, max(0, len(found) - 1)) // PAGE * PAGE
    return heapq.nsmallest(offset + PAGE, found, key=key)[offset:], offset


def _job(job: JobStatus, history: History) -> dict[str, Any]:
    unfinished = _unfinished(job)
    rate = history.rate_of(job.id)
    eta = unfinished / rate if rate and unfinished else None
    return {**record(job), "unfinished": unfinished, "rate": rate, "eta": eta}


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    shown = record(worker)
    shown["running"] = [record(running) for running in worker.running[:SLOTS]]
    shown["functions"] = len(worker.functions)
    return shown


def _hosts(workers: Iterable[WorkerStatus]) -> list[dict[str, Any]]:
    by_host: defaultdict[str, list[WorkerStatus]] = defaultdict(list)
    for worker in workers:
        by_host[worker.host].append(worker)
    largest = heapq.nsmallest(HOSTS, by_host.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {
            "host": host,
            "workers": len(there),
            "slots": sum(worker.slots for worker in there),
            "busy": sum(len(worker.running) for worker in there),
            "completed": sum(worker.completed for worker in there),
            "memory": sum(worker.memory for worker in there),
        }
        for host, there in sorted(largest)
    ]


def _names(jobs: list[JobStatus], wanted: set[str]) -> dict[str, list[str]]:
    """[name, function] of some jobs."""
    return {job.id: [job.name, job.function] for job in jobs if job.id in wanted}


def _failures(service: Service, status: JobStatus) -> list[dict[str, Any]]:
    """The first dead tasks that still are dead."""
    if not status.dead:
        return []
    found: list[dict[str, Any]] = []
    for row in service.journal.read.results(status.id, 0, 1 << 20, failed=True):
        for offset, value in enumerate(batch.unpack(row.block, row.count)):
            index = row.first + offset
            if service.ledger.ended_run(status.id, index)[1] != "dead":
                continue
            try:
                failure = decode_failure(value)
            except msgspec.MsgspecError:
                continue
            found.append({
                "index": index, "reason": failure.reason, "type": failure.type, "message": failure.message,
                "traceback": failure.traceback, "attempts": row.attempts, "worker": row.worker,
                "host": row.host,
            })  # fmt: skip
            if len(found) >= FAILED:
                return found
    return found
