"""Huey on Redis, its consumer with worker processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers import redis_server, workers

TASKS = 6000
KEEPS = redis_server.KEEPS
POLL = 0.001  # seconds; its default of up to a second would be all that is measured


class Side:
    def __init__(self, task: Any) -> None:
        self._task = task

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._task.map(inputs).get(blocking=True, max_delay=POLL))

    def one(self, n: int) -> int:
        return int(self._task(n).get(blocking=True, max_delay=POLL))


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    with redis_server.redis(folder):
        from peers.huey_app import task

        words = ("huey.bin.huey_consumer", "peers.huey_app.huey", "-k", "process", "-w", str(count), "-q")
        with workers.command(folder, *words):
            yield Side(task)
