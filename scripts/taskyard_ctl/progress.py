"""How a job goes, on stderr: a bar in a terminal, a line now and then in a pipe, nothing in CI.

What the master says a job waits for, such as workers, is shown in all three.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from taskyard.errors import TaskyardError, UnreachableError
from taskyard.messages import JobStatus, Status, StatusReply
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

Show = Callable[[JobStatus], None]


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
            show(job)

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


def _silent(job: JobStatus) -> None:
    """CI keeps every line for ever."""


def ended(job: JobStatus) -> int:
    return job.completed + job.dead + job.cancelled


def pace(job: JobStatus) -> float:
    """Tasks a second since the job was made."""
    return job.completed / max(0.001, (job.ended or time.time()) - job.created)


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_S - FIRST_S

    def __call__(self, job: JobStatus) -> None:
        from taskyard_ctl.render import duration

        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_S
        text = f"{ended(job):,} of {job.total:,} tasks, {pace(job):,.1f}/s"
        if job.state == "open":
            text += ", still submitting"
        elif job.ended:
            text += ", the last results are on their way"
        elif pace(job):
            text += f", {duration((job.total - ended(job)) / pace(job))} left"
        if job.dead:
            text += f", {job.dead:,} dead"
        say(text)


def _bar(screen: "Console | None") -> "tuple[Bar, Show]":
    """A bar on the terminal; where results go to the same terminal, it is below them."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    from taskyard_ctl.render import console

    columns: list[Any] = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    ]  # fmt: skip
    bar = Bar(*columns, console=screen or console(stderr=True), transient=True)
    task = bar.add_task("submitting", total=None, rate="")

    def show(job: JobStatus) -> None:
        dead = f" {job.dead:,} dead" if job.dead else ""
        words = "submitting" if job.state == "open" else f"{job.leased:,} at work"
        total = None if job.state == "open" else job.total
        bar.update(
            task, completed=ended(job), total=total, description=words + dead, rate=f"{pace(job):,.1f}/s"
        )

    return bar, show
