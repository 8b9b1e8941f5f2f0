"""The oracle: its own log of what was tried and what was answered, and what must be true in the end.

The log is a file that this side writes and syncs: before a range of tasks is submitted (*tried*),
after the master has answered for it (*accepted*), and whenever a recorded outcome was read (*read*).
Executions are in a file of their own, which the task function itself writes. After the yard has come to
rest `check` compares these with one complete reading of the results:

I1  what was accepted has ended exactly once
I2  one recorded outcome a task and round
I3  nothing is there that was not tried, and every result is that of its own task
I4  an outcome that was once read is there for good, and the same
I5  what was tried without an answer is there once or not at all
I6  a task that completed was run; one that nothing disturbed was run once
"""

import json
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taskyard.messages import JobStatus, Row

MOST = 20  # violations that are named; the rest is counted
Ended = dict[int, tuple[str, Any]]  # by index: state, and result where it completed


class Log:
    """An append-only file of JSON lines; `tried` and `accepted` are on disk when they return.

    Safe for use by many threads. What is said after `close` is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()  # or a late thread may write to whatever has the number by then

    def tried(self, first: int, count: int) -> None:
        """These tasks are about to be submitted."""
        self._write({"tried": [first, count]}, sync=True)

    def accepted(self, upto: int) -> None:
        """The master has answered for all tasks below `upto`."""
        self._write({"accepted": upto}, sync=True)

    def read(self, row: Row) -> None:
        """An outcome was read while things went on."""
        self._write({"read": fingerprint(row)}, sync=False)

    def _write(self, entry: dict[str, Any], sync: bool) -> None:
        with self._lock:
            if self._fd < 0:
                return
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
            if sync:
                os.fsync(self._fd)

    def close(self) -> None:
        """May be called again."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1


def fingerprint(row: Row) -> list[Any]:
    """What must never change of a row."""
    return [row.at, row.first, row.count, row.state, row.round, row.attempts, zlib.crc32(row.block)]


@dataclass(slots=True)
class Report:
    """What a run has come to."""

    seed: int = 0
    seconds: float = 0.0
    attempted: int = 0  # tasks that we tried to submit
    accepted: int = 0  # that the master answered for
    completed: int = 0
    dead: int = 0
    lost: int = 0  # accepted, and without an end
    unexpected: int = 0  # outcomes that nobody asked for, that are wrong, or that changed
    duplicated: int = 0  # outcomes beyond the first of a task
    recovered: int = 0  # not answered for, and there all the same
    executions: int = 0  # of the task function, as far as they are known; see `counted`
    reruns: int = 0  # beyond the first of a task: the price of a fault, and legal
    charged: int = 0  # attempts beyond the first that tasks were charged for
    faults: dict[str, int] = field(default_factory=dict)  # that really happened, by kind
    violations: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.violations or self.lost or self.duplicated or self.unexpected:
            return "broken"
        return "held" if any(self.faults.values()) else "no fault happened"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def check(
    log: Path,
    rows: Iterable[Row],
    status: JobStatus,
    decode: Callable[[Row], Iterable[Any]],
    expected: Callable[[int], Any],
    *,
    executions: Path | None = None,
    ends: Callable[[int], str] = lambda index: "completed",
    faults: Mapping[str, int] | None = None,
    undisturbed: bool = False,
) -> Report:
    """Compare the log with the results of a job that has come to rest.

    decode      the results of a row of completed tasks; expected: what the task of an index must return
    executions  the file that the task function wrote, where there is one
    ends        how the task of an index must end; faults: what really happened, by kind
    undisturbed nothing was killed or cut: then every task must have run once
    """
    report = Report(faults=dict(faults or {}))
    tried, accepted, read = _load(log)
    found: Counter[int] = Counter()
    prints: dict[int, list[Any]] = {}
    again: set[tuple[int, int]] = set()
    done: set[int] = set()
    wrong = _Violations(report)
    for row in rows:
        if row.at in prints:
            report.duplicated += row.count
            wrong.add("I2", f"row {row.at} was read twice")
        prints[row.at] = fingerprint(row)
        values = list(decode(row)) if row.state == "completed" else [None] * row.count
        report.charged += (row.attempts - 1) * row.count
        for index, value in enumerate(values, row.first):
            found[index] += 1
            if (index, row.round) in again:
                report.duplicated += 1
                wrong.add("I2", f"task {index} has two outcomes in round {row.round}")
            again.add((index, row.round))
            if row.state == "completed":
                done.add(index)
            _judge(report, wrong, index, row.state, value, tried, expected, ends)
    for index in range(accepted):
        if not found[index]:
            report.lost += 1
            wrong.add("I1", f"task {index} was accepted and has no end")
    for print_ in read:
        if prints.get(print_[0]) != print_:
            report.unexpected += 1
            wrong.add("I4", f"outcome {print_} was read, and is now {prints.get(print_[0])}")
    report.attempted, report.accepted = tried, accepted
    report.recovered = sum(1 for index in found if accepted <= index < tried)
    _counts(report, wrong, status)
    if executions is not None:
        _executions(report, wrong, executions, done, tried, undisturbed)
    wrong.conclude()
    return report


