"""One slot's process as the agent holds it: start it, hear from it, kill it, reap it.

It leads a process group of its own, so that what a task has forked is killed with it,
and the group is killed before the process is reaped: until then its number cannot
belong to anybody else.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskyard_worker.memory import Memory


@dataclass(frozen=True, slots=True)
class Start:
    """What every slot of a worker is started with."""

    folder: Path  # of the tasks, absolute
    payload: int  # bytes of the largest value
    allow: Sequence[str] = ()  # names as in TASKYARD_ALLOW
    python: str = sys.executable  # the interpreter that has what the tasks need


class Process:
    """A running slot.

    orders   descriptor to write a batch's number to
    bell     descriptor to read bells from
    prints   descriptor to read what tasks print from
    gone     descriptor that is readable once the process has ended, or -1 where the system has none
    """

    def __init__(self, start: Start) -> None:
        self.token = secrets.token_hex(8).encode()
        self.memory = Memory.create(start.payload)
        orders, self.orders = os.pipe()
        self.bell, bell = os.pipe()
        life, self._life = os.pipe()
        self.prints, prints = os.pipe()
        self.gone = -1
        given = (orders, bell, self.memory.fd, life)
        command = [
            start.python, "-P", "-m", "taskyard_worker.slot", *map(str, given),
            self.token.decode(), str(start.payload), str(start.folder), *start.allow,
        ]  # fmt: skip
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=prints, stderr=prints, pass_fds=given,
                start_new_session=True,
            )  # fmt: skip
        except OSError:
            self.close()
            raise
        finally:
            for fd in (orders, bell, life, prints):
                os.close(fd)
        self.pid = self._child.pid
        for fd in (self.orders, self.bell, self.prints):
            os.set_blocking(fd, False)
        with contextlib.suppress(AttributeError, OSError):
            self.gone = os.pidfd_open(self.pid)

    def retire(self) -> None:
        """Let it end by itself after what it was given."""
        if self.orders >= 0:
            os.close(self.orders)
            self.orders = -1

    def kill(self) -> None:
        """Kill it with all that its tasks have started; it is not reaped by this."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it has ended and waits to be reaped."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def reap(self) -> int:
        """Kill what it has left behind and return its code, negative for a signal. Only once it has ended."""
        self.kill()
        return self._child.wait()

    def read_bells(self) -> bytes | None:
        """Whole bells; b"" once the process has closed its end, None if there is nothing."""
        try:
            return os.read(self.bell, 1 << 12)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Give back descriptors and memory; after `reap`."""
        self.retire()
        for fd in (self.bell, self._life, self.prints, self.gone):
            if fd >= 0:
                os.close(fd)
        self.memory.close()


def reap_orphans(own: Collection[int]) -> None:
    """Reap what nobody else will: for the first process of a container, to which orphans are given.

    `own` are the processes that somebody here waits for. Not to be called while others are
    being started.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own:
                return  # its slot reaps it, and then the next one shows
            os.waitpid(ended.si_pid, os.WNOHANG)
