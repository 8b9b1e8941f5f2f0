"""The benchmarks; `make bench`, `make bench-quick` and `make bench-curves` run this."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import throughput  # noqa: E402
from book import Book, say  # noqa: E402

OUTPUT = HERE.parent / "docs/benchmarks"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=",".join(throughput.ALL), help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="what needs nothing installed, in two minutes")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of tasks")
    parser.add_argument("--output", type=Path, help="folder for results.json")
    asked = parser.parse_args()
    if asked.quick:
        asked.peers, asked.share = "yard,tutorial,pool_1,pool_100,yard_tls", 0.7
    book = Book()
    throughput.measure(book, asked.peers.split(","), asked.rounds, asked.share)
    for figure in book.figures:
        say(f"{figure.scenario:12} {figure.side:20} {figure.median:>14,.2f} {figure.unit}"
            f"   ({figure.low:,.2f} to {figure.high:,.2f})")  # fmt: skip
    if asked.output:
        book.save(asked.output / "results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
