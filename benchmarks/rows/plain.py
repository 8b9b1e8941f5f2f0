"""Unmodified stdlib clients: at this master, which keeps everything, and at the tutorial's.

A round is what a tutorial's script does with one task: put it, get it, put its result, get that.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.managers import BaseManager
from typing import Any

from book import Book, say
from yardlab import temporary_yard

from taskyard_ctl.pattern import Pattern

SECONDS = 3.0
PROCESSES = 4
Place = Any  # of a master: (host, port)


class Manager(BaseManager):
    pass


Manager.register("get_task")
Manager.register("get_result")


def measure(book: Book, rounds: int, seconds: float = SECONDS) -> None:
    for _ in range(rounds):
        for side, master in (("taskyard", _yard), ("tutorial master", _tutorial)):
            with master() as (address, key):
                for connections in (1, 20):
                    rate = _rounds(address, key, connections, seconds)
                    book.add("plain", f"{side}, {_connections(connections)}", "rounds/s", rate)
                    say(f"plain: {side}, {_connections(connections)}: {rate:,.0f} rounds/s")
                rate = _connects(address, key, seconds)
                book.add("plain", side, "connects/s", rate)
                say(f"plain: {side}: {rate:,.0f} connects/s")


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


@contextmanager
def _yard() -> Iterator[tuple[Place, bytes]]:
    with temporary_yard(0) as lab:
        yield ("127.0.0.1", lab.port), lab.environ["TASKYARD_AUTHKEY"].encode()


@contextmanager
def _tutorial() -> Iterator[tuple[Place, bytes]]:
    with closing(Pattern(0)) as pattern:
        yield pattern.address, pattern.key


def _connects(address: Place, key: bytes, seconds: float) -> float:
    begun = time.perf_counter()
    count = 0
    while time.perf_counter() < begun + seconds:
        Manager(address, key).connect()
        count += 1
    return count / (time.perf_counter() - begun)


def _rounds(address: Place, key: bytes, connections: int, seconds: float) -> float:
    """Rounds a second of all connections together; the clients are in as many as four processes."""
    processes = min(PROCESSES, connections)
    start = multiprocessing.Barrier(connections + 1)
    counts: Any = multiprocessing.SimpleQueue()
    clients = [
        multiprocessing.Process(
            target=_client, args=(address, key, connections // processes, seconds, start, counts)
        )
        for _ in range(processes)
    ]
    for client in clients:
        client.start()
    start.wait(60)
    total: int = sum(counts.get() for _ in range(connections))
    for client in clients:
        client.join()
    return total / seconds


def _client(address: Place, key: bytes, threads: int, seconds: float, start: Any, counts: Any) -> None:
    workers = [
        threading.Thread(target=_work, args=(address, key, seconds, start, counts)) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _work(address: Place, key: bytes, seconds: float, start: Any, counts: Any) -> None:
    """One connection: each thread of a stdlib client has its own."""
    manager: Any = Manager(address, key)
    manager.connect()
    tasks, results = manager.get_task(), manager.get_result()
    start.wait(60)
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end:
        tasks.put(rounds)
        results.put(tasks.get() ** 2)
        results.get()
        rounds += 1
    counts.put(rounds)
