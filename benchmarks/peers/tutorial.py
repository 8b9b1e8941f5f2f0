"""The tutorial pattern: a multiprocessing manager with two queues. Nothing is kept on disk."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from work import square

from taskyard_ctl.pattern import Pattern

TASKS = 15_000
KEEPS = "nothing"


@contextmanager
def running(workers: int, folder: Path) -> Iterator[Pattern]:
    with closing(Pattern(workers, square)) as pattern:
        yield pattern
