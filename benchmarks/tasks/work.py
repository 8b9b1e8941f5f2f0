"""The functions that everybody in the benchmarks runs: this yard and its peers."""

import time


def square(n: int) -> int:
    """Next to nothing, so that what is measured is everything else."""
    return n * n


def spend(seconds: float) -> float:
    """Sleeps, and returns how long that took."""
    begun = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begun


def size(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data
