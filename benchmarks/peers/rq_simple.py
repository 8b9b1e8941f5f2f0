"""RQ on Redis with SimpleWorker, which its page on performance advises for tasks as short as these."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from work import square

from peers import redis_server, workers

TASKS = 1500
KEEPS = redis_server.KEEPS
PATIENCE = 60  # seconds for one result


class Side:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def many(self, inputs: Sequence[int]) -> list[int]:
        from rq import Queue

        calls = [Queue.prepare_data(square, (n,)) for n in inputs]
        return [self._value(job) for job in self._queue.enqueue_many(calls)]

    def one(self, n: int) -> int:
        return self._value(self._queue.enqueue(square, n))

    def _value(self, job: Any) -> int:
        return int(job.latest_result(timeout=PATIENCE).return_value)


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    from redis import Redis
    from rq import Queue

    with redis_server.redis(folder) as url:
        words = ("rq.cli", "worker", "--url", url, "--worker-class", "rq.SimpleWorker", "--quiet")
        with workers.command(folder, *words, times=count):
            yield Side(Queue(connection=Redis.from_url(url)))
