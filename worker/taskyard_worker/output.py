"""What a slot prints: one pipe for stdout and stderr, with marks that say whose it was.

The agent's side is in prints.py. A task may close, detach or replace stdout and stderr,
or their descriptors: the next task finds them as they were.
"""

import fcntl
import io
import os
import sys
import termios

from taskyard_worker import memory

_NOTHING = bytes(4)  # what FIONREAD says of an empty pipe
HIGH = 200  # where the slot's own descriptors begin


def high(fd: int) -> int:
    """The descriptor under a high number, closed when another program is executed."""
    for lowest in (HIGH, 3):
        try:
            result = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError:  # the limit of open files is lower
            continue
        os.close(fd)
        return result
    return fd


class _Buffer(io.BufferedWriter):
    """What is under sys.stdout; stays as it is for the next task, whatever this one does."""

    def close(self) -> None:
        self.flush()

    def detach(self) -> io.RawIOBase:
        return self.raw  # type: ignore[return-value]


class Stream(io.TextIOWrapper):
    """sys.stdout or sys.stderr: notes that something was written, and stays as it is, too."""

    printed = False

    def write(self, text: str, /) -> int:
        Stream.printed = True
        return super().write(text)

    def close(self) -> None:
        self.flush()

    def detach(self) -> io.BufferedWriter:
        self.flush()
        return self.buffer  # type: ignore[return-value]


class Output:
    """What the slot prints goes to one pipe; a mark in it says whose it was (see prints.py)."""

    def __init__(self, token: bytes, head: memoryview) -> None:
        self._fd = high(os.dup(1))
        self._pipe = os.fstat(self._fd)
        self._mark = b"\0" + token
        self._head = head
        self._reads = 0
        self._waiting = bytearray(4)
        self._streams = [self._stream(), self._stream()]
        self.restore()

    def _stream(self) -> Stream:
        raw = io.FileIO(self._fd, "w", closefd=False)
        return Stream(_Buffer(raw), "utf-8", "backslashreplace", line_buffering=True)

    def mark(self, job: str, index: int) -> None:
        """Say that what was printed until now is this task's, if anything was."""
        reads = self._head[memory.READS]
        try:
            # Nothing was written by way of Python, and the agent has read nothing since: something that
            # was written otherwise still waits in the pipe, then.
            if not Stream.printed and reads == self._reads:
                fcntl.ioctl(self._fd, termios.FIONREAD, self._waiting)
                if self._waiting == _NOTHING:
                    return
            elif Stream.printed:
                Stream.printed = False
                self._flush()
            os.write(self._fd, b"%b%b/%d\n" % (self._mark, job.encode(), index))
        except OSError:  # a task has closed it
            pass
        finally:
            self._reads = reads

    def restore(self) -> None:
        """Undo what a task did to stdout and stderr, and write what they hold."""
        for number in (1, 2):
            try:
                same = os.path.samestat(os.fstat(number), self._pipe)
            except OSError:
                same = False
            if not same:
                try:
                    os.dup2(self._fd, number)
                except OSError:  # a task has closed everything
                    os._exit(memory.CLOSED)
        self._flush()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]

    def _flush(self) -> None:
        for place, stream in enumerate(self._streams):
            try:
                stream.flush()
            except (OSError, ValueError):  # a task has taken its insides out
                self._streams[place] = self._stream()
