"""The benchmarks; `make bench`, `make bench-quick` and `make bench-curves` run this."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from book import Book, say  # noqa: E402
from scenarios import backlog, disk, idle, payloads, plain, slots, start, throughput  # noqa: E402

QUICK_PEERS = ["yard", "tutorial", "pool_1", "pool_100", "yard_tls"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="scenarios, separated by commas: " + ", ".join(SCENARIOS))
    parser.add_argument(
        "--peers", help="of the throughput, separated by commas: " + ", ".join(throughput.ALL)
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of tasks")
    parser.add_argument("--backlog", type=int, default=backlog.SIZES[-1], help="tasks, at most")
    parser.add_argument("--quick", action="store_true", help="what needs nothing installed, in two minutes")
    parser.add_argument("--output", type=Path, help="folder for results.json")
    asked = parser.parse_args()
    if asked.quick:
        asked.share, asked.backlog = asked.share / 2, min(asked.backlog, 1_000_000)
    asked.peers = asked.peers.split(",") if asked.peers else QUICK_PEERS if asked.quick else [*throughput.ALL]
    book = Book()
    for name in asked.only.split(",") if asked.only else SCENARIOS:
        try:
            SCENARIOS[name](book, asked)
        except (SystemExit, Exception) as fault:  # noqa: BLE001 - the others are to be measured all the same
            book.skip(f"{name}: {fault!r}")
        if asked.output:
            book.save(asked.output / "results.json")
    for figure in book.figures:
        say(f"{figure.scenario:12} {figure.side:36} {figure.median:>14,.2f} {figure.unit}"
            f"   ({figure.low:,.2f} to {figure.high:,.2f})")  # fmt: skip
    return 0


SCENARIOS = {
    "throughput": lambda book, asked: throughput.measure(book, asked.peers, asked.rounds, asked.share),
    "slots": lambda book, asked: slots.measure(book, asked.rounds, asked.share),
    "plain": lambda book, asked: plain.measure(book, asked.rounds),
    "payloads": lambda book, asked: payloads.measure(book, asked.rounds, asked.share),
    "disk": lambda book, asked: disk.measure(book, asked.share),
    "idle": lambda book, asked: idle.measure(book),
    "backlog": lambda book, asked: backlog.measure(book, asked.backlog),
    "start": lambda book, asked: start.measure(book, asked.rounds),
}


if __name__ == "__main__":
    sys.exit(main())
