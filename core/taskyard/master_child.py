"""A master as a child process: started, watched, started again when it was killed, ended with its parent."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from taskyard.clock import Deadline
from taskyard.errors import UnreachableError
from taskyard.log import event

log = logging.getLogger(__name__)

START = 30.0  # seconds that a master may take until it listens; a large journal is replayed before that
STOP = 10.0  # seconds that it may take to end
_GLANCE = 0.01  # seconds between looks at its log while it starts
_QUICKLY = 5.0  # a master that lived for less than this many seconds has failed
_TRIES = 5  # failures in a row after which nobody tries again
_LISTENS = b"master listens on"


class MasterChild:
    """One master on one journal; what it says is in `master.log` beside the journal."""

    def __init__(self, environ: Mapping[str, str], journal: Path) -> None:
        self._environ = {**environ, "TASKYARD_JOURNAL": str(journal), "TASKYARD_LOG": "text"}
        self._log = journal.with_name("master.log")
        self._up = threading.Event()  # it listens
        self._over = threading.Event()  # it was stopped, or nobody tries again
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it and return when it listens; raises UnreachableError with its own words."""
        self._launch()
        threading.Thread(target=self._watch, name="taskyard master", daemon=True).start()

    def back(self) -> bool:
        """Wait until it listens (again); False if it never will."""
        time.sleep(_GLANCE)  # what failed may have been quicker than the watch
        while not self._over.is_set():
            if self._up.wait(0.1):
                return True
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Return when it is over, or False after `timeout` seconds."""
        return self._over.wait(timeout)

    def stop(self) -> None:
        """End it; it keeps what it was given. May be called again, and does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        self._over.set()
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _launch(self) -> None:
        with self._log.open("ab") as output:
            start = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "taskyard.tether", "taskyard_master"],
                env=self._environ, stdin=subprocess.PIPE, stdout=output, stderr=output,
                start_new_session=True,  # Ctrl-C is for the script, which then ends it
            )  # fmt: skip
        self._process = process
        deadline = Deadline.after(START)
        while _LISTENS not in (said := self._said(start)):
            if process.poll() is not None or deadline.passed:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise UnreachableError(f"the master did not start: {lines[-1]} (all of it: {self._log})")
            if self._over.is_set():
                return
            time.sleep(_GLANCE)
        self._up.set()

    def _said(self, start: int) -> bytes:
        with self._log.open("rb") as output:
            output.seek(start)
            return output.read()

    def _watch(self) -> None:
        """Start it again whenever it ends; what it had accepted is in its journal."""
        failures = 0
        while self._process is not None and not self._over.is_set():
            began = time.monotonic()
            code = self._process.wait()
            self._up.clear()
            if self._over.is_set():
                return
            failures = failures + 1 if time.monotonic() - began < _QUICKLY else 0
            event(log, "master-ended", f"the master ended with {code}: starting it again", logging.WARNING)
            try:
                self._launch()
            except UnreachableError as error:
                failures += 1
                log.error("%s", error)
            if failures >= _TRIES:
                log.error("the master ended %d times in a row: it stays down, see %s", failures, self._log)
                self._over.set()
            elif self._over.is_set():  # while it started
                self.stop()
