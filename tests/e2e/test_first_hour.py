"""The first hour of a new user, in a terminal: own function, a mistake, its repair, the next day.

Every wait has a generous bound, and nothing on the screen may be a traceback of ours.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from lab import free_port
from support import eventually

from taskyard.functions import digest
from taskyard_ctl.yard import YardFolder

PROMPT = "ready> "
QUICK_S = 10.0  # for what a person expects at once; generous, as machines of tests are busy
SLOW_S = 20.0  # for what starts or stops processes

WRONG = "def half(n):\n    return n // 2 + nothing\n"
RIGHT = "def half(n):\n    return n // 2\n"


class Terminal:
    """A shell of somebody who types."""

    def __init__(self, folder: Path) -> None:
        environ = {name: value for name, value in os.environ.items() if name != "CI"}
        environ |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DOCKER_HOST": "unix:///nowhere", "PS1": PROMPT, "TERM": "xterm",
        }  # fmt: skip
        self.child = pexpect.spawn(
            "bash", ["--norc", "--noprofile", "--noediting"], cwd=str(folder), env=environ,
            dimensions=(40, 120), encoding="utf-8", echo=False, timeout=QUICK_S,
        )  # fmt: skip
        self.child.expect_exact(PROMPT)

    def type(self, line: str, code: int = 0, seconds: float = QUICK_S) -> str:
        """Type a command; returns what it showed, without colours."""
        self.child.sendline(f"{line}; echo code=$?")
        self.child.expect(r"code=(\d+)\s+" + PROMPT, timeout=seconds)
        screen = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.child.before)
        assert int(self.child.match[1]) == code, f"{line}\n{screen}"
        assert "Traceback" not in screen, screen
        return screen


def has_the_edit(folder: Path) -> bool:
    """A person takes the second or two that workers need to notice."""
    with YardFolder(folder).connect() as yard:
        return {worker.digest for worker in yard.status().workers} == {digest(folder / "tasks")}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.child.sendintr()
    terminal.child.sendline("taskyard down --deadline 0; exit")
    terminal.child.expect(pexpect.EOF, timeout=SLOW_S)
    terminal.child.close()


def test_the_first_hour(terminal: Terminal, tmp_path: Path) -> None:
    assert "made .env" in terminal.type("taskyard init")
    terminal.type(f"sed -i 's/^TASKYARD_ADDRESS=.*/TASKYARD_ADDRESS=127.0.0.1:{free_port()}/' .env")

    (tmp_path / "tasks" / "mine.py").write_text(WRONG)
    assert "did you mean" in terminal.type("taskyard chek", code=2)
    assert "mine:half" in terminal.type("taskyard check")
    assert "the yard is up" in terminal.type("taskyard up --local --workers 1", seconds=SLOW_S)
    assert "did you mean mine:half" in terminal.type("taskyard submit mine:hafl --range 0:4", code=2)
    assert "mine:half(3)" in terminal.type("taskyard submit mine:half --range 0:4 --dry-run")

    failed = terminal.type(
        "taskyard submit mine:half --range 0:4 --job halves --max-attempts 1 --wait", code=1
    )
    assert "NameError: name 'nothing' is not defined" in failed
    assert "4 dead" in failed

    (tmp_path / "tasks" / "mine.py").write_text(RIGHT)
    eventually(lambda: has_the_edit(tmp_path), "the worker takes up the edit", QUICK_S)
    assert "4 dead tasks are ready again" in terminal.type("taskyard requeue halves")
    terminal.type("taskyard results halves --follow", code=0)

    terminal.type("taskyard scale 3", seconds=SLOW_S)
    assert len(re.findall(r"\bidle\b|\brunning\b", terminal.type("taskyard status"))) >= 3
    terminal.type("taskyard submit mine:half --range 0:20000 --job tomorrow")
    terminal.type("taskyard down", seconds=SLOW_S)
    assert "no yard runs" in terminal.type("taskyard scale 2", code=3)

    assert "3 workers" in terminal.type("taskyard up --local", seconds=SLOW_S)
    terminal.type("taskyard results tomorrow --follow > results.jsonl", seconds=SLOW_S)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 20_000
