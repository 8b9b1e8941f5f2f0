"""Millions of tasks that wait: the master's memory, how fast more come in, the first lease, a restart."""

import threading
import time

from book import Book, say
from yardlab import BenchLab, eventually, memory, temporary_yard

from taskyard import Yard
from taskyard.errors import TaskyardError

SIZES = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
PROBE = 100_000  # tasks in a submission whose rate is measured
PROBES = 3
PATIENCE = 120


def measure(book: Book, most: int = SIZES[-1]) -> None:
    with temporary_yard(1) as lab:
        _first_lease(book, lab, most)
        for worker in lab.workers:
            worker.kill()
            worker.wait()
        _fill(book, lab, [size for size in SIZES if size <= most])
        _restart(book, lab)


def _fill(book: Book, lab: BenchLab, sizes: list[int]) -> None:
    assert lab.master is not None
    pid, waiting = lab.master.pid, 0
    with lab.yard() as yard:
        _submit(yard, PROBE)  # the first of a connection
        waiting += PROBE
        for size in sizes:
            if size > waiting:
                _submit(yard, size - waiting)
                waiting = size
            rates = []
            for _ in range(PROBES):
                rates.append(PROBE / _submit(yard, PROBE))
                waiting += PROBE
            side = f"{size:,} tasks"
            for rate in rates:
                book.add("backlog", side, "submitted/s", rate)
            book.add("backlog", side, "MiB RSS", memory(pid) / 2**20)
            say(f"backlog: {side}: {sorted(rates)[PROBES // 2]:,.0f} submitted/s, {memory(pid) >> 20} MiB")
    book.add("backlog", "all the way", "MiB RSS at most", memory(pid, "VmHWM") / 2**20)


def _submit(yard: Yard, tasks: int) -> float:
    begun = time.perf_counter()
    yard.submit("work:square", range(tasks))
    return time.perf_counter() - begun


def _first_lease(book: Book, lab: BenchLab, most: int) -> None:
    """Seconds from the begin of a large submission until its first result, which includes the lease."""
    with lab.yard() as yard, lab.yard() as reader:
        job = "f" * 12
        begun = time.perf_counter()
        thread = threading.Thread(target=_submit_until_cancelled, args=(yard, job, most))
        thread.start()
        eventually(lambda: _known(reader, job), "the job is there", PATIENCE)
        next(reader.job(job).rows(follow=True))
        taken = time.perf_counter() - begun
        reader.cancel(job)
        thread.join(PATIENCE)
        reader.delete(job)
    book.add("backlog", "first of a large submission", "s to first result", taken)
    say(f"backlog: the first result of a submission of {most:,} after {taken:.3f} s")


def _known(yard: Yard, job: str) -> bool:
    try:
        return bool(yard.status(job).jobs)
    except TaskyardError:
        return False


def _submit_until_cancelled(yard: Yard, job: str, tasks: int) -> None:
    try:
        yard.submit("work:square", range(tasks), job=job)
    except TaskyardError:
        return  # it was cancelled, as was meant


def _restart(book: Book, lab: BenchLab) -> None:
    """Seconds from a kill to a master that answers, with everything that waits."""
    before = sum(job.ready for job in lab.status().jobs)
    lab.kill_master()
    begun = time.perf_counter()
    lab.start_master()
    after = sum(job.ready for job in lab.status().jobs)
    taken = time.perf_counter() - begun
    if after != before:
        raise SystemExit(f"backlog: {before} tasks waited before the restart, {after} after it")
    assert lab.master is not None
    book.add("backlog", f"{before:,} tasks", "s to restart", taken)
    book.add("backlog", "after the restart", "MiB RSS", memory(lab.master.pid) / 2**20)
    say(f"backlog: restarted with {before:,} tasks in {taken:.2f} s")
    first = time.perf_counter()
    lab.start_workers(1)
    eventually(lambda: any(job.completed for job in lab.status().jobs), "a task is completed", PATIENCE)
    book.add("backlog", "after the restart", "s to first result", time.perf_counter() - first)
