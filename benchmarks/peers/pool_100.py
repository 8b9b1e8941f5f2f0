"""multiprocessing.Pool with a chunk of 100, which somebody has to choose."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import pool_1

TASKS = 3_000_000
KEEPS = "nothing"


@contextmanager
def running(workers: int, folder: Path) -> Iterator[pool_1.Side]:
    with pool_1.running(workers, folder, 100) as side:
        yield side