def _judge(
    report: Report, wrong: "_Violations", index: int, state: str, value: Any, tried: int,
    expected: Callable[[int], Any], ends: Callable[[int], str],
) -> None:  # fmt: skip
    if state == "completed":
        report.completed += 1
    else:
        report.dead += 1
    if not 0 <= index < tried:
        report.unexpected += 1
        wrong.add("I3", f"task {index} was never submitted")
    elif state != ends(index):
        report.unexpected += 1
        wrong.add("I1", f"task {index} is {state}, not {ends(index)}")
    elif state == "completed" and value != expected(index):
        report.unexpected += 1
        wrong.add("I3", f"the result of task {index} is {value!r}, not {expected(index)!r}")


def _counts(report: Report, wrong: "_Violations", status: JobStatus) -> None:
    """The master's own counts must agree with what was read."""
    unfinished = status.ready + status.leased + status.delayed + status.suspect
    if unfinished:
        wrong.add("I1", f"{unfinished} tasks are unfinished: the yard did not come to rest")
    if not report.accepted <= status.total <= report.attempted:
        wrong.add(
            "I5", f"the job has {status.total} tasks: {report.accepted} accepted, {report.attempted} tried"
        )
    if (status.completed, status.dead) != (report.completed, report.dead):
        wrong.add(
            "I2",
            f"the master counts {status.completed} completed and {status.dead} dead,"
            f" and there are {report.completed} and {report.dead}",
        )


def _executions(
    report: Report, wrong: "_Violations", path: Path, done: set[int], tried: int, undisturbed: bool
) -> None:
    begun, ended = executions_of(path)
    report.executions = sum(begun.values())
    report.reruns = sum(count - 1 for count in begun.values())
    for index in done:
        if not ended[index]:
            wrong.add("I6", f"task {index} is completed and was never run to its end")
    for index, count in begun.items():
        if not 0 <= index < tried:
            wrong.add("I3", f"task {index} was run and never submitted")
        if undisturbed and count > 1:
            wrong.add("I6", f"task {index} was run {count} times, and nothing had happened to it")


def executions_of(path: Path) -> tuple[Counter[int], Counter[int]]:
    """How often each task was begun, and ended, as the function itself wrote it down."""
    begun: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    if path.exists():
        for line in path.read_text().splitlines():
            index, _, what = line.partition(" ")
            (begun if what == "begun" else ended)[int(index)] += 1
    return begun, ended


def _load(path: Path) -> tuple[int, int, list[list[Any]]]:
    """How many tasks were tried, how many accepted, and the fingerprints of all rows that were read."""
    tried = accepted = 0
    read = []
    for line in path.read_bytes().splitlines():
        entry = json.loads(line)
        if "tried" in entry:
            tried = max(tried, sum(entry["tried"]))
        elif "accepted" in entry:
            accepted = max(accepted, entry["accepted"])
        else:
            read.append(entry["read"])
    return tried, accepted, read


class _Violations:
    """Names the first of them, and counts the rest."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._more = 0

    def add(self, invariant: str, text: str) -> None:
        if len(self._report.violations) < MOST:
            self._report.violations.append(f"{invariant}: {text}")
        else:
            self._more += 1

    def conclude(self) -> None:
        if self._more:
            self._report.violations.append(f"and {self._more} more")
