"""What a no-op task costs on disk, and what is given back when its job is deleted."""

import time
from pathlib import Path

from book import Book, say
from yardlab import temporary_yard

FIRST = 500_000  # tasks that fill what the journal has taken from the disk beforehand
TASKS = 2_000_000
PATIENCE = 60


def measure(book: Book, share: float = 1.0) -> None:
    tasks = int(TASKS * share)
    with temporary_yard(2) as lab, lab.yard() as yard:
        sizes = [empty := _size(lab.folder)]
        jobs = []
        for count in (FIRST, tasks):
            jobs.append(yard.submit("work:square", range(count)))
            jobs[-1].wait()
            sizes.append(_size(lab.folder))
        full = sizes[-1]
        for job in jobs:
            job.delete()
        left = _settled(lab.folder)
    book.add("disk", f"{tasks:,} tasks", "bytes a task", (full - sizes[-2]) / tasks)
    given = 100 * (full - left) / (full - empty)
    book.add("disk", "after deletion", "% given back", given, f"{left / 2**20:.1f} MiB are left")
    say(f"disk: {(full - sizes[-2]) / tasks:.1f} bytes a task, {given:.1f} % given back")


def _size(folder: Path) -> int:
    """Bytes of the journal's files."""
    return sum(path.stat().st_size for path in folder.glob("journal.db*"))


def _settled(folder: Path) -> int:
    """The journal's size once it has not changed for a second."""
    end = time.monotonic() + PATIENCE
    size, since = _size(folder), time.monotonic()
    while time.monotonic() < min(end, since + 1):
        time.sleep(0.05)
        if (now := _size(folder)) != size:
            size, since = now, time.monotonic()
    return size
