"""Celery on Redis, prefork workers, its advice on short tasks taken."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers import redis_server, workers

TASKS = 2000
KEEPS = redis_server.KEEPS


class Side:
    def __init__(self, task: Any) -> None:
        self._task = task

    def many(self, inputs: Sequence[int]) -> list[int]:
        from celery import group

        return list(group(self._task.s(n) for n in inputs).apply_async().join_native())

    def one(self, n: int) -> int:
        return int(self._task.delay(n).get())


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    with redis_server.redis(folder):
        from peers.celery_app import task

        words = ("celery", "-A", "peers.celery_app", "worker", "--concurrency", str(count), "-l", "WARNING")
        with workers.command(folder, *words):
            yield Side(task)
