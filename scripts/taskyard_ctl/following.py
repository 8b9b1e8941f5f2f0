"""Results to stdout: JSON lines for programs, a table for people."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from taskyard.errors import EXIT_DONE, EXIT_TASKS
from taskyard.messages import JobStatus
from taskyard_ctl import shapes
from taskyard_ctl.cli import say
from taskyard_ctl.progress import ended

if TYPE_CHECKING:
    from rich.console import Console

    from taskyard.client import Yard
    from taskyard.job import Outcome

TABLE_ROWS = 500  # of a table printed at once
FLUSH_S = 0.05


class Results:
    """Writes results as they come; what is written is seen soon, and not flushed one by one."""

    def __init__(self, job: str, as_json: bool) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._flushed = 0.0
        self._rows: list[dict[str, Any]] = []
        self._table: Callable[[list[dict[str, Any]]], None] | None = None
        self.screen: Console | None = None  # the terminal, if that is where they go
        if not as_json and sys.stdout.isatty():
            from taskyard_ctl.render import ResultTable, console

            self.screen = console()
            self._table = ResultTable(self.screen).add

    def write(self, outcomes: "Iterable[Outcome]") -> None:
        """Write all of them, however long they take to come."""
        for outcome in outcomes:
            self._write(shapes.result(self._job, outcome))
        self.flush()

    def line(self, result: dict[str, Any]) -> str:
        """One result as a line of text."""
        return shapes.line(result)

    def _write(self, result: dict[str, Any]) -> None:
        with self._lock:
            if self._table is None:
                sys.stdout.write(self.line(result))
            else:
                self._rows.append(result)
            if time.monotonic() - self._flushed > FLUSH_S or len(self._rows) >= TABLE_ROWS:
                self._flush()

    def flush(self) -> None:
        """Show what was written; may be called by another thread."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._table is None:
            sys.stdout.flush()
        elif self._rows:
            self._table(self._rows)
            self._rows = []
        self._flushed = time.monotonic()


class JobLog(Results):
    """The same as GNU parallel's `--joblog`, for tools that read that; what was sent is not measured."""

    HEAD = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")

    def __init__(self, job: str, function: str) -> None:
        super().__init__(job, as_json=True)
        self._function = function or "?"
        sys.stdout.write("\t".join(self.HEAD) + "\n")

    def line(self, result: dict[str, Any]) -> str:
        fields = (
            result["index"] + 1, result["host"] or ":", f"{result['started']:.3f}",
            f"{result['seconds']:10.3f}", 0, 0, int(result["state"] != "completed"), 0,
            f"{self._function} {self._job}/{result['index']}",
        )  # fmt: skip
        return "\t".join(map(str, fields)) + "\n"


def conclude(yard: "Yard", job: str, hint: bool = True) -> int:
    """Say how a job ended, or how far it is; the exit code is 1 if some tasks did not complete.

    `hint`: where to see what failed, else what to do about it.
    """
    from taskyard_ctl.render import duration

    status = yard.status(job).jobs[0]
    parts = [f"{status.completed:,} completed"]
    if status.dead:
        verb = f"taskyard results {job} --failed" if hint else f"once repaired: taskyard requeue {job}"
        parts.append(f"{status.dead:,} dead ({verb})")
    if status.cancelled:
        parts.append(f"{status.cancelled:,} cancelled")
    left = status.total - ended(status)
    if left:
        parts.append(f"{left:,} unfinished (--follow waits for them)")
    text = ", ".join(parts)
    if status.ended and not left:
        text += f", in {duration(status.ended - status.created)}"
    if status.state == "incomplete":
        text += f"; the job is incomplete: {status.note or 'its submission broke off'}"
    say(text)
    return exit_code(status)


def exit_code(status: JobStatus) -> int:
    failed = status.dead or status.cancelled or status.state in ("incomplete", "cancelled")
    return EXIT_TASKS if failed else EXIT_DONE
