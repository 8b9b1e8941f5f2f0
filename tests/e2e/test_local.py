"""The verbs without Docker: master and workers are processes of this machine."""

import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import scenarios
from support import eventually
from yards import COMMAND, TestYard

from taskyard_ctl.yard import YardFolder

NewYard = scenarios.NewYard


@pytest.fixture
def new_yard(tmp_path: Path) -> Iterator[NewYard]:
    made: list[TestYard] = []

    def make(**values: str) -> TestYard:
        made.append(TestYard(tmp_path / f"yard-{len(made)}", **values))
        return made[-1]

    yield make
    for yard in made:
        yard.run("down", "--deadline", "0")


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestYard]:
    yard = TestYard(tmp_path_factory.mktemp("local") / "yard")
    done = yard.run("up", "--local", "--workers", "2")
    assert done.err.splitlines()[-1] == f"the yard is up: master at {yard.address}, 2 workers, as processes"
    yield yard
    yard.run("down", "--deadline", "0")


def pids(yard: TestYard) -> list[int]:
    status = yard.status()
    return [status["master"]["pid"], *(worker["pid"] for worker in status["workers"])]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


class TestWorking(scenarios.Working):
    """As on every engine."""


class TestScaling(scenarios.Scaling):
    """As on every engine."""


@pytest.fixture(scope="module")
def jobs(yard: TestYard) -> list[str]:
    made = [("feed01", "first"), ("feed02", "second"), ("beef03", "second")]
    with YardFolder(yard.folder).connect(patience=20.0) as master:
        for job, name in made:
            master.submit("work:square", [2], name=name, job=job).wait(60)
    return [job for job, _ in made]


class TestNames:
    """A job is called by its id, its name, or as much of its id as no other has."""

    VERBS = (
        ("status", "--json"), ("results",), ("results", "--failed"), ("results", "--follow"), ("requeue",),
        ("cancel",), ("delete",), ("logs", "--job"),
    )  # fmt: skip

    @pytest.mark.parametrize("verb", VERBS, ids=" ".join)
    def test_what_is_meant_by_several_is_one_line_with_all(
        self, yard: TestYard, jobs: list[str], verb: tuple[str, ...]
    ) -> None:
        begins = yard.run(*verb, "feed0", code=2)
        assert begins.err == (
            "taskyard: 2 jobs have an id that begins with 'feed0': give the id, one of feed02 (second),"
            " feed01 (first)\n"
        )
        called = yard.run(*verb, "second", code=2)
        assert called.err == "taskyard: 2 jobs are called 'second': give the id, one of beef03, feed02\n"
        unknown = yard.run(*verb, "frist", code=2)
        assert unknown.err.startswith("taskyard: there is no job 'frist'; did you mean first")
        assert begins.out + called.out + unknown.out == ""
        if verb != ("status", "--json") and verb != ("logs", "--job"):  # where it means all
            assert "empty name" in yard.run(*verb, "", code=2).err

    def test_names_and_beginnings_do(self, yard: TestYard, jobs: list[str]) -> None:
        for words in ("first", "feed01", "beef", "beef0"):  # others of this yard have ids by chance
            wanted = "beef03" if words.startswith("be") else "feed01"
            assert yard.run("status", words, "--json").json()["jobs"][0]["id"] == wanted
            assert [row["job"] for row in yard.run("results", words).rows()] == [wanted]
            assert f"job {wanted}: 0 dead tasks" in yard.run("requeue", words).err
        assert f"job {jobs[0]} deleted" in yard.run("delete", "first").err


