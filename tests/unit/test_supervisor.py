"""The supervisor with real processes, stand-ins for master and workers."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from taskyard.errors import EngineError, UnreachableError
from taskyard_ctl.interface import Member
from taskyard_ctl.local import LocalEngine
from taskyard_ctl.yard import YardFolder

KEY = "0123456789abcdef"
SLEEPER = "import signal, sys; print('here I am', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('never', flush=True)\n"
    "while True: signal.pause()"
)
PARENT = (
    "import subprocess, signal, sys; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True);"
    " signal.pause()"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> YardFolder:
    (tmp_path / ".env").write_text(
        f"TASKYARD_ADDRESS=127.0.0.1:{free_port()}\nTASKYARD_AUTHKEY={KEY}\nTASKYARD_DRAIN=5\n"
    )
    return YardFolder(tmp_path)


Start = Callable[..., LocalEngine]


@pytest.fixture
def start(folder: YardFolder) -> Iterator[Start]:
    """Starts a yard of stand-ins, which is gone after the test."""
    started: list[LocalEngine] = []

    def run(worker: str = SLEEPER, master: str = SLEEPER, workers: int = 2) -> LocalEngine:
        engine = LocalEngine(folder, python(master), python(worker))
        started.append(engine)
        engine.up(workers, print)
        return engine

    yield run
    for engine in started:
        with suppress(EngineError):
            engine.down(0.0, print)


def member(engine: LocalEngine, name: str) -> Member:
    return next(m for m in engine.members() if m.name == name)


def running(engine: LocalEngine, name: str, besides: int = 0) -> Member:
    return eventually(
        lambda: next(
            (m for m in engine.members() if m.name == name and m.pid and m.pid != besides), None
        ),
        f"{name} runs",
    )  # fmt: skip


def logged(folder: YardFolder, name: str, text: str) -> None:
    path = folder.state / "logs" / f"{name}.log"
    eventually(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")


def supervisor_pid(folder: YardFolder) -> int:
    return int((folder.state / "supervisor.lock").read_text())


def test_it_starts_master_and_workers_and_stops_them(start: Start, folder: YardFolder) -> None:
    engine = start(workers=2)
    members = [running(engine, name) for name in ("master", "worker-1", "worker-2")]
    for m in members:
        logged(folder, m.name, "here I am")
    assert [m.role for m in members] == ["master", "worker", "worker"]
    engine.down(5.0, print)
    assert not engine.running()
    assert not any(is_alive(m.pid) for m in members)
    assert not (folder.state / "supervisor.sock").exists()


def test_what_dies_is_started_again(start: Start) -> None:
    engine = start(workers=1)
    for name in ("master", "worker-1"):
        before = running(engine, name)
        os.kill(before.pid, signal.SIGKILL)
        assert running(engine, name, besides=before.pid).state == "running"


def test_what_dies_at_once_is_started_with_backoff_and_named(start: Start, folder: YardFolder) -> None:
    engine = start(master="import sys; sys.exit('the port is in use')", workers=0)
    fault = eventually(engine.fault)
    assert fault == "the master does not start: the port is in use"
    state = engine._ask("state")
    assert state is not None
    assert 1 <= state["children"][0]["restarts"] < 10


def test_a_command_that_is_not_there_is_named(folder: YardFolder) -> None:
    engine = LocalEngine(folder, ["/no/such/program"], python(SLEEPER))
    try:
        engine.up(0, print)
        assert "No such file" in eventually(engine.fault)
    finally:
        engine.down(0.0, print)


def test_growing_fills_free_names_and_removing_takes_exactly_one(start: Start) -> None:
    engine = start(workers=3)
    kept = [running(engine, f"worker-{i}").pid for i in (1, 3)]
    engine.remove(running(engine, "worker-2"), 5.0)
    assert [m.name for m in engine.members()] == ["master", "worker-1", "worker-3"]
    engine.grow(4)
    names = {m.name for m in engine.members()}
    assert names == {"master", "worker-1", "worker-2", "worker-3", "worker-4"}
    assert [member(engine, f"worker-{i}").pid for i in (1, 3)] == kept
    with pytest.raises(EngineError, match="no worker is named"):
        engine.remove(Member("worker-9", "worker", "running"), 1.0)


def test_a_stubborn_one_is_killed_at_the_deadline(start: Start, folder: YardFolder) -> None:
    engine = start(worker=STUBBORN, workers=1)
    logged(folder, "worker-1", "never")
    pid = member(engine, "worker-1").pid
    engine.remove(member(engine, "worker-1"), 0.1)
    assert not is_alive(pid)
    assert "killed" in (folder.state / "supervisor.log").read_text()


def test_a_second_stop_makes_the_first_sooner(start: Start, folder: YardFolder) -> None:
    engine = start(worker=STUBBORN, workers=1)
    logged(folder, "worker-1", "never")
    patient = subprocess.Popen(
        python(f"""
