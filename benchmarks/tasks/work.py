"""The functions that everybody in the benchmarks runs: this yard and its peers."""

import time


def square(n: int) -> int:
    """Next to nothing, so that what is measured is everything else."""
    return n * n


def spend(seconds: float) -> tuple[float, float]:
    """Sleeps; returns when it began and ended, by the machine's monotonic clock."""
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


def burn(seconds: float) -> tuple[float, float]:
    """As `spend`, with a core of its own kept busy."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        pass
    return begun, time.monotonic()


def size(data: bytes) -> int:
    return len(data)
