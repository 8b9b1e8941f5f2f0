"""No-op tasks, and one at a time: this yard beside its peers, round by round in turn."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from book import Book, say
from peers import redis_server

HERE = Path(__file__).resolve().parent.parent
BENCH_PYTHON = HERE / ".venv/bin/python"
STDLIB = {"tutorial": "tutorial pattern", "pool_1": "Pool, chunk 1", "pool_100": "Pool, chunk 100",
          "process_pool": "ProcessPoolExecutor"}  # fmt: skip
OURS = {"yard": "taskyard", "yard_tls": "taskyard, TLS"}
NEEDS_REDIS = {
    "huey_redis": "Huey",
    "celery_prefork": "Celery",
    "dramatiq_redis": "Dramatiq",
    "rq_simple": "RQ",
}
INSTALLED = {"ray_local": "Ray", "dask_local": "Dask", "ipyparallel_lbv": "IPython Parallel", **NEEDS_REDIS}
ALL = {**OURS, **STDLIB, **INSTALLED}
DURABLE = ("taskyard", "Huey", "Celery", "Dramatiq", "RQ")
SINGLES = 500
TIMEOUT = 180  # seconds that one round of one peer may take


def measure(book: Book, peers: list[str], rounds: int, share: float = 1.0, singles: int = SINGLES) -> None:
    """Each round runs every peer once, in turn; a peer that fails is named and left out from then on."""
    peers = [peer for peer in peers if _there(book, peer)]
    for number in range(rounds):
        for peer in list(peers):
            found = _drive(book, peer, share, singles)
            if found is None:
                peers.remove(peer)
                continue
            side = ALL[peer]
            book.add("throughput", side, "tasks/s", found["rate"], f"{found['tasks']:,} tasks a round")
            taken = sorted(found["singles"])
            p50, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
            book.add("single", side, "ms p50", p50 * 1000, f"{len(taken)} tasks a round")
            book.add("single", side, "ms p99", p99 * 1000)
            say(f"round {number + 1}: {side}: {found['rate']:,.0f} tasks/s; one task {p50 * 1000:.2f} ms,"
                f" p99 {p99 * 1000:.2f} ms; load {os.getloadavg()[0]:.1f}")  # fmt: skip


def _there(book: Book, peer: str) -> bool:
    if peer in INSTALLED and not BENCH_PYTHON.exists():
        book.skip(f"{ALL[peer]}: it is not installed, `make bench` does that")
        return False
    if peer in NEEDS_REDIS and not redis_server.command():
        book.skip(f"{ALL[peer]}: there is no redis-server here, and Debian's could not be unpacked")
        return False
    return True


def _drive(book: Book, peer: str, share: float, singles: int) -> dict[str, Any] | None:
    python = BENCH_PYTHON if peer in INSTALLED else sys.executable
    words = [str(python), str(HERE / "drive.py"), peer, "--share", str(share), "--singles", str(singles)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        book.skip(f"{ALL[peer]}: it took more than {TIMEOUT} s")
        return None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        book.skip(f"{ALL[peer]}: it failed: {last[0]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
