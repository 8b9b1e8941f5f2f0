"""What a no-op task costs on disk, and what is given back when its job is deleted."""

import tempfile
import time
from pathlib import Path

from book import Book, say
from yardlab import running_yard

TASKS = 2_000_000
PATIENCE = 60


def measure(book: Book, share: float = 1.0) -> None:
    tasks = int(TASKS * share)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_yard(Path(folder), 2) as lab,
        lab.yard() as yard,
    ):
        empty = _size(Path(folder))
        job = yard.submit("work:square", range(tasks))
        job.wait()
        full = _size(Path(folder))
        job.delete()
        left = _settled(Path(folder))
    book.add("disk", f"{tasks:,} tasks", "bytes a task", (full - empty) / tasks)
    given = 100 * (full - left) / (full - empty)
    book.add("disk", "after deletion", "% given back", given, f"{left / 2**20:.1f} MiB are left")
    say(f"disk: {(full - empty) / tasks:.1f} bytes a task, {given:.1f} % given back")


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
