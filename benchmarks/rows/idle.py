"""Workers that wait: how fast they join, what each costs, and when all are back after a restart."""

import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from book import Book, say
from yardlab import BenchLab, memory, running_yard

HERE = Path(__file__).resolve().parent.parent
COUNTS = (2000, 5000)
PATIENCE = 60  # seconds for all to join
SPARE = 200  # descriptors besides the connections


def measure(book: Book, counts: tuple[int, ...] = COUNTS) -> None:
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE
    for count in counts:
        if count > room:
            book.skip(f"{count:,} idle workers: this machine lets a process open {room + SPARE:,} files")
            continue
        with tempfile.TemporaryDirectory() as folder, _yard(Path(folder), count) as lab:
            _measure(book, lab, count)


def _yard(folder: Path, count: int) -> AbstractContextManager[BenchLab]:
    """The limits allow 5,000 connections from one address, and all of ours come from one."""
    return running_yard(folder, 0, connections_per_address=str(max(5000, count + 10)))


def _measure(book: Book, lab: BenchLab, count: int) -> None:
    side = f"{count:,} workers"
    assert lab.master is not None
    before = memory(lab.master.pid)
    with crowd(lab, count) as joined:
        taken = next_of(joined, lab)
        each = (memory(lab.master.pid) - before) / count
        found = len(lab.status().workers)
        if found != count:
            raise SystemExit(f"idle: {count} workers have joined and the master knows {found}")
        book.add("idle", side, "joined/s", count / taken)
        book.add("idle", side, "KiB each", each / 1024)
        lab.kill_master()
        lab.start_master()
        back = next_of(joined, lab)
        book.add("idle", side, "s until all are back", back, "counted from the kill of the master")
    say(f"idle: {side}: {count / taken:,.0f} joined/s, {each / 1024:.1f} KiB each, all back in {back:.1f} s")


@contextmanager
def crowd(lab: BenchLab, count: int) -> Iterator["queue.Queue[float]"]:
    words = [sys.executable, str(HERE / "crowd.py"), str(lab.port), str(count)]
    joined: queue.Queue[float] = queue.Queue()
    with subprocess.Popen(
        words, env={**os.environ, **lab.environ}, stdout=subprocess.PIPE, text=True
    ) as process:
        thread = threading.Thread(target=_read, args=(process, joined), daemon=True)
        thread.start()
        try:
            yield joined
        finally:
            process.kill()
            thread.join()


def _read(process: "subprocess.Popen[str]", joined: "queue.Queue[float]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        joined.put(float(line.split()[1]))


def next_of(joined: "queue.Queue[float]", lab: BenchLab) -> float:
    """Seconds that it took until all had joined."""
    try:
        return joined.get(timeout=PATIENCE)
    except queue.Empty:
        there = len(lab.status().workers)
        raise SystemExit(f"idle: only {there} workers joined within {PATIENCE} s") from None
