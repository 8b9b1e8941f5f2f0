"""What the dashboard remembers: a rate each second, and the latest runs of every worker.

Both are bounded, and cost a few numbers a second or a record, whoever looks or not:
per task nothing is done here.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from taskyard.messages import Ending, JobStatus, Record, Retrying

SECONDS = 600  # of rates
RECENT = 10  # seconds that a rate is taken over
JOBS = 500  # whose own rates are known: those that moved last
RUNS = 4000  # of the timeline
EVENTS = 1000  # lines of the log


class Sample(NamedTuple):
    """One second of the yard: counts of tasks."""

    at: float  # Unix seconds
    completed: int  # since the last sample
    dead: int
    retries: int
    backlog: int  # ready, delayed and suspect
    leased: int


class Run(NamedTuple):
    """Tasks that one worker ran one after the other."""

    worker: str
    job: str
    first: int
    tasks: int
    started: float  # Unix seconds
    seconds: float
    state: str  # completed, dead, retried


@dataclass(frozen=True, slots=True)
class Totals:
    """All jobs together, at one moment."""

    completed: int = 0
    dead: int = 0
    retries: int = 0
    backlog: int = 0
    leased: int = 0

    @classmethod
    def of(cls, jobs: list[JobStatus]) -> "Totals":
        return cls(
            sum(job.completed for job in jobs),
            sum(job.dead for job in jobs),
            sum(job.retries for job in jobs),
            sum(job.ready + job.delayed + job.suspect for job in jobs),
            sum(job.leased for job in jobs),
        )


class History:
    """Rings of samples and runs."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SECONDS)
        self.runs: deque[Run] = deque(maxlen=RUNS)
        self.noted = 0  # runs ever, so that a reader knows which are new
        self._last: Totals | None = None
        self._moves: dict[str, deque[tuple[int, int]]] = {}  # (Unix seconds, tasks ended) by job

    def sample(self, now: float, totals: Totals) -> None:
        """Take the yard's counts, once a second. Deleting a job never makes a rate negative."""
        last = self._last or totals
        self.samples.append(
            Sample(
                now,
                max(0, totals.completed - last.completed),
                max(0, totals.dead - last.dead),
                max(0, totals.retries - last.retries),
                totals.backlog,
                totals.leased,
            )
        )
        self._last = totals

    def committed(self, record: Record) -> None:
        """A record is on disk; outcomes of workers become runs."""
        now = time.time()
        if isinstance(record, Ending):
            self._moved(record.job, now, record.count)
        if isinstance(record, Ending) and record.seconds:
            run = Run(
                record.worker, record.job, record.first, record.count, record.started, record.seconds,
                record.state,
            )  # fmt: skip
        elif isinstance(record, Retrying):
            started = now - record.seconds  # the record has only the length; it has just ended
            run = Run(
                record.worker, record.job, record.first, record.count, started, record.seconds, "retried"
            )
        else:
            return
        self.runs.append(run)
        self.noted += 1

    def _moved(self, job: str, now: float, tasks: int) -> None:
        """Count what ended, in steps of a second."""
        moves = self._moves.pop(job, None) or deque(maxlen=RECENT + 1)
        self._moves[job] = moves
        if moves and moves[-1][0] == int(now):
            moves[-1] = (moves[-1][0], moves[-1][1] + tasks)
        else:
            moves.append((int(now), tasks))
        while len(self._moves) > JOBS:
            del self._moves[next(iter(self._moves))]

    def rate_of(self, job: str) -> float:
        """Tasks of a job that ended a second, lately."""
        end = int(time.time())
        moves = [(at, tasks) for at, tasks in self._moves.get(job, ()) if end - RECENT <= at]
        return sum(tasks for _, tasks in moves) / (end - moves[0][0] + 1) if moves else 0.0

    def rate(self, seconds: int = RECENT) -> float:
        """Tasks completed a second over the latest samples."""
        latest = list(self.samples)[-seconds:]
        return sum(sample.completed for sample in latest) / max(1, len(latest))
