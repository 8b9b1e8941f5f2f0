"""Curves instead of points: `make bench-curves`, or `run.py --curves --only tasks,workers`.

Each point has its own time limit; a curve ends at the first point that exceeds it, which is noted.
Sizes can be set: `--most 100000` leaves out the points beyond.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from book import say
from yardlab import BenchLab, temporary_yard

from taskyard import Yard
from taskyard.errors import TaskyardError

SECONDS = 60.0  # that one point may take


@dataclass
class Curve:
    """Points (x, one value a unit), in order of x."""

    name: str
    title: str
    x: str
    units: list[str]
    expected: str  # how the cost should grow
    points: list[list[float]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    note: str = ""


class TooSlow(Exception):
    """A point took longer than it may."""


def measure(folder: Path | None, names: Sequence[str], most: float) -> None:
    """Measure these curves; a folder keeps them, and those of the others that it has already."""
    found = {curve.name: curve for curve in load(folder)} if folder else {}
    for name in names or list(CURVES):
        try:
            found[name] = CURVES[name](most)
        except Exception as fault:  # noqa: BLE001 - the others are measured all the same
            say(f"left out: {name}: {str(fault).splitlines()[-1]}")
            continue
        if folder:
            data = [asdict(found[one]) for one in CURVES if one in found]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "curves.json").write_text(json.dumps(data, indent=1) + "\n")


def load(folder: Path) -> list[Curve]:
    path = folder / "curves.json"
    return [Curve(**curve) for curve in json.loads(path.read_text())] if path.exists() else []


def _follow(curve: Curve, xs: Sequence[float], most: float, point: Callable[[Any], list[float]]) -> Curve:
    """Measure a point for each x up to `most`."""
    for x in xs:
        if x > most:
            break
        try:
            values = point(x)
        except TooSlow:
            curve.note = f"{x:g} was not reached within {SECONDS:g} s"
            say(f"{curve.name}: {curve.note}")
            break
        curve.points.append([x, *values])
        curve.loads.append(round(os.getloadavg()[0], 2))
        said = ", ".join(f"{v:,.4g} {unit}" for v, unit in zip(values, curve.units, strict=True))
        say(f"{curve.name}: {x:g} {curve.x}: {said}")
    return curve


def _timed(yard: Yard, function: str, inputs: Sequence[Any], seconds: float = SECONDS) -> float:
    """Seconds for a job from the first input to the last result; raises TooSlow."""
    job = os.urandom(6).hex()
    alarm = threading.Timer(seconds, yard.cancel, [job])
    begun = time.perf_counter()
    alarm.start()
    try:
        got = sum(row.count for row in yard.submit(function, inputs, job=job).rows(follow=True))
    except TaskyardError as fault:  # it was cancelled while it was being submitted
        raise TooSlow from fault
    finally:
        alarm.cancel()
    taken = time.perf_counter() - begun
    yard.delete(job)
    if got != len(inputs):
        raise TooSlow
    return taken


def _warm(yard: Yard) -> None:
    _timed(yard, "work:square", range(1000))


def tasks(most: float) -> Curve:
    curve = Curve(
        "tasks",
        "No-op tasks in one job, two workers",
        "tasks",
        ["tasks/s"],
        "The rate should rise until the fixed cost of a job no longer counts, and then stay.",
    )
    with temporary_yard(2) as lab, lab.yard() as yard:
        _warm(yard)
        xs = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
        return _follow(curve, xs, most, lambda n: [n / _timed(yard, "work:square", range(n))])


def workers(most: float) -> Curve:
    curve = Curve(
        "workers",
        "Workers, which are processes with one slot each",
        "workers",
        ["tasks/s", "sleeps of 10 ms/s"],
        "No-op tasks gain nothing beyond the cores; sleeping tasks should gain 100 a worker.",
    )

    def point(count: int) -> list[float]:
        with temporary_yard(count) as lab, lab.yard() as yard:
            _warm(yard)
            return [
                200_000 / _timed(yard, "work:square", range(200_000)),
                200 * count / _timed(yard, "work:spend", [0.01] * 200 * count),
            ]

    return _follow(curve, (1, 2, 4, 8, 16, 32, 64), most, point)


def connections(most: float) -> Curve:
    from rows.idle import crowd, next_of

    curve = Curve(
        "connections",
        "Idle workers beside two that work",
        "idle workers",
        ["tasks/s"],
        "Who waits should cost nothing.",
    )

    def point(count: int) -> list[float]:
        with temporary_yard(2, connections_per_address="6000") as lab:
            if not count:
                return [_rate(lab)]
            with crowd(lab, count) as joined:
                next_of(joined, lab)
                return [_rate(lab)]

    return _follow(curve, (0, 100, 500, 1000, 2000), most, point)


def _rate(lab: BenchLab) -> float:
    with lab.yard() as yard:
        _warm(yard)
        return 300_000 / _timed(yard, "work:square", range(300_000))


def seconds(most: float) -> Curve:
    curve = Curve(
        "seconds",
        "Time of a task, eight workers that sleep",
        "seconds",
        ["% of slot time", "tasks/s"],
        "The share of the slots' time should come near 100 % as tasks grow.",
    )
    from rows.slots import run as spans_of
    from rows.slots import share_of

    with temporary_yard(8) as lab, lab.yard() as yard:
        _warm(yard)

        def point(length: float) -> list[float]:
            count = 50_000 if not length else int(max(32, min(50_000, 8 * 3 / length)))
            begun = time.perf_counter()
            spans = spans_of(yard, "work:spend", [length] * count)
            return [share_of(spans, 8), count / (time.perf_counter() - begun)]

        return _follow(curve, (0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), most, point)


def payload(most: float) -> Curve:
    curve = Curve(
        "payload",
        "Bytes of an input, two workers",
        "bytes",
        ["tasks/s", "MiB/s"],
        "Bytes a second should rise with the size until the disk or the sockets bound them.",
    )
    with temporary_yard(2) as lab, lab.yard() as yard:
        _warm(yard)

        def point(size: int) -> list[float]:
            count = max(100, min(100_000, (64 << 20) // size))
            taken = _timed(yard, "work:size", [os.urandom(size)] * count)
            return [count / taken, size * count / taken / 2**20]

        return _follow(curve, (10, 100, 1 << 10, 1 << 13, 1 << 16, 1 << 18, (1 << 20) - 64), most, point)


def batches(most: float) -> Curve:
    curve = Curve(
        "batches",
        "TASKYARD_BATCH, which caps a lease, two workers",
        "tasks in a lease",
        ["tasks/s"],
        "The rate should grow as the batch does, until the tasks themselves cost more than a lease.",
    )

    def point(cap: int) -> list[float]:
        count = min(300_000, 3000 * cap)
        with temporary_yard(2, batch=str(cap)) as lab, lab.yard() as yard:
            _warm(yard)
            return [count / _timed(yard, "work:square", range(count))]

    return _follow(curve, (1, 3, 10, 30, 100, 300, 1000, 5000), most, point)


def jobs(most: float) -> Curve:
    curve = Curve(
        "jobs",
        "Jobs at once, two workers, 100,000 tasks in all",
        "jobs",
        ["tasks/s", "submissions/s"],
        "All are submitted before the workers may begin. Jobs take turns; the rate should fall slowly.",
    )
    with temporary_yard(2) as lab, lab.yard() as yard:
        _warm(yard)
        names = [worker.id for worker in yard.status().workers]

        def point(count: int) -> list[float]:
            each = range(100_000 // count)
            for name in names:
                yard.drain(name)
            begun = time.perf_counter()
            all_of_them = [yard.submit("work:square", each) for _ in range(count)]
            submitted = time.perf_counter()
            for name in names:
                yard.drain(name, undo=True)
            try:
                for job in all_of_them:
                    job.wait(max(0.1, SECONDS - (time.perf_counter() - submitted)))
            except TimeoutError as fault:
                raise TooSlow from fault
            taken = time.perf_counter() - submitted
            for job in all_of_them:
                job.delete()
            return [len(each) * count / taken, count / (submitted - begun)]

        return _follow(curve, (1, 10, 30, 100, 300, 1000), most, point)


def readers(most: float) -> Curve:
    curve = Curve(
        "readers",
        "Readers of one job's results at once",
        "readers",
        ["results/s, all together", "slowest, s"],
        "All together should get at least what one gets.",
    )
    count = 300_000
    with temporary_yard(2) as lab, lab.yard() as yard:
        job = yard.submit("work:square", range(count))
        job.wait()

        def read(taken: list[float]) -> None:
            with lab.yard() as mine:
                begun = time.perf_counter()
                got = sum(row.count for row in mine.job(job.id).rows())
                taken.append(time.perf_counter() - begun if got == count else float("inf"))

        def point(number: int) -> list[float]:
            taken: list[float] = []
            threads = [threading.Thread(target=read, args=(taken,)) for _ in range(number)]
            begun = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SECONDS)
            if len(taken) != number:
                raise TooSlow
            return [number * count / (time.perf_counter() - begun), max(taken)]

        return _follow(curve, (1, 2, 5, 10, 20, 50), most, point)


CURVES: dict[str, Callable[[float], Curve]] = {
    "tasks": tasks, "workers": workers, "connections": connections, "seconds": seconds, "payload": payload,
    "batches": batches, "jobs": jobs, "readers": readers,
}  # fmt: skip
