"""What tasks print: told apart by task, bounded, and handed on as tagged lines.

A slot's stdout and stderr are one pipe. After a task that printed, the slot writes a
*mark* into it: a token that nobody can guess, and the task's name. What came before
the mark is that task's. A task that runs for long is shown before it ends: bytes
without a mark that were read while one and the same task ran can only be its own.
"""

import collections
import contextlib
import os
import threading
from collections.abc import Callable

from taskyard.messages import SAID, SAID_LENGTH
from taskyard_worker import memory

_PART = 64 << 10  # a line longer than this is cut into several
_READ = 64 << 10
_LEFT = 64  # reads of what a slot has left behind
_BACKLOG = 4 << 20  # bytes that wait for a stdout that nobody reads, before lines are dropped


class Prints:
    """Cuts the output of one slot into lines: `emit(tag, line)`. Keeps at most `limit` bytes a task."""

    def __init__(self, token: bytes, limit: int, emit: Callable[[str, str], None]) -> None:
        self._mark = b"\0" + token
        self._limit = limit
        self._emit = emit
        self._tail = b""  # may be the beginning of a mark
        self._text = bytearray()  # kept, and not emitted yet
        self._kept = 0  # bytes kept of the present task, emitted or not
        self._cut = 0  # bytes not kept of it

    @property
    def unmarked(self) -> bool:
        """Whether there is output whose task is not known yet."""
        return bool(self._text or self._cut)

    def feed(self, data: bytes) -> None:
        """Take bytes as they were read."""
        data = self._tail + data
        self._tail = b""
        while (at := data.find(b"\0")) >= 0:
            self._keep(data[:at])
            data = data[at:]
            if not data.startswith(self._mark[: len(data)]):
                self._keep(data[:1])  # a zero byte of the task's own
                data = data[1:]
                continue
            name, end, rest = data[len(self._mark) :].partition(b"\n")
            if not end:
                self._tail = data
                return
            self.end(name.decode(errors="replace"))
            data = rest
        self._keep(data)

    def live(self, tag: str) -> None:
        """All that is unmarked belongs to this task, which still runs: emit its whole lines."""
        end = self._text.rfind(b"\n") + 1
        if not end and len(self._text) > _PART:
            end = len(self._text)
        self._lines(tag, end)

    def end(self, tag: str) -> None:
        """All that is unmarked belongs to this task, which has ended."""
        self._lines(tag, len(self._text))
        if self._cut:
            self._emit(tag, f"... and {self._cut} bytes more that were not kept (TASKYARD_PRINT)")
        self._kept = self._cut = 0

    def _keep(self, data: bytes) -> None:
        room = self._limit - self._kept
        self._text += data[:room]
        self._kept += min(len(data), room)
        self._cut += max(0, len(data) - room)

    def _lines(self, tag: str, end: int) -> None:
        if end:
            for line in self._text[:end].decode(errors="replace").removesuffix("\n").split("\n"):
                self._emit(tag, line.removesuffix("\r"))
            del self._text[:end]


class Listener:
    """Reads the pipe that one slot prints to, and knows whose an output without a mark can be.

    What the slot does at a moment is `doing`: any value that changes with the task. `head`
    is that of the slot's memory, where the slot sees that something was read.
    """

    def __init__(self, fd: int, head: memoryview, prints: Prints) -> None:
        self._fd = fd
        self._head = head
        self._prints = prints
        self._read_while: object = None  # what the slot did when the first unmarked output was read

    @property
    def unmarked(self) -> bool:
        return self._prints.unmarked

    def read(self, doing: object) -> bool:
        """Read once; False at the end of the pipe."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return True
        self._prints.feed(data)
        if not self._prints.unmarked:
            self._read_while = None
        else:
            self._read_while = self._read_while or doing
            self._head[memory.READS] += 1
        return bool(data)

    def look(self, doing: object, tag: str) -> None:
        """Show what was read while the slot did what it still does."""
        if self._read_while is not None and self._read_while == doing:
            self._prints.live(tag)
            if not self._prints.unmarked:
                self._read_while = None

    def finish(self, tag: str) -> None:
        """The slot has ended: read what is left, but no more than a task may have left in the pipe."""
        for _ in range(_LEFT):
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                break
            if not data:
                break
            self._prints.feed(data)
        self._prints.end(tag)


class Recent:
    """The latest lines, shortened, for the master to show: all of them are in the worker's own log."""

    def __init__(self) -> None:
        self._lines: collections.deque[tuple[str, str]] = collections.deque(maxlen=SAID)

    def add(self, tag: str, text: str) -> None:
        self._lines.append((tag, text[:SAID_LENGTH]))

    def take(self) -> list[tuple[str, str]]:
        """What came since the last time."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def __bool__(self) -> bool:
        return bool(self._lines)


class Printer:
    """Writes tagged lines to a descriptor from a thread, so that nobody waits for who reads them."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._lines: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    def line(self, tag: str, text: str) -> None:
        """Queue one line; drops it where too much waits already."""
        data = f"[{tag}] {text}\n".encode(errors="replace")
        with self._changed:
            if self._bytes > _BACKLOG:
                self._dropped += 1
                return
            if self._dropped:
                data = b"[taskyard] %d lines were dropped: nobody read them\n" % self._dropped + data
                self._dropped = 0
            self._lines.append(data)
            self._bytes += len(data)
            self._changed.notify()

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, for so long at most."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and self._open:
                    self._changed.wait()
                data = b"".join(self._lines)
                self._lines.clear()
                if not data:
                    return
            rest = data
            with contextlib.suppress(OSError):  # stdout is closed: there is nobody to tell
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            with self._changed:
                self._bytes -= len(data)
