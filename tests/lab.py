"""A yard of real processes for tests: a master, workers, and a client, each to be killed at will."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import eventually

from taskyard import Yard
from taskyard.messages import StatusReply

KEY = "0123456789abcdef-for-tests"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Lab:
    """One folder, one port; `start_*` give real processes whose output is in the folder."""

    module = "taskyard_master"  # or one that changes something and then is it

    def __init__(self, folder: Path, tasks: Path = EXAMPLES, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")},
            "TASKYARD_ADDRESS": self.address,
            "TASKYARD_AUTHKEY": KEY,
            "TASKYARD_JOURNAL": str(folder / "journal.db"),
            "TASKYARD_TASKS_DIR": str(tasks),
            **{f"TASKYARD_{name.upper()}": value for name, value in settings.items()},
        }
        self.master: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def _start(self, module: str, **settings: str) -> subprocess.Popen[bytes]:
        self._started += 1
        environ = {**self.environ, **{f"TASKYARD_{n.upper()}": v for n, v in settings.items()}}
        with (self.folder / f"{module}-{self._started}.log").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module], env=environ, stdout=output, stderr=output, cwd=self.folder
            )

    def start_master(self, **settings: str) -> subprocess.Popen[bytes]:
        """Start the master and wait until its port answers."""
        self.master = process = self._start(self.module, **settings)
        eventually(lambda: self._answers() or process.poll() is not None, "the master's port answers")
        assert process.poll() is None, self.output()
        return process

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start_worker(self, **settings: str) -> subprocess.Popen[bytes]:
        self.workers.append(self._start("taskyard_worker", **settings))
        return self.workers[-1]

    def start_workers(self, count: int, **settings: str) -> None:
        """Start workers and wait until they have joined."""
        before = len(self.status().workers)
        for _ in range(count):
            self.start_worker(**settings)
        eventually(lambda: len(self.status().workers) >= before + count, "the workers have joined")

    def kill_master(self) -> None:
        """kill -9, and wait for the end."""
        assert self.master is not None
        self.master.kill()
        self.master.wait()

    def yard(self) -> Yard:
        return Yard(self.address, KEY)

    def status(self) -> StatusReply:
        with self.yard() as yard:
            return yard.status()

    def output(self) -> str:
        """Everything that every process said, for a failing test's message."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        processes = [*self.workers, *([self.master] if self.master else [])]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in processes:
            process.wait()


@contextmanager
def running_lab(folder: Path, workers: int = 0, tasks: Path = EXAMPLES, **settings: str) -> Iterator[Lab]:
    """A lab with a master and some joined workers; stopped at the end."""
    lab = Lab(folder, tasks, **settings)
    try:
        lab.start_master()
        lab.start_workers(workers)
        yield lab
    finally:
        lab.stop()
