"""Counted costs that do not depend on the machine, kept in guard.json: `make bench-guard`.

A master and a client are given 100,000 no-op tasks in rounds of 1,000, and 200 tasks one at a time.
How a worker cuts 1,000 tasks into leases and batches of outcomes depends on how quick the machine is
at that moment; so in the large rounds the guard is the worker, and takes all, then settles all. The
single tasks run in a real one. A round begins when all is quiet and ends when it is so again, and the
cheapest round counts: a busy machine makes them dearer, never cheaper. What is counted, from outside:

    frames       messages both ways, heartbeats left out
    wire bytes   in these messages
    commits      of the journal, as /metrics has them
    written      bytes that the master wrote, to the journal and to sockets
    calls        in which the master read or wrote anything

`--renew` writes guard.json anew, in the commit that makes something dearer. `--syscalls` counts all
system calls of the master with strace instead; these do depend on how busy the machine is.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wiretap import Wiretap
from yardlab import BenchLab, eventually, free_port

import taskyard
from taskyard import Yard, batch
from taskyard import messages as m
from taskyard.connection import Connection
from taskyard.pending import Pending
from taskyard.values import dumps, loads

FILE = Path(__file__).resolve().parent / "guard.json"
GROWTH = 1.1  # times what the file says, beyond which it is a failure
TOKEN = "t" * 32
CALM = 0.3  # seconds without a frame
LARGE, LARGE_ROUNDS, SINGLE_ROUNDS = 1000, 100, 200
PERIODIC = {"Beat", "Beaten"}
PAIRS = (("Chunk", "Accepted"), ("Lease", "Leased"), ("Settle", "Settled"), ("Results", "Rows"))

FUNCTION = "work:square"
Counts = dict[str, int]  # by what is counted
Costs = dict[str, Counts]  # by kind of round


@dataclass
class Rig:
    """A yard whose wire is tapped."""

    lab: BenchLab
    tap: Wiretap
    web: int  # port of the metrics

    def costs(self) -> dict[str, int]:
        """All counters as they stand, but for the commits."""
        assert self.lab.master is not None
        lines = Path(f"/proc/{self.lab.master.pid}/io").read_text().splitlines()
        io = {name: int(value) for name, value in (line.split(": ") for line in lines)}
        counts = self.tap.counts
        return {
            "frames": sum(count for name, count in counts.frames.items() if name not in PERIODIC),
            "wire bytes": sum(size for name, size in counts.sizes.items() if name not in PERIODIC),
            "written": io["wchar"],
            "calls": io["syscr"] + io["syscw"],
        }

    def commits(self) -> int:
        """Asking costs the master calls and bytes."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request) as page:
            found = re.search(r"^taskyard_journal_commits_total (\S+)", page.read().decode(), re.M)
        if not found:
            raise SystemExit("guard: /metrics has no taskyard_journal_commits_total")
        return int(float(found[1]))

    def open(self) -> Counts:
        """How many requests of each sort have no answer; some wait for tasks and for results always."""
        frames = self.tap.counts.frames
        return {ask: frames[ask] - frames[answer] for ask, answer in PAIRS}

    def is_calm(self, calm: Counts) -> bool:
        return self.open() == calm

    def calm(self) -> Counts:
        """`open`, once nothing has gone to and fro for a moment."""
        end = time.monotonic() + CALM
        seen = self.tap.counts.frames.total()
        while time.monotonic() < end:
            time.sleep(CALM / 10)
            if (now := self.tap.counts.frames.total()) != seen:
                seen, end = now, time.monotonic() + CALM
        return self.open()


@contextmanager
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory() as folder:
        web = free_port()
        lab = BenchLab(Path(folder), web=f"127.0.0.1:{web}", web_token=TOKEN)
        try:
            lab.start_master()
            tap = Wiretap(("127.0.0.1", lab.port))
            lab.environ["TASKYARD_ADDRESS"] = f"127.0.0.1:{tap.port}"
            yield Rig(lab, tap, web)
            tap.close()
        finally:
            lab.stop()


class LockstepWorker:
    """Takes all tasks that there are, then settles them in one request."""

    def __init__(self, lab: BenchLab) -> None:
        hello = m.Hello(0, "worker", "guard", "guard", 1, "guard", taskyard.__version__, "3", slots=1,
                        functions=[FUNCTION], digest="guard")  # fmt: skip
        self._connection = Connection(
            lab.environ["TASKYARD_ADDRESS"], lab.environ["TASKYARD_AUTHKEY"].encode(), lambda: hello
        )
        self._connection.start()
        self._asked = self._ask()

    def work(self, tasks: int) -> None:
        outcomes: list[m.Outcome] = []
        while sum(outcome.count for outcome in outcomes) < tasks:
            reply = self._asked.wait()
            assert isinstance(reply, m.Leased), reply
            outcomes += map(_squares, reply.grants)
            self._asked = self._ask()
        self._connection.ask(m.Settle(0, outcomes), m.Settled)

    def _ask(self) -> Pending:
        return self._connection.send(m.Lease(0, LARGE, {FUNCTION: LARGE}))

    def close(self) -> None:
        self._connection.close()


