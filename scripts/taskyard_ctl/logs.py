"""Log lines of all members: which of them are wanted, how they look, and one file each."""

import re
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from taskyard.errors import UsageError
from taskyard_ctl.interface import Line

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")

Wanted = Callable[[Line], bool]


def since(text: str, now: float) -> str:
    """A stamp from "10m", "2h", "90" (seconds), or a date and time; empty for everything."""
    if not text:
        return ""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match:
        moment = datetime.fromtimestamp(now - float(match[1]) * _UNITS[match[2] or "s"], UTC)
    else:
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise UsageError(
                f"--since {text}: write 90s, 10m, 2h, 1d, or a time such as 2026-01-31T12:00"
            ) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")  # without the Z: sorts before a longer one of this moment


def wanted(worker: str, job: str, grep: str) -> Wanted:
    """The filter that the options describe. `job` is an id; task output is tagged "[job/index] text"."""
    try:
        pattern = re.compile(grep)
    except re.error as fault:
        raise UsageError(f"--grep {grep}: is no regular expression ({fault})") from None
    tag = f"[{job}/"

    def keep(line: Line) -> bool:
        return (
            (not worker or is_source(line, worker))
            and (not job or tag in line.text)
            and (not grep or pattern.search(line.text) is not None)
        )

    return keep


def is_source(line: Line, worker: str) -> bool:
    """Is the line of this worker: by name, by number, or by the beginning of its container's id?"""
    named = worker in (line.source, line.source.rpartition("-")[2], f"{line.host}.{line.source}")
    return named or (len(worker) >= 4 and line.container.startswith(worker))


def write_files(lines: Iterable[Line], folder: Path) -> int:
    """One file a worker, HOST.WORKER.log, and master.log; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    files: dict[str, TextIO] = {}
    with ExitStack() as stack:
        for line in lines:
            name = "master.log" if line.source == "master" else f"{line.host or host}.{line.source}.log"
            file = files.get(name)
            if file is None:
                file = files[name] = stack.enter_context(open(folder / name, "w", buffering=1))
            file.write(f"{line.stamp} {line.text}\n")
    return len(files)


class Printer:
    """Lines with a prefix as wide as the longest so far, in a colour for each member."""

    def __init__(self, write: Callable[[str], None], colour: bool) -> None:
        self._write = write
        self._colour = colour
        self._styles: dict[str, str] = {}
        self._width = len("worker-1")

    def __call__(self, line: Line) -> None:
        source = f"{line.host}.{line.source}" if line.host and line.source != "master" else line.source
        self._width = max(self._width, len(source))
        prefix = f"{source:{self._width}} |"
        if self._colour:
            import click

            if source not in self._styles:
                self._styles[source] = _COLOURS[len(self._styles) % len(_COLOURS)]
            prefix = click.style(prefix, fg=self._styles[source])
        self._write(f"{prefix} {line.text}")
