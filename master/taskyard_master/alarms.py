"""When to look at which segment for delays that are over."""

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from taskyard_master.jobs import Job

TICKS = 10  # a second: the grain of delays


class Alarms:
    """One alarm a segment, for the first of its delays; times are monotonic seconds."""

    def __init__(self, jobs: dict[str, Job]) -> None:
        self._jobs = jobs
        self._heap: list[tuple[int, str, int]] = []  # (tick, job, segment), some out of date

    def set(self, job: Job, number: int, tick: int) -> None:
        """A delay of a segment ends at `tick`: look no later."""
        segment = job.segments[number]
        if not segment.alarm or tick < segment.alarm:
            segment.alarm = tick
            heappush(self._heap, (tick, job.id, number))

    def ring(self, now: float) -> Iterator[tuple[Job, int, int]]:
        """(job, segment, how many) of the delays that are over: those tasks are ready."""
        tick = int(now * TICKS)
        while self._heap and self._heap[0][0] <= tick:
            at, name, number = heappop(self._heap)
            job = self._jobs.get(name)
            if job is None or number >= len(job.segments) or job.segments[number].alarm != at:
                continue
            segment = job.segments[number]
            many = segment.wake(tick)
            segment.alarm = 0
            if segment.codes:
                self.set(job, number, min(segment.codes))
            if many:
                yield job, number, many

    def next(self) -> float:
        """When the next delay is over; inf if nothing is delayed."""
        return self._heap[0][0] / TICKS if self._heap else inf
