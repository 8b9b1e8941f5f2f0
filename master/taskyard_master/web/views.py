"""What the pages show, as plain data of bounded size, whatever the yard's size is."""

import heapq
from collections import Counter
from typing import Any

import msgspec

from taskyard import batch
from taskyard.messages import JobStatus, StatusReply, WorkerStatus, decode_failure
from taskyard_master.service import Service
from taskyard_master.web.history import History, Run, Totals

JOBS = 100  # in the overview; the newest, those with unfinished tasks first
WORKERS = 200  # in the overview, those that run something first
FAILED = 50  # failures of a job
SLOWEST = 20  # runs of a job
CHART = 180  # seconds of rates that are sent each time


def record(value: Any) -> dict[str, Any]:
    """A struct of the wire by its field names."""
    return {name: getattr(value, name) for name in value.__struct_fields__}


def overview(status: StatusReply, history: History) -> dict[str, Any]:
    """Everything that the stream tells each second."""
    totals = Totals.of(status.jobs)
    rate = history.rate()
    unfinished = totals.backlog + totals.leased
    jobs = sorted(status.jobs, key=lambda job: (not _unfinished(job), -job.created))
    jobs = [job for job in jobs if job.total or job.id != "plain"]
    workers = sorted(status.workers, key=lambda worker: (not worker.running, worker.id))
    hosts = Counter(worker.host for worker in status.workers)
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
        "samples": [list(sample) for sample in list(history.samples)[-CHART:]],
        "jobs": [record(job) for job in jobs[:JOBS]],
        "jobs_in_all": len(jobs),
        "workers": [_worker(worker) for worker in workers[:WORKERS]],
        "workers_in_all": len(workers),
        "hosts": dict(hosts.most_common(50)),
    }


def _unfinished(job: JobStatus) -> int:
    return job.ready + job.leased + job.delayed + job.suspect


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    shown = record(worker)
    shown["running"] = [record(running) for running in worker.running[:8]]
    shown["functions"] = len(worker.functions)
    return shown


def job(service: Service, history: History, name: str) -> dict[str, Any]:
    """One job: its counts, its failures with reasons and tracebacks, its slowest runs."""
    (status,) = service.overview(name).jobs
    slowest = heapq.nlargest(
        SLOWEST,
        (run for run in history.runs if run.job == status.id),
        key=lambda run: run.seconds / run.tasks,
    )
    return {
        "job": record(status),
        "failed": _failures(service, status),
        "slowest": [_run(run) for run in slowest],
    }


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
            found.append(
                {
                    "index": index,
                    "reason": failure.reason,
                    "type": failure.type,
                    "message": failure.message,
                    "traceback": failure.traceback,
                    "attempts": row.attempts,
                    "worker": row.worker,
                    "host": row.host,
                }
            )
            if len(found) >= FAILED:
                return found
    return found


def timeline(history: History, after: int) -> dict[str, Any]:
    """Runs that were noted after that many; `noted` is the next `after`."""
    new = min(len(history.runs), max(0, history.noted - after))
    runs = list(history.runs)[len(history.runs) - new :] if new else []
    return {"noted": history.noted, "runs": [_run(run) for run in runs]}


def _run(run: Run) -> dict[str, Any]:
    return run._asdict()
