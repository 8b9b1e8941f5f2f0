"""How a job goes, on stderr: a bar in a terminal, a line now and then in a pipe, nothing in CI.

What the master says a job waits for, such as workers, is shown in all three.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from taskyard.errors import TaskyardError, UnreachableError
from taskyard.messages import JobStatus, Status, StatusReply, WorkerStatus
from taskyard_ctl.cli import say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from taskyard.client import Yard

TICK_S = 0.1
LOOK_S = 0.5  # between looks at the job
LINE_S = 5.0  # between lines
FIRST_S = 0.2  # after which somebody wonders why nothing happens
PATIENCE_S = 2.0  # for an answer, before that is what is shown

WINDOW_S = 15.0  # what "recent" means for the rate
WIDE = 110  # columns, from which on there is room for a long bar

Show = Callable[[JobStatus, str], None]


class Progress:
    """Looks at the job from a thread of its own while the caller submits it and reads its results."""

    def __init__(
        self,
        yard: "Yard",
        job: str,
        flush: Callable[[], None] = lambda: None,
        screen: "Console | None" = None,
    ) -> None:
        self._yard = yard
        self._job = job
        self._flush = flush  # called at every tick
        self._screen = screen  # the terminal that results go to, if they do
        self._say: Callable[[str], None] = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._said = ""
        self._notices: deque[str] = deque()
        self._rate = Rate()

    def notice(self, text: str) -> None:
        """Have a line shown within a moment; never waits, so a signal handler may call it."""
        self._notices.append(text)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        with ExitStack() as stack:
            show: Show | None = None
            look_at = time.monotonic() + FIRST_S
            while not self._over.wait(TICK_S):
                with suppress(BrokenPipeError):  # whoever writes meets it too, and answers it
                    self._flush()
                while self._notices:
                    self._say(self._notices.popleft())
                if time.monotonic() >= look_at:
                    show = show or self._shower(stack)
                    self._look(show)
                    look_at = time.monotonic() + LOOK_S

    def _look(self, show: Show) -> None:
        try:
            reply = self._yard.call(Status(0, self._job), StatusReply, timeout=PATIENCE_S)
        except UnreachableError:
            self._tell(f"waiting for the master: {self._yard.trouble or 'it does not answer'}")
            return
        except TaskyardError:
            return  # not opened yet, or deleted: whoever waits for it says so
        for job in reply.jobs:
            self._tell(job.note)
            rate = self._rate.add(ended(job), time.monotonic())
            show(job, ", ".join(facts(job, reply.workers, rate)))

    def _tell(self, text: str) -> None:
        if text and text != self._said:
            self._say(text)
        self._said = text

    def _shower(self, stack: ExitStack) -> Show:
        if sys.stderr.isatty():
            bar, show = _bar(self._screen)
            stack.enter_context(bar)
            self._say = bar.console.print  # above the bar
            return show
        return _silent if os.environ.get("CI") else _Lines()


def _silent(job: JobStatus, text: str) -> None:
    """CI keeps every line for ever."""


def ended(job: JobStatus) -> int:
    return job.completed + job.dead + job.cancelled


class Rate:
    """Tasks a second, of late: what was fast an hour ago says nothing about the next minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> float:
        """The rate, now that so many have ended; 0 until it can be told."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (count - before) / (now - since) if now > since else 0.0


def facts(job: JobStatus, workers: Iterable[WorkerStatus], rate: float) -> Iterator[str]:
    """What there is to say of a job besides how much of it has ended."""
    from taskyard_ctl.render import duration

    yield f"{rate:,.1f}/s"
    left = job.total - ended(job)
    if job.state == "open":
        yield "still submitting"
    elif job.ended:
        yield "the last results are on their way"
    elif rate and left:
        yield f"{duration(left / rate)} left"
    if job.dead:
        yield f"{job.dead:,} dead"
    if job.retries:
        yield f"{job.retries:,} retried"
    there = sum(worker.state in ("idle", "running", "draining") for worker in workers)
    yield f"{there:,} worker{'' if there == 1 else 's'}"
    if job.error and not job.ended:
        yield job.error


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_S - FIRST_S

    def __call__(self, job: JobStatus, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_S
            say(f"{ended(job):,} of {job.total:,} tasks, {text}")


def _bar(screen: "Console | None") -> "tuple[Bar, Show]":
    """A bar on the terminal; where results go to the same terminal, it is below them."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    from taskyard_ctl.render import console

    shown = screen or console(stderr=True)
    columns: list[Any] = [
        TextColumn("{task.description}"), BarColumn(40 if shown.width >= WIDE else 10), MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        TimeElapsedColumn(),
    ]  # fmt: skip
    # Unless told, rich sends what goes to stdout to its own console: results would miss their pipe.
    bar = Bar(*columns, console=shown, transient=True, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task("submitting", total=None, facts="")

    def show(job: JobStatus, text: str) -> None:
        words = "submitting" if job.state == "open" else f"{job.leased:,} at work"
        total = None if job.state == "open" else job.total
        bar.update(task, completed=ended(job), total=total, description=words, facts=text)

    return bar, show
