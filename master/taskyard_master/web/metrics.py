"""Prometheus metrics: read from what the master counts anyway, when somebody asks.

Labels are bounded: states, and functions of jobs that exist (at most FUNCTIONS of them,
the rest as "other"); never a job's id, a worker or a task.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from heapq import nlargest

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

import taskyard
from taskyard.messages import JobStatus, StatusReply
from taskyard_master.service import Service

FUNCTIONS = 50
STATES = ("ready", "leased", "delayed", "suspect", "completed", "dead", "cancelled")


class Collector:
    """Turns a status into metric families."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        status = self._service.control.overview()
        yield InfoMetricFamily("taskyard_master", "What runs here.", {"version": taskyard.__version__})
        yield from _tasks(status)
        yield from _workers(status)
        master = status.master
        yield GaugeMetricFamily("taskyard_start_time_seconds", "When the master started.", master.started)
        yield GaugeMetricFamily("taskyard_connections", "Open connections.", master.connections)
        yield GaugeMetricFamily("taskyard_journal_bytes", "Size of the journal.", master.journal_bytes)
        yield GaugeMetricFamily("taskyard_master_memory_bytes", "Resident memory.", master.memory)
        commits = self._service.journal.commits
        yield CounterMetricFamily("taskyard_journal_commits", "Group commits since the start.", commits)


def _tasks(status: StatusReply) -> Iterator[Metric]:
    tasks = GaugeMetricFamily("taskyard_tasks", "Tasks of all jobs by state.", labels=["state"])
    for state in STATES:
        tasks.add_metric([state], sum(getattr(job, state) for job in status.jobs))
    yield tasks
    jobs = GaugeMetricFamily("taskyard_jobs", "Jobs by state.", labels=["state"])
    by_state = Counter[str](job.state for job in status.jobs)
    for state in ("open", "closed", "incomplete", "cancelled"):
        jobs.add_metric([state], by_state[state])
    yield jobs
    yield CounterMetricFamily(
        "taskyard_retries", "Executions that failed and were tried again, of jobs that exist.",
        sum(job.retries for job in status.jobs),
    )  # fmt: skip
    seconds = CounterMetricFamily(
        "taskyard_worker_seconds", "Seconds spent in functions, of jobs that exist.", labels=["function"]
    )
    for function, spent in _by_function(status.jobs).items():
        seconds.add_metric([function], spent)
    yield seconds


def _by_function(jobs: list[JobStatus]) -> dict[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    for job in jobs:
        spent[job.function or "any"] += job.seconds
    kept = dict(nlargest(FUNCTIONS, spent.items(), key=lambda pair: pair[1]))
    rest = sum(spent.values()) - sum(kept.values())
    return {**kept, "other": rest} if len(spent) > FUNCTIONS else kept


def _workers(status: StatusReply) -> Iterator[Metric]:
    workers = GaugeMetricFamily("taskyard_workers", "Workers by state.", labels=["state"])
    by_state = Counter[str](worker.state for worker in status.workers)
    for state in ("idle", "running", "draining", "drained", "missing"):
        workers.add_metric([state], by_state[state])
    yield workers
    slots = GaugeMetricFamily("taskyard_slots", "Slots of joined workers.", labels=["state"])
    busy = sum(len(worker.running) for worker in status.workers)
    total = sum(worker.slots for worker in status.workers if worker.state != "missing")
    slots.add_metric(["busy"], busy)
    slots.add_metric(["idle"], max(0, total - busy))
    yield slots


def render(service: Service) -> bytes:
    """The metrics page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(service))
    return generate_latest(registry)