from pathlib import Path
from taskyard_ctl.local import LocalEngine
from taskyard_ctl.yard import YardFolder
LocalEngine(YardFolder(Path({str(folder.path)!r}))).down(1000.0, print)
""")
    )
    eventually(lambda: member(engine, "worker-1").state == "stopping")
    engine.down(0.0, print)
    assert patient.wait(10) == 0
    assert not engine.running()


def test_children_of_a_child_die_with_it(start: Start, folder: YardFolder) -> None:
    engine = start(worker=PARENT, workers=1)
    path = folder.state / "logs" / "worker-1.log"
    line = eventually(lambda: path.exists() and path.read_text().strip())
    grandchild = int(str(line).split()[-1])
    before = running(engine, "worker-1").pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: not is_alive(grandchild), "the grandchild dies")


def test_a_killed_supervisor_leaves_no_orphan(start: Start, folder: YardFolder) -> None:
    engine = start(worker=STUBBORN, workers=2)
    pids = [running(engine, name).pid for name in ("master", "worker-1", "worker-2")]
    os.kill(supervisor_pid(folder), signal.SIGKILL)
    for pid in pids:
        eventually(lambda pid=pid: not is_alive(pid), f"{pid} dies")
    assert not engine.running()
    again = start(workers=1)  # leftovers do not matter
    running(again, "worker-1")


def test_sigterm_stops_it_as_down_does(start: Start, folder: YardFolder) -> None:
    engine = start(workers=1)
    pids = [running(engine, name).pid for name in ("master", "worker-1")]
    os.kill(supervisor_pid(folder), signal.SIGTERM)
    eventually(lambda: not engine.running())
    assert not any(is_alive(pid) for pid in pids)


def test_it_does_not_hang_on_the_terminal(start: Start, folder: YardFolder) -> None:
    engine = start(workers=1)
    pid = supervisor_pid(folder)
    assert os.getsid(pid) == pid
    assert os.getsid(running(engine, "worker-1").pid) != os.getsid(0)
    for fd in (0, 1, 2):
        assert str(Path(f"/proc/{pid}/fd/{fd}").readlink()) == os.devnull


def test_a_second_supervisor_for_the_same_yard_is_refused(start: Start) -> None:
    start(workers=0)
    with pytest.raises(EngineError, match="another supervisor keeps the yard"):
        start(workers=0)


def test_a_port_in_use_starts_nothing(start: Start, folder: YardFolder) -> None:
    with (
        socket.create_server(folder.settings.endpoint),
        pytest.raises(UnreachableError, match="is in use") as error,
    ):
        start()
    assert error.value.exit_code == 3
    assert not (folder.state / "supervisor.log").exists()


def test_a_long_path_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = tmp_path / ("long-" * 20)
    deep.mkdir()
    (deep / ".env").write_text(f"TASKYARD_ADDRESS=127.0.0.1:{free_port()}\nTASKYARD_AUTHKEY={KEY}\n")
    engine = LocalEngine(YardFolder(deep), python(SLEEPER), python(SLEEPER))
    engine.up(1, print)
    try:
        assert running(engine, "worker-1")
        assert not (deep / ".taskyard" / "supervisor.sock").exists()
    finally:
        engine.down(5.0, print)
    assert list(runtime.rglob("*.sock")) == []


def test_children_get_the_callers_environment_and_the_yards(
    start: Start, folder: YardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "from the caller")
    names = "os.environ['MINE'], os.environ['TASKYARD_JOURNAL'], os.getcwd()"
    start(worker=f"import os, signal; print({names}, flush=True); signal.pause()", workers=1)
    logged(folder, "worker-1", f"from the caller {folder.path}/.taskyard/journal.db {folder.path}")


def test_a_stranger_on_the_socket_does_no_harm(start: Start, folder: YardFolder) -> None:
    engine = start(workers=0)
    answers: list[Any] = []
    for words in (b"nonsense\n", b'{"verb": "fly"}\n', b'["verb"]\n', b"{}\n"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(folder.state / "supervisor.sock"))
            peer.sendall(words)
            answers.append(peer.makefile().readline())
    assert all('"error"' in answer for answer in answers)
    assert engine.running()
