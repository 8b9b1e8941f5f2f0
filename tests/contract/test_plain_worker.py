"""TASKYARD_DIALECT=plain: our worker serves stdlib masters, those of the tutorials word for word."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from scripted_master import KEY, Worker
from scripts import TUTORIALS, Script, all_pythons
from support import eventually

from taskyard import plain, values
from taskyard.errors import PayloadError
from taskyard_worker import plain_link

SQUARES = 'def work(n): return "%d * %d = %d" % (n, n, n * n)'
SLEEPS = "import time\ndef work(n):\n    time.sleep(0.01)\n    return n, 0.01"

# A master for everything that the tutorials don't do: what it is told on stdin, line by line.
MASTER = """
import queue, sys
from multiprocessing.managers import BaseManager
tasks, results = queue.Queue(), queue.Queue()
class Manager(BaseManager): pass
Manager.register(sys.argv[4], callable=lambda: tasks)
Manager.register(sys.argv[5], callable=lambda: results)
if __name__ == "__main__":
    import datetime, collections
    manager = Manager(address=("127.0.0.1", int(sys.argv[2])), authkey=sys.argv[3].encode())
    manager.start()
    task, result = getattr(manager, sys.argv[4])(), getattr(manager, sys.argv[5])()
    print("ready")
    for line in sys.stdin:
        print(repr(eval(line)))
    manager.shutdown()
    print("over")
"""


@pytest.fixture
def port() -> int:
    """A free port below those that the system draws for outgoing connections, which could take it."""
    while True:
        with suppress(OSError), socket.create_server(("", random.randrange(20_000, 30_000))) as probe:
            return int(probe.getsockname()[1])


@contextmanager
def working(tmp_path: Path, port: int, source: str, **settings: object) -> Iterator[Worker]:
    folder = tmp_path / "tasks"
    folder.mkdir(exist_ok=True)
    (folder / "tasks.py").write_text(source)
    worker = Worker(folder, port, **({"dialect": "plain", "function": "tasks:work"} | settings))
    try:
        yield worker
    finally:
        worker.stop()


class Told:
    """The master that does what it is told."""

    def __init__(self, folder: Path, port: int, program: str = sys.executable, tasks: str = "get_task",
                 results: str = "get_result") -> None:  # fmt: skip
        path = folder / "master.py"
        path.write_text(MASTER)
        self.script = Script(program, path, "127.0.0.1", port, KEY, tasks, results)
        assert self.script.line() == "ready"

    def do(self, line: str) -> str:
        stdin = self.script.process.stdin
        assert stdin
        stdin.write(line + "\n")
        stdin.flush()
        return self.script.line()

    def end(self) -> None:
        assert self.script.output().endswith("over\n")


@contextmanager
def told(folder: Path, port: int, **how: str) -> Iterator[Told]:
    master = Told(folder, port, **how)
    try:
        yield master
    finally:
        if master.script.process.returncode is None:
            with suppress(subprocess.TimeoutExpired):  # its manager is a process of its own, which it ends
                master.script.process.communicate(timeout=10)
            master.script.kill()


# ---------------------------------------------------------------- the tutorials


@pytest.mark.parametrize("version", all_pythons())
@pytest.mark.parametrize("script", ["own_master_ten_results.py", "own_master_until_full.py"])
def test_the_tutorials_masters_are_served(tmp_path: Path, port: int, script: str, version: str) -> None:
    """The worker is there first, waits, works, and ends with the master, both with code 0."""
    source = SQUARES if "ten" in script else SLEEPS
    with working(tmp_path, port, source, slots=2) as worker:
        eventually(lambda: "waiting for the master" in worker.err)
        master = Script(all_pythons()[version], TUTORIALS / script, "127.0.0.1", port, KEY)
        said = master.output()
        assert said.count("Result: " if "ten" in script else "is finish , runtime:0 s") == 10
        assert said.endswith("master exit.\n")
        assert worker.code() == 0
        assert "the work is done: 10 tasks" in worker.err
        assert "Traceback" not in worker.err


# ---------------------------------------------------------------- values


VALUES = (
    "'text'",
    "b'bytes'",
    "(1, [2.5, None], {'a': {3}})",
    "2**200",
    "datetime.date(2024, 2, 29)",
    "collections.OrderedDict(a=1)",
    "'x' * 100000",
)


def test_values_travel_as_they_are(tmp_path: Path, port: int) -> None:
    """Text, bytes, containers, exceptions to plain data such as dates, both ways."""
    with told(tmp_path, port) as master, working(tmp_path, port, "def work(n): return n"):
        for value in VALUES:
            master.do(f"task.put({value})")
            assert master.do(f"result.get(timeout=20) == {value}") == "True", value


@pytest.mark.parametrize(
    "value", [(1, 0.5), "text", b"bytes" * 100, [{"a": (None, True)}], 2**100, ("x",) * 300]
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_request_holds_a_finished_pickle(value: object, protocol: int) -> None:
    import pickle

    pickled = pickle.dumps(value, protocol)
    assert pickle.loads(plain_link.request("id", "put", pickled)) == ("id", "put", (value,), {})
    assert plain.loads(plain_link.request("id", "put", values.dumps(value))) == ("id", "put", (value,), {})
    with pytest.raises(PayloadError):
        plain_link.request("id", "put", b"no pickle")


# ---------------------------------------------------------------- trouble


def test_a_task_that_fails_gives_no_result_and_is_logged(tmp_path: Path, port: int) -> None:
    source = """
