"""The tutorial's pattern, to compare with: a stdlib manager with two queues and some workers.

`python -m taskyard_ctl.pattern TASKS WORKERS` prints tasks a second and the median seconds of one
round trip, with nothing kept on disk, as the tutorials have it.
"""

import multiprocessing
import queue
import secrets
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.managers import BaseManager
from typing import Any

from taskyard_ctl.measuring import rate, singles

_tasks: "queue.Queue[int]" = queue.Queue()
_results: "queue.Queue[int]" = queue.Queue()
ROUNDS = 200


class Manager(BaseManager):
    """As every tutorial has it."""


def _get_task() -> "queue.Queue[int]":
    return _tasks


def _get_result() -> "queue.Queue[int]":
    return _results


Manager.register("get_task", callable=_get_task)
Manager.register("get_result", callable=_get_result)


def square(n: int) -> int:
    return n * n


def _queues(address: Any, key: bytes) -> tuple[Any, Any]:
    manager: Any = Manager(address, key)
    manager.connect()
    return manager.get_task(), manager.get_result()


def _work(address: Any, key: bytes, function: Callable[[int], Any]) -> None:
    tasks, results = _queues(address, key)
    while True:
        results.put(function(tasks.get()))


class Pattern:
    """A master and workers that run and have connected; `close` ends them."""

    def __init__(self, workers: int, function: Callable[[int], Any] = square) -> None:
        key = secrets.token_bytes(32)
        self._manager: Any = Manager(("127.0.0.1", 0), key)
        self._manager.start()
        self.address, self.key = self._manager.address, key
        self._workers = [
            multiprocessing.Process(target=_work, args=(self.address, key, function), daemon=True)
            for _ in range(workers)
        ]
        for process in self._workers:
            process.start()
        self._tasks, self._results = _queues(self.address, key)
        self.many(range(workers))  # all of them have connected

    def many(self, inputs: Sequence[int]) -> list[Any]:
        """Put by one thread, as it waits for each; got by another."""
        feeder = threading.Thread(target=self._feed, args=(inputs,))
        feeder.start()
        results = [self._results.get() for _ in inputs]
        feeder.join()
        return results

    def one(self, n: int) -> Any:
        self._tasks.put(n)
        return self._results.get()

    def _feed(self, inputs: Sequence[int]) -> None:
        tasks, _ = _queues(self.address, self.key)
        for n in inputs:
            tasks.put(n)

    def close(self) -> None:
        for process in self._workers:
            process.kill()
        self._manager.shutdown()


def measure(tasks: int, workers: int) -> tuple[float, float]:
    """(tasks a second, median seconds of a single one)."""
    pattern = Pattern(workers)
    try:
        return rate(pattern, range(tasks))[0], statistics.median(singles(pattern, ROUNDS))
    finally:
        pattern.close()


if __name__ == "__main__":
    found = measure(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(f"{found[0]} {found[1]}\n")
