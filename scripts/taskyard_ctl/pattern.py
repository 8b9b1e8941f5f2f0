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
import time
from multiprocessing.managers import BaseManager
from typing import Any

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


def _queues(address: Any, key: bytes) -> tuple[Any, Any]:
    manager: Any = Manager(address, key)
    manager.connect()
    return manager.get_task(), manager.get_result()


def _work(address: Any, key: bytes) -> None:
    tasks, results = _queues(address, key)
    while True:
        n = tasks.get()
        results.put(n * n)


def measure(tasks: int, workers: int) -> tuple[float, float]:
    """(tasks a second, median seconds of a single one)."""
    key = secrets.token_bytes(32)
    manager: Any = Manager(("127.0.0.1", 0), key)
    manager.start()
    address = manager.address
    processes = [
        multiprocessing.Process(target=_work, args=(address, key), daemon=True) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        put, got = _queues(address, key)
        for _ in range(workers):  # all of them have connected
            put.put(1)
        for _ in range(workers):
            got.get()
        feeder = threading.Thread(target=_feed, args=(address, key, tasks))
        begun = time.perf_counter()
        feeder.start()
        for _ in range(tasks):
            got.get()
        rate = tasks / (time.perf_counter() - begun)
        feeder.join()
        single = []
        for n in range(ROUNDS):
            begun = time.perf_counter()
            put.put(n)
            got.get()
            single.append(time.perf_counter() - begun)
        return rate, statistics.median(single)
    finally:
        for process in processes:
            process.kill()
        manager.shutdown()


def _feed(address: Any, key: bytes, tasks: int) -> None:
    put, _ = _queues(address, key)
    for n in range(tasks):
        put.put(n)


if __name__ == "__main__":
    found = measure(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(f"{found[0]} {found[1]}\n")
