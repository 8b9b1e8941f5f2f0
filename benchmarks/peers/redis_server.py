"""A Redis of our own for the peers that need one, keeping what it is given as its documentation advises."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNPACKED = Path(__file__).resolve().parent.parent / ".venv/redis"  # by `make bench`, where none is installed
KEEPS = "in Redis, fsynced every second"
PATIENCE = 10.0


def command() -> list[str]:
    """What starts a Redis here; empty if there is none."""
    if installed := shutil.which("redis-server"):
        return [installed]
    server = UNPACKED / "usr/bin/redis-server"
    loader = next(UNPACKED.glob("usr/lib*/**/ld-linux*"), None)
    if not server.exists() or not loader:
        return []
    libraries = sorted({str(library.parent) for library in UNPACKED.glob("usr/lib/**/lib*.so*")})
    return [str(loader), "--library-path", ":".join(libraries), str(server)]


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start one and give its URL; it is also in BENCH_REDIS, for the peers' workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--appendonly", "yes", "--appendfsync", "everysec"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        os.environ["BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
        yield os.environ["BENCH_REDIS"]
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        if time.monotonic() > end:
            raise SystemExit("redis: it did not start")
        time.sleep(0.02)
