"""concurrent.futures.ProcessPoolExecutor, `map` with its default chunk."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from work import square

TASKS = 20_000
KEEPS = "nothing"


class Side:
    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._pool.map(square, inputs))

    def one(self, n: int) -> int:
        return self._pool.submit(square, n).result()


@contextmanager
def running(workers: int, folder: Path) -> Iterator[Side]:
    with ProcessPoolExecutor(workers) as pool:
        yield Side(pool)
