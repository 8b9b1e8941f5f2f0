"""The goals, and what was measured beside each: met, not met, or not measured."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from book import Book
from rows.throughput import DURABLE

RATE, P50, P99 = "tasks/s", "ms p50", "ms p99"


@dataclass(frozen=True)
class Goal:
    """`judge` gives (what was measured, for people; whether the goal is met), None where nothing was."""

    what: str
    goal: str
    judge: "Judge"


@dataclass(frozen=True)
class Verdict:
    what: str
    goal: str
    measured: str
    met: bool | None  # None: not measured

    @property
    def word(self) -> str:
        return {True: "met", False: "**not met**", None: "not measured"}[self.met]


def verdicts(book: Book) -> list[Verdict]:
    found = []
    for goal in GOALS:
        judged = goal.judge(book)
        measured, met = judged if judged else ("", None)
        found.append(Verdict(goal.what, goal.goal, measured, met))
    return found


@dataclass(frozen=True)
class Ratio:
    """Ours divided by theirs, a round at a time, so that a load that came and went weighs little."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        spread = f" ({min(self.rounds):.3g} to {max(self.rounds):.3g})" if len(self.rounds) > 1 else ""
        return f"{self.median:.3g}x{spread}"


def ratio(
    book: Book, scenario: str, unit: str, ours: str, theirs: str, unit_of_theirs: str = ""
) -> Ratio | None:
    """None where one of the two is missing."""
    a = book.find(scenario, ours, unit)
    b = book.find(scenario, theirs, unit_of_theirs or unit)
    if not a or not b:
        return None
    return Ratio([mine / other for mine, other in zip(a.values, b.values, strict=False)])


Judge = Callable[[Book], tuple[str, bool] | None]


def _times(
    scenario: str,
    unit: str,
    ours: str,
    theirs: str,
    *,
    least: float = 0.0,
    most: float = float("inf"),
    of: str = "",
    where: str = "",
) -> Judge:
    """The median of the ratios is at least and at most so much; `of` is the unit of theirs."""

    def judge(book: Book) -> tuple[str, bool] | None:
        found = ratio(book, scenario, unit, ours, theirs, of)
        return (f"{found}{where}", least <= found.median <= most) if found else None

    return judge


def _under_durable(book: Book) -> tuple[str, bool] | None:
    ours = book.median("single", "taskyard", P50)
    peers = {side: book.median("single", side, P50) for side in DURABLE[1:]}
    there = {side: taken for side, taken in peers.items() if taken}
    if not ours or not there:
        return None
    best = min(there, key=there.__getitem__)
    return f"{ours:.2f} ms; the quickest of them, {best}, {there[best]:.2f} ms", ours < there[best]


def _at_least(scenario: str, side: str, unit: str, least: float) -> Judge:
    def judge(book: Book) -> tuple[str, bool] | None:
        found = book.median(scenario, side, unit)
        return None if found is None else (f"{found:,.4g} {unit}", found >= least)

    return judge


def _at_most(scenario: str, side: str, unit: str, most: float) -> Judge:
    def judge(book: Book) -> tuple[str, bool] | None:
        found = book.median(scenario, side, unit)
        return None if found is None else (f"{found:,.4g} {unit}", found <= most)

    return judge


def _backlog_rate(book: Book) -> tuple[str, bool] | None:
    sizes = [figure for figure in book.of("backlog") if figure.unit == "submitted/s"]
    if len(sizes) < 2:
        return None
    found = sizes[-1].median / sizes[0].median
    return f"{found:.2f}x, {sizes[-1].side} beside {sizes[0].side}", found >= 0.8


def _restart(book: Book) -> tuple[str, bool] | None:
    found = [figure for figure in book.of("backlog") if figure.unit == "s to restart"]
    return (f"{found[0].median:.2f} s with {found[0].side}", found[0].median <= 10) if found else None


