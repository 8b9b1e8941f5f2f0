"""How much of the slots' time goes into the function, and when uneven tasks end."""

import random
from collections.abc import Sequence
from heapq import heapify, heapreplace

from book import Book, say
from yardlab import temporary_yard

from taskyard import Yard

EFFICIENCY = (("1 ms", 0.001, 6000), ("10 ms", 0.01, 800))  # name, seconds of a task, tasks
UNEVEN = 600  # tasks, a tenth of which take 100 times as long
SHORT = 0.001
WORKERS = 2

Span = tuple[float, float]  # begun, ended


def measure(book: Book, rounds: int, share: float = 1.0) -> None:
    draw = random.Random(7)
    lengths = [SHORT * (100 if n % 10 == 0 else 1) for n in range(max(50, int(UNEVEN * share)))]
    draw.shuffle(lengths)
    with temporary_yard(WORKERS) as lab, lab.yard() as yard:
        run(yard, "work:square", range(200))
        for _ in range(rounds):
            for name, seconds, tasks in EFFICIENCY:
                for function, how in (("spend", "sleeping"), ("burn", "computing")):
                    spans = run(yard, f"work:{function}", [seconds] * int(tasks * share))
                    found = share_of(spans, WORKERS)
                    book.add("slots", f"{name}, {how}", "% of slot time", found)
                    say(f"slots: {name} {how}: {found:.1f} %")
            spans = run(yard, "work:spend", lengths)
            found = _length(spans) / best(([ended - begun for begun, ended in spans]), WORKERS)
            book.add("uneven", "a tenth takes 100 times as long", "x the best end", found)
            say(f"uneven: {found:.2f} x the best end")


def run(yard: Yard, function: str, inputs: Sequence[float]) -> list[Span]:
    job = yard.submit(function, inputs)
    values: list[Span] = list(job.values())
    job.delete()
    return values


def share_of(spans: list[Span], slots: int) -> float:
    """Per cent of the slots' time, from the first begin to the last end, that was spent in the function."""
    return 100 * sum(ended - begun for begun, ended in spans) / (slots * _length(spans))


def _length(spans: list[Span]) -> float:
    """Seconds from the first begin to the last end."""
    return max(ended for _, ended in spans) - min(begun for begun, _ in spans)


def best(lengths: list[float], slots: int) -> float:
    """Seconds that longest-first takes, which nobody can do who does not know the lengths."""
    loads = [0.0] * slots
    heapify(loads)
    for length in sorted(lengths, reverse=True):
        heapreplace(loads, loads[0] + length)
    return max(loads)
