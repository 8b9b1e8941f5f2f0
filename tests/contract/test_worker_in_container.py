"""The worker where it usually lives: as the first process of a container, within a memory limit.

Without an engine: the namespace and the control group alone, on machines that let us make them.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_master import Master, grant, scripted
from support import eventually

V1 = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    with scripted(tmp_path) as master:
        yield master


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group whose processes may use 150 MiB together."""
    base = V1 if V1.is_dir() else Path("/sys/fs/cgroup")
    path = base / f"taskyard-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if V1.is_dir() else "memory.max"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (path / limit).write_text(str(150 << 20))
    except OSError as error:
        path.rmdir()
        pytest.skip(f"no memory limit can be set here: {error}")
    yield path
    eventually(lambda: not (path / "cgroup.procs").read_text())
    path.rmdir()


SOURCE = """
import time
def work(n):
    if n == 3:
        return len(b"x" * (400 << 20))
    return n
"""


@pytest.mark.parametrize("slots", [1, 2])
def test_a_task_that_takes_all_memory_costs_itself(group: Path, master: Master, slots: int) -> None:
    """The kernel takes the slot and not the agent; the reason names the limit."""
    enter = ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh")
    worker = master.worker(SOURCE, enter, slots=slots)
    connection = master.join().welcome()
    connection.serve([grant(1, 0, list(range(8))), grant(2, 8, list(range(8, 20)))])
    outcomes = connection.settled(*range(20))
    bad = {index: each for index, each in outcomes.items() if each[0] != "completed"}
    assert list(bad) == [3], (bad, worker.err)
    kind, failure = bad[3]
    if kind == "killed":
        assert failure.message == (
            "its process was killed by signal 9, out of memory: container limit 150 MiB"
        )
    else:
        assert (kind, slots) == ("suspect", 2)
    assert "killed by signal 9, out of memory: container limit 150 MiB" in worker.err
    worker.signal()
    assert worker.code() == 0


ORPHANS = """
import os, time
def work(n):
    if n == 1 and os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.2)
        os._exit(0)
    if n == 2:
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(1)
    return n
"""


def test_the_first_process_reaps_orphans_and_hears_signals(master: Master) -> None:
    """In a process namespace of its own: what tasks leave behind goes, and SIGTERM drains."""
    enter = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace can be made here")
    worker = master.worker(ORPHANS, enter)
    connection = master.join().welcome()
    assert connection.hello.pid == 1
    connection.serve([grant(n, n, [n]) for n in range(4)])
    connection.settled(0, 1, 2, 3)
    (first,) = children(worker.process.pid)
    eventually(lambda: len(children(first)) == 1, "no zombies beside the slot")
    os.kill(first, signal.SIGTERM)
    assert worker.code() == 0


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