class TestTerminal:
    """What people see who sit at one."""

    def spawn(self, yard: TestYard, *arguments: str, **values: str) -> "pexpect.spawn[str]":
        environ = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
        environ |= {"TERM": "xterm", **values}
        return pexpect.spawn(
            COMMAND[0], [*COMMAND[1:], *arguments], cwd=str(yard.folder), env=environ,
            dimensions=(30, 120), encoding="utf-8", timeout=30,
        )  # fmt: skip

    def test_results_are_a_table_and_progress_a_bar(self, yard: TestYard) -> None:
        gate = yard.data / "terminal"
        child = self.spawn(yard, "submit", "work:hold", "--arg", f'"{gate}"', "--wait")
        child.expect("1 at work")
        child.expect("0/1")
        gate.touch()
        child.expect("index")
        child.expect("completed")
        child.expect("1 completed, in ")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0

    def test_ctrl_c_says_how_to_come_back(self, yard: TestYard) -> None:
        gate = yard.data / "interrupted"
        child = self.spawn(yard, "submit", "work:hold", "--arg", f'"{gate}"', "--wait")
        child.expect("1 at work")
        child.sendintr()
        child.expect("Ctrl-C again leaves, and job [0-9a-f]{12} goes on; 'taskyard cancel [0-9a-f]{12}' ends")
        child.sendintr()
        child.expect(
            "taskyard: interrupted; job [0-9a-f]{12} goes on: taskyard results [0-9a-f]{12} --follow"
        )
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 130
        gate.touch()

    def test_following_is_left_by_the_second_ctrl_c(self, yard: TestYard) -> None:
        gate = yard.data / "followed"
        yard.run("submit", "work:hold", "--arg", f'"{gate}"', "--job", "followed")
        child = self.spawn(yard, "results", "followed", "--follow")
        child.expect("1 at work")
        child.sendintr()
        child.expect("Ctrl-C again leaves")
        child.sendintr()
        child.expect("interrupted; job [0-9a-f]{12} goes on")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 130
        gate.touch()

    def test_results_reach_a_pipe_while_a_terminal_shows_the_bar(self, yard: TestYard) -> None:
        """Progress and results part: nothing of the one gets into the other."""
        gate, out = yard.data / "piped", yard.data / "piped.jsonl"
        items = yard.data / "items"
        items.write_text("".join(f"{n}\n" for n in range(2000)) + f'["{gate}"]\n')
        (yard.folder / "both").write_text(
            f"'{COMMAND[0]}' {' '.join(COMMAND[1:])} submit work:square_or_hold --input '{items}' --jsonl"
            f" --wait | cat > '{out}'\n"
        )
        child = pexpect.spawn(
            "bash", ["both"], cwd=str(yard.folder), dimensions=(30, 120), encoding="utf-8", timeout=30,
            env={name: value for name, value in os.environ.items() if name != "CI"} | {"TERM": "xterm"},
        )  # fmt: skip
        child.expect("1 at work")
        child.expect("2 workers")
        gate.touch()
        child.expect("2,001 completed, in ")
        child.expect(pexpect.EOF)
        child.close()
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert sorted(row["index"] for row in rows) == list(range(2001))

    def test_colours_and_width_are_the_users_choice(self, yard: TestYard) -> None:
        """Colours in a terminal, unless NO_COLOR is set; as wide as COLUMNS says, else as the terminal is."""
        yard.run("submit", "work:talk", "--range", "0:1", "--job", "coloured", "--wait")
        verbs = (("status", "coloured"), ("results", "coloured"), ("logs", "--grep", "joined"))
        for arguments in verbs:
            coloured = self.spawn(yard, *arguments).read()
            assert re.search(r"\x1b\[[\d;]*3\dm", coloured), arguments
            plain = self.spawn(yard, *arguments, NO_COLOR="1").read()
            assert not re.search(r"\x1b\[[\d;]*3\dm", plain), arguments
        for arguments in verbs[:2]:
            narrow = self.spawn(yard, *arguments, NO_COLOR="1", COLUMNS="48").read()
            lines = re.sub(r"\x1b\[[\d;]*m", "", narrow).splitlines()
            assert max(map(len, lines[:-1])) <= 48, narrow  # the last of results is for copying, and wraps

    @pytest.mark.parametrize("verb", ["status", "results", "logs", "check"])
    def test_a_pipe_gets_plain_text(self, yard: TestYard, verb: str) -> None:
        """Even where somebody asks for colours: programs read it."""
        yard.run("submit", "work:square", "--range", "0:1", "--job", f"plain-{verb}", "--wait")
        job = [f"plain-{verb}"] if verb in ("status", "results") else []
        done = yard.run(verb, *job, NO_COLOR="", TERM="xterm-256color")
        assert done.out and "\x1b" not in done.out + done.err
        assert "\r" not in done.out + done.err

    def test_status_can_be_watched(self, yard: TestYard) -> None:
        child = self.spawn(yard, "status", "--watch")
        child.expect(f"master {yard.address}")
        child.expect("up")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 130

    def test_a_yard_outlives_its_terminal(self, new_yard: NewYard) -> None:
        yard = new_yard()
        child = self.spawn(yard, "up", "--local", "--workers", "1")
        child.expect("the yard is up")
        child.close(force=True)  # which hangs up
        assert len(yard.run("submit", "work:square", "--range", "0:3", "--wait").rows()) == 3


