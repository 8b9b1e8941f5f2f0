"""Exponential backoff with jitter and a cap: for retries of tasks and for reconnecting."""

from collections.abc import Iterator


def delay(attempt: int, draw: float, *, base: float = 1.0, cap: float = 300.0) -> float:
    """Seconds to wait after the `attempt`-th failure (1, 2, ...).

    `draw` is a random number in [0, 1), an argument so that this stays pure. The
    wait is between half of and the whole of base * 2**(attempt - 1), at most `cap`:
    half is kept so that a retry never comes at once.
    """
    whole: float = min(cap, base * 2.0 ** min(attempt - 1, 60))
    return whole * (0.5 + draw / 2)


def delays(draws: Iterator[float], *, base: float = 0.05, cap: float = 5.0) -> Iterator[float]:
    """Endless waits between attempts to connect, quick at first."""
    for attempt, draw in enumerate(draws, start=1):
        yield delay(attempt, draw, base=base, cap=cap)