def _squares(grant: m.Grant) -> m.Outcome:
    values = [dumps(loads(payload) ** 2) for payload in batch.unpack(grant.block, grant.count)]
    return m.Outcome(
        grant.lease, grant.job, grant.first, grant.count, "completed", 1.7e9, 0.001, batch.pack(values)
    )


def rounds(rig: Rig, yard: Yard, tasks: int, count: int, work: Callable[[int], None]) -> Iterator[Counts]:
    """What each round costs; `work` is called when so many tasks have been submitted."""
    payloads = [dumps(n) for n in range(1000, 1000 + tasks)]
    line = yard.open(FUNCTION)
    rows = yard.job(line.job).rows(follow=True)
    calm: Counts | None = None
    for _ in range(count + 1):  # the first one learns the pace, and asks for results
        commits, before = rig.commits(), rig.costs()
        line.extend(payloads)
        line.flush()
        work(tasks)
        left = tasks
        while left:
            left -= next(rows).count
        if calm is None:
            calm = rig.calm()
        eventually(partial(rig.is_calm, calm), "every request has its answer")
        after = rig.costs()
        yield {name: after[name] - before[name] for name in after} | {"commits": rig.commits() - commits}
    del rows  # its request for more is not waited for
    line.close()
    yard.delete(line.job)


def kinds(rig: Rig, yard: Yard) -> Iterator[tuple[str, Iterator[Counts]]]:
    """The kinds of rounds, each with its costs, to be used up one after another."""
    with closing(LockstepWorker(rig.lab)) as worker:
        yield "round of 1,000 tasks", rounds(rig, yard, LARGE, LARGE_ROUNDS, worker.work)
    rig.lab.start_workers(1)
    yield "single task", rounds(rig, yard, 1, SINGLE_ROUNDS, lambda tasks: None)


def count() -> Costs:
    """The cheapest round of each kind."""
    found = {}
    with rig() as one, one.lab.yard() as yard:
        for kind, costs in kinds(one, yard):
            _, *all_of_them = costs
            found[kind] = {name: min(each[name] for each in all_of_them) for name in all_of_them[0]}
    return found


def grown(found: Costs, kept: Costs) -> list[str]:
    """What costs more than the file allows, for people."""
    lines = []
    for kind, costs in found.items():
        for name, value in costs.items():
            most = kept.get(kind, {}).get(name, 0)
            if value > GROWTH * most:
                lines.append(f"{kind}: {name}: {value:,}, and {most:,} in {FILE.name}")
    return lines


def syscalls(rig: Rig, yard: Yard) -> Counts:
    """System calls of the master for a round of each kind, on average, by strace."""
    assert rig.lab.master is not None
    found = {}
    for kind, costs in kinds(rig, yard):
        with tempfile.NamedTemporaryFile() as table:
            words = ["strace", "-c", "-f", "-o", table.name, "-p", str(rig.lab.master.pid)]
            strace = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
            assert strace.stderr is not None
            if "attached" not in strace.stderr.readline():
                raise SystemExit("guard: strace may not attach here")
            number = sum(1 for _ in costs)
            strace.send_signal(signal.SIGINT)
            strace.communicate()
            found[kind] = sum(_calls(Path(table.name).read_text())) // number
    return found


def _calls(table: str) -> Iterator[int]:
    """The column `calls` of what strace -c prints: % time, seconds, usecs/call, calls, errors, name."""
    for line in table.splitlines():
        words = line.split()
        if len(words) > 4 and words[3].isdigit() and words[-1] != "total":
            yield int(words[3])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--renew", action="store_true", help="write guard.json")
    parser.add_argument(
        "--syscalls", action="store_true", help="count system calls with strace, and print them"
    )
    asked = parser.parse_args()
    if asked.syscalls:
        if not shutil.which("strace"):
            print("guard: skipped: there is no strace here (Debian's package strace)", file=sys.stderr)
            return 0
        with rig() as one, one.lab.yard() as yard:
            for kind, calls in syscalls(one, yard).items():
                print(f"{kind:24}{calls:>10,} system calls of the master")
        return 0
    found = count()
    kept: Costs = json.loads(FILE.read_text()) if FILE.exists() else {}
    for kind, costs in found.items():
        for name, value in costs.items():
            print(f"{kind:24}{name:12}{value:>10,}   kept {kept.get(kind, {}).get(name, 0):>10,}")
    if asked.renew:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    dearer = grown(found, kept)
    for line in dearer:
        print(f"guard: {line}", file=sys.stderr)
    if dearer:
        print("guard: if that is meant: make bench-guard ARGS=--renew, in the same commit", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
