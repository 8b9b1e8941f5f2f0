"""Log files as a container engine keeps them: a stamp before every line, rotated by size.

The supervisor writes them, `taskyard logs` reads them. The stamp is the moment at
which the line arrived, in UTC and of fixed width, so lines of several files sort as text.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

MAX_BYTES = 10 << 20
KEEP = 3  # files of one source, the current one included
LONGEST = 64 << 10  # a longer line is cut into several
SUFFIX = ".log"
STAMP = len("2026-01-02T03:04:05.123456Z")


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LogFile:
    """Appends lines to a file and renames it once it is large: `x.log`, `x.log.1`, `x.log.2`.

    A disk that is full costs log lines, never the one who logs.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max = max_bytes
        self._rest = b""
        self._fd = -1
        with suppress(OSError):
            self._open()

    def feed(self, data: bytes) -> None:
        """Take bytes as they come; whole lines are written, the rest waits for its end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LONGEST:
            lines.append(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]
        if lines:
            head = stamp().encode() + b" "
            with suppress(OSError):
                self._append(b"".join(head + line.rstrip(b"\r") + b"\n" for line in lines))

    def end(self) -> None:
        """The source has ended: write what has no newline."""
        if self._rest:
            self.feed(b"\n")

    def close(self) -> None:
        self.end()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            self._open()
        elif self._size + len(data) > self._max:
            os.close(self._fd)
            self._fd = -1
            for number in range(KEEP - 1, 0, -1):
                older = rotated(self._path, number - 1)
                if older.exists():
                    older.replace(rotated(self._path, number))
            self._open()
        self._size += os.write(self._fd, data)


def rotated(path: Path, number: int) -> Path:
    """The `number`-th older file of a log; 0 is the current one."""
    return path.with_name(f"{path.name}.{number}") if number else path


def sources(folder: Path) -> list[Path]:
    """The current log files of a folder."""
    return sorted(folder.glob(f"*{SUFFIX}"))


class Tail:
    """Reads one log: its past, oldest first, and then what it gains, across rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")  # before the older ones are looked at: nothing falls between them
        self._rest = b""

    def past(self) -> Iterator[bytes]:
        """The lines of the older files."""
        for number in range(KEEP, 0, -1):
            with suppress(FileNotFoundError), rotated(self._path, number).open("rb") as file:
                if os.fstat(file.fileno()).st_ino != os.fstat(self._file.fileno()).st_ino:
                    yield from (line.rstrip(b"\n") for line in file)

    def lines(self) -> Iterator[bytes]:
        """Whole lines that came since the last call."""
        while True:
            yield from self._read()
            try:
                here = self._path.stat().st_ino
            except FileNotFoundError:
                return
            if here == os.fstat(self._file.fileno()).st_ino:
                return
            yield from self._read()  # what came between the last read and the rename
            self._file.close()
            self._file = self._path.open("rb")

    def _read(self) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        yield from lines

    def close(self) -> None:
        self._file.close()
