"""What a deploy shows: a line a step, bars while images travel, and one table at the end."""

import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from taskyard_ctl.plan import Action


class Bar:
    """Bytes on their way to one host."""

    def __init__(self, progress: Any, host: str) -> None:
        self._progress = progress
        self._task = progress.add_task(host, total=None) if progress else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.remove_task(self._task)

    def total(self, count: int) -> None:
        if self._progress:
            self._progress.update(self._task, total=count)

    def advance(self, count: int) -> None:
        if self._progress:
            self._progress.advance(self._task, count)


class Display:
    """Lines from several threads; with bars where somebody looks at a terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._progress: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            console = Console(stderr=True)
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=console, transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def say(self, line: str) -> None:
        with self._lock:
            if self._progress:
                self._progress.console.print(line, markup=False, highlight=False)
            else:
                self._say(line)

    def done(self, action: Action, seconds: float, note: str) -> None:
        self.say(f"{action} ({note + ', ' if note else ''}{seconds:.1f} s)")

    def bar(self, host: str) -> Bar:
        return Bar(self._progress, host)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as their widest cell; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
