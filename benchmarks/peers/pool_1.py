"""multiprocessing.Pool, `imap_unordered` with its default chunk of 1."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from pathlib import Path

from work import square

TASKS = 100_000
KEEPS = "nothing"
CHUNK = 1


class Side:
    def __init__(self, pool: Pool, chunk: int) -> None:
        self._pool = pool
        self._chunk = chunk

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._pool.imap_unordered(square, inputs, self._chunk))

    def one(self, n: int) -> int:
        return self._pool.apply(square, (n,))


@contextmanager
def running(workers: int, folder: Path, chunk: int = CHUNK) -> Iterator[Side]:
    with multiprocessing.Pool(workers) as pool:
        yield Side(pool, chunk)