def _disk(book: Book) -> tuple[str, bool] | None:
    found = [figure for figure in book.of("disk") if figure.unit == "bytes a task"]
    return (f"{found[0].median:.1f} bytes", found[0].median <= 40) if found else None


YARD, TUTORIAL = "taskyard", "tutorial pattern"

GOALS = [
    Goal(
        "no-op tasks, 1 client, 2 workers", ">= 100x the tutorial pattern",
        _times("throughput", RATE, YARD, TUTORIAL, least=100),
    ),
    Goal(
        "", ">= 0.25x Pool with chunks of 100",
        _times("throughput", RATE, YARD, "Pool, chunk 100", least=0.25),
    ),
    Goal(
        "the same over TLS", ">= 0.7x of the plain figure",
        _times("throughput", RATE, "taskyard, TLS", YARD, least=0.7, where=", on loopback"),
    ),
    Goal(
        "the same, containers on one bridge", ">= 0.7x of the plain figure",
        _times("bridge", RATE, "containers, TLS", "containers", least=0.7),
    ),
    Goal(
        "one task, round trip, p50", "<= 4x the tutorial's p50",
        _times("single", P50, YARD, TUTORIAL, most=4),
    ),
    Goal(
        "one task, round trip, p99", "<= 6x the tutorial's p50",
        _times("single", P99, YARD, TUTORIAL, most=6, of=P50),
    ),
    Goal("", "p50 under every durable peer", _under_durable),
    Goal(
        "tasks of 1 ms on 2 slots", ">= 97 % of the slots' time",
        _at_least("slots", "1 ms, sleeping", "% of slot time", 97),
    ),
    Goal("tasks of 10 ms on 2 slots", ">= 99 %", _at_least("slots", "10 ms, sleeping", "% of slot time", 99)),
    Goal(
        "uneven tasks (a tenth takes 100x)", "<= 1.1x the best end",
        _at_most("uneven", "a tenth takes 100 times as long", "x the best end", 1.1),
    ),
    Goal(
        "backlog, the master's memory", "<= 250 MiB all the way",
        _at_most("backlog", "all the way", "MiB RSS at most", 250),
    ),
    Goal("backlog, submit rate when full", ">= 0.8x that when empty", _backlog_rate),
    Goal(
        "first lease of a large submission", "<= 1 s",
        _at_most("backlog", "first of a large submission", "s to first result", 1),
    ),
    Goal("restart with the backlog", "<= 10 s", _restart),
    Goal("2,000 idle workers, memory", "<= 16 KiB each", _at_most("idle", "2,000 workers", "KiB each", 16)),
    Goal("2,000 idle workers, joining", ">= 1,000/s", _at_least("idle", "2,000 workers", "joined/s", 1000)),
    Goal(
        "2,000 idle workers, after a restart", "all back in <= 15 s",
        _at_most("idle", "2,000 workers", "s until all are back", 15),
    ),
    *(
        Goal(
            f"payloads of {size}", "<= 2x a raw copy and one write",
            _at_most("payloads", size, "x slower than the raw copy", 2),
        )
        for size in ("1 KiB", "64 KiB", "1 MiB")
    ),
    Goal("journal on disk, a no-op task", "<= 40 bytes", _disk),
    Goal(
        "journal, after deletion", "given back (>= 90 %)",
        _at_least("disk", "after deletion", "% given back", 90),
    ),
    Goal(
        "plain dialect, 20 connections", ">= 1x the tutorial master",
        _times("plain", "rounds/s", "taskyard, 20 connections", "tutorial master, 20 connections", least=1),
    ),
    Goal(
        "plain dialect, connects", ">= 40x the tutorial master",
        _times("plain", "connects/s", YARD, "tutorial master", least=40),
    ),
    Goal("`taskyard --help`", "<= 150 ms", _at_most("start", "taskyard --help", "ms", 150)),
    Goal("`up --local` to first result", "<= 2 s", _at_most("start", "up --local to first result", "s", 2)),
]  # fmt: skip
