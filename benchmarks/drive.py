"""Runs one round of one peer: `python benchmarks/drive.py PEER [--tasks N] ...` prints one JSON object.

    {"tasks", "seconds", "rate", "singles": [seconds, ...]}

Fails unless every result is right. In a process of its own, so that no peer can leave anything
behind in another, and so that those which have to be installed need not share an environment
with those which have not.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "tasks"), str(HERE.parent / "scripts"), str(HERE.parent / "core")]

from work import square  # noqa: E402

from taskyard_ctl.measuring import rate, singles  # noqa: E402

WARM = 200  # tasks, so that everything has connected and nothing is imported later


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks", type=int, help="instead of the peer's own number")
    parser.add_argument("--share", type=float, default=1.0, help="of the peer's own number")
    parser.add_argument("--singles", type=int, default=0, help="single tasks, one after another")
    asked = parser.parse_args()
    peer = importlib.import_module(f"peers.{asked.peer}")
    tasks = asked.tasks or max(1, int(peer.TASKS * asked.share))
    with tempfile.TemporaryDirectory() as folder, peer.running(asked.workers, Path(folder)) as side:
        check(side.many(range(WARM)), WARM)
        found, results = rate(side, range(tasks))
        check(results, tasks)
        taken = singles(side, asked.singles)
        if asked.singles:
            check([side.one(12)], 1, first=12)
    figures = {"tasks": tasks, "seconds": tasks / found, "rate": found, "singles": taken}
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def check(results: list[int], count: int, first: int = 0) -> None:
    """Fail unless these are the squares of first..first+count, in any order."""
    expected = [square(n) for n in range(first, first + count)]
    if results != expected and sorted(results) != expected:
        raise SystemExit(f"drive: {len(results)} results, and they are not the {count} expected")


if __name__ == "__main__":
    sys.exit(main())
