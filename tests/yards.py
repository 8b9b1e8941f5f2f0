"""A yard in a folder of its own, driven by the real command in real processes, as people do it."""

import json
import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import eventually

from taskyard_ctl import shapes
from taskyard_ctl.yard import YardFolder

COMMAND = [sys.executable, "-P", "-m", "taskyard_ctl"]
TASKS = '''\
"""What the tests run."""

import os
import time


def square(n):
    return n * n


def add(a, b=0):
    return a + b


def fail_unless(path):
    """Fails until there is such a file."""
    if not os.path.exists(path):
        raise ValueError(f"{path} is not there")
    return path


def hold(path):
    """Busy until there is such a file."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


def square_or_hold(what):
    return hold(what) if isinstance(what, str) else square(what)


def talk(n):
    print("task", n, "says hello")
    return n


def lines_of(path):
    with open(path) as file:
        return len(file.readlines())
'''


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestYard:
    """One yard; `run` runs a command in its folder and expects its exit code."""

    __test__ = False

    def __init__(self, folder: Path, **values: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.address = f"127.0.0.1:{free_port()}"
        for name in ("tasks", "data"):
            (folder / name).mkdir(parents=True)
        (folder / "tasks" / "work.py").write_text(TASKS)
        settings = {
            "TASKYARD_ADDRESS": self.address,
            "TASKYARD_AUTHKEY": secrets.token_hex(32),
            "TASKYARD_TASKS_DIR": "./tasks",
            "TASKYARD_DATA_DIR": str(self.data),
            **values,
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def environ(self, **values: str) -> dict[str, str]:
        return {**os.environ, "CI": "1", "NO_COLOR": "1", **values}

    def start(self, *arguments: str, **values: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.folder, env=self.environ(**values), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, stdin: str = "", **values: str) -> Done:
        with self.start(*arguments, **values) as process:
            out, err = process.communicate(stdin, timeout=300)
        assert process.returncode == code, f"taskyard {' '.join(arguments)}: {process.returncode}\n{out}{err}"
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def status(self, job: str = "") -> Any:
        """What `taskyard status --json` prints, without starting the command each time."""
        with YardFolder(self.folder).connect(patience=20.0) as master:
            return shapes.status(master.status(job), self.address)

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.status()["workers"]
        return found

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.status(name)["jobs"][0]
        return found

    def busy(self, count: int) -> list[dict[str, Any]]:
        """The workers that hold a task, once there are so many."""

        def look() -> list[dict[str, Any]]:
            found = [worker for worker in self.workers() if worker["leased"]]
            return found if len(found) >= count else []

        return eventually(look, f"{count} busy workers")

    def ended(self, name: str) -> dict[str, Any]:
        return eventually(lambda: job if (job := self.job(name))["ended"] else {}, f"{name} ends", 60)
