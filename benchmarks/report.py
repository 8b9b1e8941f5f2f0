"""docs/benchmarks/README.md, from what was measured: `python benchmarks/report.py FOLDER` writes it anew."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "tasks")]

import curves  # noqa: E402
from book import Book, Figure  # noqa: E402
from goals import ratio, verdicts  # noqa: E402
from rows.throughput import ALL  # noqa: E402

TITLES = {
    "slots": "Time of the slots that goes into the function, two workers",
    "uneven": "Uneven tasks, two workers",
    "bridge": "No-op tasks; master, two workers and client in containers on one bridge",
    "plain": "Unmodified stdlib clients: rounds of put, get, put, get",
    "payloads": "Large inputs, two workers, beside the same bytes through raw sockets and onto the disk",
    "disk": "Journal",
    "idle": "Idle workers: connections only, all from one process",
    "backlog": "Backlog",
    "start": "Start",
}


def write(book: Book, machine: dict[str, Any], folder: Path) -> None:
    found = curves.load(folder)
    lines = [
        *_head(book, machine),
        *_goals(book),
        *_peers(book),
        *_others(book),
        *_curves(found, folder),
        *_foot(book),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _head(book: Book, machine: dict[str, Any]) -> Iterator[str]:
    loads = [load for figure in book.figures for load in figure.loads]
    day = time.strftime("%Y-%m-%d", time.gmtime(book.begun))
    yield from (
        "# Benchmarks",
        "",
        "`make bench` writes this page, `results.json` and the pictures, and `make bench-curves` the curves.",
        "`make bench-quick` prints the main figures in two minutes; `taskyard bench` measures your own yard.",
        "",
        f"Measured on {day} with taskyard {machine['taskyard']}, Python {machine['python']},"
        f" on {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']:g} GiB,"
        f" Linux {machine['kernel']}.",
    )  # fmt: skip
    if loads:
        yield f"The machine's load (one minute's average) was {min(loads):.1f} to {max(loads):.1f} meanwhile."
        yield "The runner makes some of it; other work on the machine makes figures worse, and not all alike."


def _goals(book: Book) -> Iterator[str]:
    judged = verdicts(book)
    met, failed = (sum(verdict.met is kind for verdict in judged) for kind in (True, False))
    yield from (
        "",
        "## Goals",
        "",
        f"{met} are met, {failed} are not, {len(judged) - met - failed} were not measured."
        " In brackets the least and the most of the rounds.",
        "",
    )
    yield from ("| what | goal | measured | |", "|---|---|---|---|")
    for verdict in judged:
        yield f"| {verdict.what or '〃'} | {verdict.goal} | {verdict.measured} | {verdict.word} |"


def _peers(book: Book) -> Iterator[str]:
    rates = sorted(book.of("throughput"), key=lambda figure: -figure.median)
    if not rates:
        return
    yield from (
        "", "## No-op tasks, and one at a time", "",
        "One client, two workers; `n * n` for all; every result is checked. Peers take turns, each round in"
        " processes of its own. Median, and least to most; ratios are medians of the rounds'.", "",
        "| | tasks/s | beside the tutorial | one task, ms p50 | ms p99 | keeps |",
        "|---|---|---|---|---|---|",
    )  # fmt: skip
    modules = {side: importlib.import_module(f"peers.{peer}") for peer, side in ALL.items()}
    for figure in rates:
        found = ratio(book, "throughput", "tasks/s", figure.side, ALL["tutorial"])
        beside = f"{found.median:.3g}x" if found else ""
        p50, p99 = (book.find("single", figure.side, unit) for unit in ("ms p50", "ms p99"))
        yield (
            f"| {figure.side} | {_spread(figure)} | {beside} | {_spread(p50)} | {_spread(p99)}"
            f" | {modules[figure.side].KEEPS} |"
        )
    yield from (
        "",
        "![tasks a second by peer](throughput.svg)",
        "",
        *_losses(book, rates),
        "",
        "How each is set up:",
        "",
    )
    for figure in rates:
        yield f"- **{figure.side}**: {(modules[figure.side].__doc__ or '').strip()} {figure.note}."


def _losses(book: Book, rates: list[Figure]) -> Iterator[str]:
    """Who is faster than this yard, said before anybody has to look for it."""
    ours = book.find("throughput", ALL["yard"], "tasks/s")
    single = book.find("single", ALL["yard"], "ms p50")
    if not ours or not single:
        return
    more = [
        f"{f.side} ({f.median / ours.median:.2g}x)"
        for f in rates
        if f.median > ours.median and not _is_ours(f)
    ]
    quicker = [
        f"{f.side} ({single.median / f.median:.2g}x)"
        for f in book.of("single")
        if f.unit == "ms p50" and f.median < single.median and not _is_ours(f)
    ]
    yield f"Where this yard loses: more tasks a second, {', '.join(more) or 'nobody'};"
    yield f"a quicker single task, {', '.join(quicker) or 'nobody'}."


def _is_ours(figure: Figure) -> bool:
    return figure.side in (ALL["yard"], ALL["yard_tls"])


def _others(book: Book) -> Iterator[str]:
    for scenario, title in TITLES.items():
        figures = book.of(scenario)
        if figures:
            yield from ("", f"## {title}", "", "| | measured | | |", "|---|---|---|---|")
            for figure in figures:
                yield f"| {figure.side} | {_spread(figure)} | {figure.unit} | {figure.note} |"
        if figures and scenario == "backlog":
            yield from ("", "![memory and submit rate by backlog](backlog.svg)")


def _curves(found: list[curves.Curve], folder: Path) -> Iterator[str]:
    if not found:
        return
    yield from ("", "## Curves", "", "From `make bench-curves`; its points are in `curves.json`.")
    for curve in found:
        yield from (
            "",
            f"### {curve.title}",
            "",
            f"{curve.expected} Load {min(curve.loads):.1f} to {max(curve.loads):.1f}.",
            "",
        )
        yield f"| {curve.x} | {' | '.join(curve.units)} |"
        yield "|---|" + "---|" * len(curve.units)
        for point in curve.points:
            yield f"| {_number(point[0])} | {' | '.join(_number(value) for value in point[1:])} |"
        if curve.note:
            yield from ("", f"It ends there: {curve.note}.")
        yield from ("", f"![{curve.title}](curve-{curve.name}.svg)")


def _foot(book: Book) -> Iterator[str]:
    if book.skipped:
        yield from ("", "## Left out", "")
        yield from (f"- {what}" for what in book.skipped)


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if len(figure.values) < 2:
        return _number(figure.median)
    return f"{_number(figure.median)} ({_number(figure.low)} to {_number(figure.high)})"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    write(*Book.load(place / "results.json"), place)