import os
def work(n):
    if n == 1: raise ValueError("no luck")
    if n == 2: os._exit(3)
    return n
"""
    with told(tmp_path, port) as master, working(tmp_path, port, source) as worker:
        for n in (0, 1, 2, 3):
            master.do(f"task.put({n})")
        assert master.do("[result.get(timeout=20) for _ in range(2)]") == "[0, 3]"
        assert "task plain/2 gives no result: ValueError: no luck" in worker.err
        assert "task plain/3 gives no result: its process ended with exit code 3" in worker.err
        master.end()
        assert worker.code() == 0


def test_a_slot_killed_from_outside_runs_its_task_again(tmp_path: Path, port: int) -> None:
    source = """
import os, pathlib, time
here = pathlib.Path(__file__).parent.parent
def work(n):
    (here / f"begun{n}-{os.getpid()}").touch()
    while not (here / "go").exists():
        time.sleep(0.002)
    return n
"""
    with told(tmp_path, port) as master, working(tmp_path, port, source, slots=2):
        master.do("[task.put(n) for n in (0, 1)]")
        eventually(lambda: len(list(tmp_path.glob("begun*"))) == 2)
        first = next(tmp_path.glob("begun0-*"))
        os.kill(int(first.name.rpartition("-")[2]), signal.SIGKILL)
        eventually(lambda: len(list(tmp_path.glob("begun0-*"))) == 2)
        (tmp_path / "go").touch()
        assert master.do("sorted(result.get(timeout=20) for _ in range(2))") == "[0, 1]"


@pytest.mark.parametrize("stop", [False, True])
def test_a_signal_finishes_or_gives_back_what_is_in_hand(tmp_path: Path, port: int, stop: bool) -> None:
    source = """
import pathlib, time
here = pathlib.Path(__file__).parent.parent
def work(n):
    (here / "begun").touch()
    while not (here / "go").exists():
        time.sleep(0.002)
    return n
"""
    with told(tmp_path, port) as master, working(tmp_path, port, source) as worker:
        master.do("task.put(7)")
        master.do("task.put(8)")
        eventually((tmp_path / "begun").exists)
        worker.signal()
        if stop:
            eventually(lambda: "drains" in worker.err)
            worker.signal()
            assert worker.code() == 130
            assert master.do("sorted(task.get(timeout=20) for _ in range(2))") == "[7, 8]"
        else:
            (tmp_path / "go").touch()
            assert worker.code() == 0
            assert master.do("result.get(timeout=20), task.get(timeout=20)") == "(7, 8)"


def test_the_other_names_are_tried(tmp_path: Path, port: int) -> None:
    names = {"tasks": "task_queue", "results": "result_queue"}
    with told(tmp_path, port, **names) as master, working(tmp_path, port, SQUARES) as worker:
        master.do("task.put(3)")
        assert master.do("result.get(timeout=20)") == "'3 * 3 = 9'"
        master.end()
        assert worker.code() == 0


FATAL = {
    "names": ({"plain_tasks": "nosuch"}, 2, "has no queue named nosuch: set TASKYARD_PLAIN_TASKS"),
    "key": ({"authkey": "another-key-entirely"}, 4, "TASKYARD_AUTHKEY"),
    "function": ({"function": "tasks:wrok"}, 2, "did you mean tasks:work?"),
    "none": ({"function": ""}, 2, "TASKYARD_FUNCTION: is not set"),
}


@pytest.mark.parametrize("name", FATAL)
def test_what_cannot_work_ends_with_one_line(tmp_path: Path, port: int, name: str) -> None:
    settings, code, words = FATAL[name]
    with told(tmp_path, port), working(tmp_path, port, SQUARES, **settings) as worker:
        assert worker.code() == code
        assert words in worker.err
        assert len(worker.err.splitlines()) == 1
