"""Bytes a second of large inputs, beside the same bytes through raw sockets and once onto the disk.

The raw copy takes the way of a payload: from one process to a second, which writes it to a file
and sends it on to a third; the file is fsynced at the end. Nothing is looked at on the way.
"""

import multiprocessing
import os
import socket
import time
from pathlib import Path

from book import Book, say
from yardlab import temporary_yard

SIZES = (("1 KiB", 1 << 10, 60_000), ("64 KiB", 1 << 16, 3000), ("1 MiB", (1 << 20) - 64, 250))
PIECE = 1 << 18


def measure(book: Book, rounds: int, share: float = 1.0) -> None:
    with temporary_yard(2) as lab, lab.yard() as yard:
        list(yard.submit("work:size", [b"x"] * 200).values())
        for _ in range(rounds):
            for name, size, usual in SIZES:
                count = max(10, int(usual * share))
                payloads = [os.urandom(size)] * count
                begun = time.perf_counter()
                job = yard.submit("work:size", payloads)
                if list(job.values()) != [size] * count:
                    raise SystemExit(f"payloads: not every task saw its {size} bytes")
                ours = size * count / (time.perf_counter() - begun) / 2**20
                job.delete()
                raw = size * count / raw_copy(size, count, lab.folder / "raw") / 2**20
                book.add("payloads", f"taskyard, {name}", "MiB/s", ours)
                book.add("payloads", f"raw copy, {name}", "MiB/s", raw)
                book.add("payloads", name, "x slower than the raw copy", raw / ours)
                say(f"payloads: {name}: {ours:,.0f} MiB/s, a raw copy {raw:,.0f} MiB/s")


def raw_copy(size: int, count: int, path: Path) -> float:
    """Seconds that the raw copy of so many blocks takes."""
    first, second = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    relay = multiprocessing.Process(target=_relay, args=(first, second.getsockname(), path))
    relay.start()
    block = os.urandom(size)
    ready, done = multiprocessing.Pipe(False)
    sink = multiprocessing.Process(target=_sink, args=(second, size * count, done))
    sink.start()
    with socket.create_connection(first.getsockname()) as source:
        begun = time.perf_counter()
        for _ in range(count):
            source.sendall(block)
    ready.recv()
    relay.join()
    taken = time.perf_counter() - begun
    sink.join()
    path.unlink()
    return taken


def _relay(server: socket.socket, onward: tuple[str, int], path: Path) -> None:
    source, _ = server.accept()
    with socket.create_connection(onward) as target, path.open("wb", buffering=0) as file:
        while data := source.recv(PIECE):
            file.write(data)
            target.sendall(data)
        os.fsync(file.fileno())


def _sink(server: socket.socket, total: int, done: "multiprocessing.connection.Connection") -> None:
    source, _ = server.accept()
    got = 0
    while data := source.recv(PIECE):
        got += len(data)
    done.send(got == total)