class TestLiving(scenarios.Living):
    """As on every engine, and what only processes have."""

    local = ("--local",)

    def test_nothing_is_left_after_down(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "2", "--local")
        yard.run("submit", "work:square", "--range", "0:10", "--wait")
        before = pids(yard)
        yard.run("down")
        assert not any(is_alive(pid) for pid in before)
        left = sorted(path.name for path in (yard.folder / ".taskyard").iterdir())
        assert "journal.db" in left
        assert "supervisor.sock" not in left

    def test_a_killed_worker_and_a_killed_master_come_back(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "1", "--local")
        for kill in (0, 1):
            os.kill(pids(yard)[kill], signal.SIGKILL)
            rows = yard.run("submit", "work:square", "--range", "0:20", "--wait").rows()
            assert sorted(row["value"] for row in rows) == [n * n for n in range(20)]

    def test_down_waits_for_what_runs(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "1", "--local")
        gate = yard.data / "gate"
        yard.run("submit", "work:hold", "--arg", f'"{gate}"', "--job", "last")
        (worker,) = yard.busy(1)
        with yard.start("down") as process:
            eventually(lambda: "drains" in yard.run("logs").out, "the worker drains")
            assert is_alive(worker["pid"])
            gate.touch()
            assert process.wait(60) == 0
        yard.run("up", "--local")
        assert yard.job("last")["completed"] == 1

    def test_a_killed_supervisor_leaves_nothing_and_up_works_again(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "2", "--local")
        yard.run("submit", "work:square", "--range", "0:10", "--wait", "--job", "before")
        before = pids(yard)
        parent = int(Path(f"/proc/{before[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: not any(is_alive(pid) for pid in before), "all end with it")
        assert yard.run("scale", "1", code=3).err.startswith("taskyard: no yard runs in ")
        yard.run("up", "--local")
        assert len(yard.run("results", "before").rows()) == 10

    def test_a_module_that_does_not_import_costs_only_its_functions(self, new_yard: NewYard) -> None:
        yard = new_yard()
        (yard.folder / "tasks" / "broken.py").write_text("import not_there\n")
        yard.run("up", "--workers", "1", "--local")
        done = yard.run("submit", "broken:f", "--range", "0:1", code=2)
        reason = "module broken cannot be imported (ModuleNotFoundError: No module named 'not_there'"
        assert done.err.startswith(f"taskyard: no joined worker can run broken:f: {reason}")
        assert "ModuleNotFoundError" in yard.run("check", code=2).out
        assert len(yard.run("submit", "work:square", "--range", "0:3", "--wait").rows()) == 3

    def test_an_engine_that_is_missing_is_named(
        self, new_yard: NewYard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
        yard = new_yard()
        done = yard.run("up", "--containers", code=3)
        assert done.err.startswith("taskyard: no Docker engine answers (")
        assert done.err.endswith("): start it, or use 'taskyard up --local'\n")
        yard.run("up", "--local")
        assert "runs as processes: 'taskyard down' first" in yard.run("up", "--containers", code=2).err

    def test_a_journal_that_is_none_is_named(self, new_yard: NewYard) -> None:
        yard = new_yard()
        (yard.folder / ".taskyard").mkdir()
        (yard.folder / ".taskyard" / "journal.db").write_text("this is no journal" * 1000)
        done = yard.run("up", "--local", code=3)
        assert "the master does not start: " in done.err
        assert "journal" in done.err
        assert yard.run("down").err == "no yard runs here\n"

    def test_destroy_keeps_the_journal_unless_told(self, new_yard: NewYard) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "0", "--local")
        yard.run("destroy")
        assert sorted(p.name for p in (yard.folder / ".taskyard").iterdir() if "lock" not in p.name) == [
            ".gitignore", "journal.db",
        ]  # fmt: skip
        assert sqlite3.connect(yard.folder / ".taskyard" / "journal.db").execute("select 1").fetchone()
        yard.run("destroy", "--volumes")
        assert not (yard.folder / ".taskyard").exists()
        assert (yard.folder / ".env").exists()

    def test_a_new_folder_needs_nothing_but_run(self, tmp_path: Path) -> None:
        yard = TestYard(tmp_path / "yard")
        for name in ("tasks/work.py", ".env"):
            (yard.folder / name).unlink()
        (yard.folder / "tasks").rmdir()
        (yard.folder / "data").rmdir()
        done = yard.run("run", "squares:square", "--range", "0:10", "--ordered", "--local")
        try:
            assert [row["value"] for row in done.rows()] == [n * n for n in range(10)]
            assert "made .env with a new key" in done.err
        finally:
            yard.run("down")
