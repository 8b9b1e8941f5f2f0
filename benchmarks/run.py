"""The benchmarks; `make bench`, `make bench-quick` and `make bench-curves` run this."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "tasks")]

import curves  # noqa: E402
import report  # noqa: E402
from book import Book, machine, say  # noqa: E402
from goals import ratio, verdicts  # noqa: E402
from rows import backlog, bridge, disk, idle, payloads, plain, slots, start, throughput  # noqa: E402

QUICK = ["throughput", "slots", "disk", "start"]
QUICK_PEERS = ["yard", "tutorial", "pool_100"]
SCENARIOS = {
    "throughput": lambda book, asked: throughput.measure(book, asked.peers, asked.rounds, asked.share),
    "bridge": lambda book, asked: bridge.measure(book, asked.rounds, asked.share),
    "slots": lambda book, asked: slots.measure(book, asked.rounds, asked.share),
    "plain": lambda book, asked: plain.measure(book, asked.rounds),
    "payloads": lambda book, asked: payloads.measure(book, asked.rounds, asked.share),
    "disk": lambda book, asked: disk.measure(book, asked.share),
    "idle": lambda book, asked: idle.measure(book),
    "backlog": lambda book, asked: backlog.measure(book, asked.backlog),
    "start": lambda book, asked: start.measure(book, asked.rounds),
}


def main() -> int:
    asked = _asked()
    if asked.curves:
        curves.measure(asked.output, asked.only, asked.most)
    else:
        book = Book()
        for name in asked.only or (QUICK if asked.quick else SCENARIOS):
            try:
                SCENARIOS[name](book, asked)
            except (SystemExit, Exception) as fault:  # noqa: BLE001 - the others are measured all the same
                book.skip(f"{name}: {(str(fault).splitlines() or [repr(fault)])[-1]}")
            if asked.output:
                book.save(asked.output / "results.json")
        _print(book)
    if asked.output:
        _draw(asked.output)
        if (asked.output / "results.json").exists():
            report.write(*Book.load(asked.output / "results.json"), asked.output)
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", type=_words, help=f"of {', '.join(SCENARIOS)}; curves: {', '.join(curves.CURVES)}"
    )
    parser.add_argument("--peers", type=_words, help=f"of the throughput: {', '.join(throughput.ALL)}")
    parser.add_argument("--rounds", type=int, help="how often each is measured; 3, with --quick 1")
    parser.add_argument("--share", type=float, help="of the usual number of tasks; 1, with --quick 0.5")
    parser.add_argument("--backlog", type=int, default=backlog.SIZES[-1], help="tasks, at most")
    parser.add_argument("--quick", action="store_true", help="what needs nothing installed, in two minutes")
    parser.add_argument("--curves", action="store_true", help="curves instead of points")
    parser.add_argument("--most", type=float, default=float("inf"), help="leave out a curve's points beyond")
    parser.add_argument("--output", type=Path, help="folder for JSON, the page and pictures")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    asked.share = asked.share or (0.5 if asked.quick else 1.0)
    asked.peers = asked.peers or (QUICK_PEERS if asked.quick else [*throughput.ALL])
    return asked


def _words(text: str) -> list[str]:
    return text.split(",")


def _print(book: Book) -> None:
    for figure in book.figures:
        spread = f"  ({figure.low:,.2f} to {figure.high:,.2f})" if len(figure.values) > 1 else ""
        print(f"{figure.scenario:11} {figure.side:34} {figure.median:>14,.2f} {figure.unit}{spread}")
    for verdict in verdicts(book):
        if verdict.met is not None:
            what, word = f"{verdict.what or '  and':40} {verdict.goal:32}", verdict.word.strip("*")
            print(f"{what} {verdict.measured:34} {word}")
    found = ratio(book, "throughput", "tasks/s", "taskyard", "tutorial pattern")
    if found:
        print(f"{found} the tutorial pattern, on {machine()['cores']} cores")


def _draw(folder: Path) -> None:
    if not throughput.BENCH_PYTHON.exists():
        say("no pictures: matplotlib is not installed, `make bench` does that")
        return
    subprocess.run([throughput.BENCH_PYTHON, HERE / "plots.py", folder], check=True)


if __name__ == "__main__":
    sys.exit(main())
