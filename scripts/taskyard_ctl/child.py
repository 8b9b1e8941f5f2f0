"""One process that should run, through all its incarnations: start, output, death, backoff."""

import contextlib
import ctypes
import logging
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskyard import backoff, log
from taskyard_ctl.logfiles import SUFFIX, LogFile

logger = logging.getLogger(__name__)

STABLE_S = 1.0  # a death later than this after the start is answered at once
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """Start it, call `look` when something may have happened and `due` has come; `end` stops it for good."""

    def __init__(
        self, name: str, role: str, argv: list[str], logs: Path, selector: selectors.BaseSelector
    ) -> None:
        self.name = name
        self.role = role
        self.gone: list[Callable[[], None]] = []  # called once it has stopped for good
        self._argv = argv
        self._output = LogFile(logs / f"{name}{SUFFIX}")
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._born = 0.0  # monotonic
        self._started = 0.0  # Unix seconds
        self._restarts = 0
        self._quick = 0  # deaths within STABLE_S in a row
        self._exit: int | None = None  # code of the latest death
        self._start_at = 0.0  # monotonic
        self._kill_at = 0.0  # monotonic; 0: it is not to stop

    @property
    def ending(self) -> bool:
        return bool(self._kill_at)

    @property
    def due(self) -> float:
        """When `look` has something to do even if nothing happens, on the monotonic clock."""
        if self._process is None:
            return 0.0 if self._kill_at else self._start_at
        return self._kill_at or float("inf")

    def shown(self) -> dict[str, Any]:
        """The state for people and programs."""
        running = self._process is not None
        return {
            "name": self.name,
            "role": self.role,
            "state": ("stopping" if self._kill_at else "running") if running else "waiting",
            "pid": self._process.pid if self._process else 0,
            "started": self._started,
            "restarts": self._restarts,
            "quick": self._quick,
            "exit": self._exit,
        }

    def look(self, folder: str) -> bool:
        """Do what is due; False once it has stopped for good."""
        now = time.monotonic()
        if self._process is not None and self._has_ended():
            self._bury(now)
        if self._process is None:
            if self._kill_at:
                self._output.close()
                log.event(logger, "stopped", f"{self.name} has stopped ({self._exit})")
                return False
            if now >= self._start_at:
                self._start(folder)
        elif self._kill_at and now >= self._kill_at:
            log.event(logger, "killed", f"{self.name} did not stop in time: killed", logging.WARNING)
            self._signal_all()
            self._kill_at = float("inf")
        return True

    def end(self, grace: float) -> None:
        """Ask it to stop for good within `grace` seconds; a second call can only make that sooner."""
        deadline = time.monotonic() + grace
        self._kill_at = min(self._kill_at, deadline) if self._kill_at else deadline
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def _start(self, folder: str) -> None:
        read, write = os.pipe()
        self._born, self._started = time.monotonic(), time.time()
        try:
            self._process = subprocess.Popen(
                self._argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=write, stderr=write,
                start_new_session=True, preexec_fn=_tie(os.getpid()),
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as fault:
            os.close(read)
            self._output.feed(f"{self.name} cannot be started: {fault}\n".encode())
            self._failed(127, self._born)
            return
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._pipe = read
        self._selector.register(read, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        """Take what it printed; at the end of that close the pipe."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._pipe, 1 << 16)
            if data:
                self._output.feed(data)
            else:
                self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._selector.unregister(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
            self._output.end()

    def _has_ended(self) -> bool:
        """Without reaping it: its pid, and with it its group, stays ours until `_bury`."""
        assert self._process is not None
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal_all(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _bury(self, now: float) -> None:
        assert self._process is not None
        self._signal_all()  # what it left behind
        code = self._process.wait()
        self._process = None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 1 << 16) if self._pipe >= 0 else b"":
                self._output.feed(data)
        self._close_pipe()
        if self._kill_at:
            self._exit = code
        else:
            self._failed(code, now)

    def _failed(self, code: int, now: float) -> None:
        self._exit = code
        self._restarts += 1
        self._quick = self._quick + 1 if now - self._born < STABLE_S else 0
        wait = backoff.delay(self._quick, random.random(), base=0.2, cap=10.0) if self._quick else 0.0
        self._start_at = time.monotonic() + wait
        text = f"{self.name} ended ({code}); it starts again" + (f" in {wait:.1f} s" if wait else "")
        log.event(logger, "restarting", text, logging.WARNING)


def _tie(parent: int) -> Callable[[], None] | None:
    """Something to do in a new process so that the kernel ends it with its parent; None elsewhere."""
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return tie
