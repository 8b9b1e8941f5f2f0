"""Whose turn it is: strict priority, then the job that has had the fewest worker seconds."""

from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush

from taskyard_master.jobs import Entry, Job
from taskyard_master.segments import READY


class _Queue:
    """The jobs of one priority and one function that have ready tasks."""

    __slots__ = ("heap", "jobs")

    def __init__(self) -> None:
        self.heap: list[Entry] = []  # with entries that are out of date, skipped when they come up
        self.jobs = 0

    def push(self, entry: Entry) -> None:
        if len(self.heap) > 2 * self.jobs + 32:
            self.heap = [entry for entry in self.heap if entry[3].entry is entry]
            heapify(self.heap)
        heappush(self.heap, entry)

    def top(self) -> Entry:
        while self.heap[0][3].entry is not self.heap[0]:
            heappop(self.heap)
        return self.heap[0]


class Turns:
    """The jobs that have ready tasks, in the order of their turns."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, _Queue]] = {}
        self._floors: dict[
            int, float
        ] = {}  # by priority: seconds of the job served last; newcomers begin there
        self._serial = 0

    def update(self, job: Job) -> None:
        """To be called after anything that changed a job: it joins, leaves or moves."""
        level = self._levels.get(job.options.priority)
        queue = level.get(job.function) if level else None
        if job.stopping or not job.counts[READY]:
            if job.entry is not None:
                assert queue is not None and level is not None
                self._leave(job, level, queue)
            return
        if job.entry is None:
            if queue is None:
                queue = self._levels.setdefault(job.options.priority, {}).setdefault(job.function, _Queue())
            queue.jobs += 1
            job.spent = max(job.spent, self._floors.get(job.options.priority, 0.0))
        else:
            assert queue is not None
            if job.entry[0] == job.spent + job.charge and job.entry[1] == job.turn:
                return
        self._serial += 1
        job.entry = (job.spent + job.charge, job.turn, self._serial, job)
        queue.push(job.entry)

    def _leave(self, job: Job, level: dict[str, _Queue], queue: _Queue) -> None:
        job.entry = None
        queue.jobs -= 1
        if not queue.jobs:
            del level[job.function]
            if not level:
                del self._levels[job.options.priority]

    def order(self, functions: Collection[str]) -> Iterator[Job]:
        """The jobs whose turn it is, best first; whoever takes one changes or leaves it before the next step.

        A job without a function (each payload names its own) suits every worker that has any.
        """
        for priority in sorted(self._levels, reverse=True):
            while True:
                best: Entry | None = None
                for function, queue in self._levels.get(priority, {}).items():
                    if function in functions or (not function and functions):
                        entry = queue.top()
                        best = entry if best is None else min(best, entry)
                if best is None:
                    break
                yield best[3]

    def serve(self, job: Job) -> None:
        """The job was given a grant: others of the same standing come first now."""
        self._serial += 1
        job.turn = self._serial
        priority = job.options.priority
        self._floors[priority] = max(self._floors.get(priority, 0.0), job.spent)

    def priority(self, functions: Collection[str]) -> int | None:
        """The highest priority at which there is something for a worker that has `functions`."""
        suited = (
            priority
            for priority, level in self._levels.items()
            if any(function in functions or (not function and functions) for function in level)
        )
        return max(suited, default=None)

    def any(self) -> bool:
        """Whether any job has ready tasks."""
        return bool(self._levels)

    def skip(self, job: Job) -> None:
        """Leave a job out until its next `update`: all its ready tasks are queued for something."""
        level = self._levels[job.options.priority]
        self._leave(job, level, level[job.function])
