"""Dramatiq on Redis with its Results middleware; its own number of threads in each process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers import redis_server, workers

TASKS = 1500
KEEPS = redis_server.KEEPS
PATIENCE = 60_000  # milliseconds for one result


class Side:
    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def many(self, inputs: Sequence[int]) -> list[int]:
        from dramatiq import group

        return list(
            group(self._actor.message(n) for n in inputs).run().get_results(block=True, timeout=PATIENCE)
        )

    def one(self, n: int) -> int:
        return int(self._actor.send(n).get_result(block=True, timeout=PATIENCE))


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    with redis_server.redis(folder):
        from peers.dramatiq_app import actor

        with workers.command(folder, "dramatiq", "peers.dramatiq_app", "--processes", str(count)):
            yield Side(actor)
