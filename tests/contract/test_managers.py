"""Tutorials' master scripts with one import changed, in real processes, with unmodified workers."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from multiprocessing import ProcessError
from multiprocessing.managers import BaseManager as StdlibManager
from pathlib import Path
from queue import Empty, Queue

import pytest
from lab import free_port
from scripts import TUTORIALS, Script
from support import eventually

from taskyard.errors import UnreachableError, UsageError
from taskyard.managers import BaseManager

KEY = "a key of some length"


class Master(Script):
    """A master script in a folder of its own, and the master that it has started."""

    def __init__(self, folder: Path, name: str, port: int = 0) -> None:
        self.script = folder / name
        self.log = folder / ".taskyard" / self.script.stem / "master.log"
        if not self.script.exists():
            shutil.copy(TUTORIALS / name, folder)
        super().__init__(sys.executable, self.script, "127.0.0.1", port, KEY)
        self.port = int(self.line().removeprefix("address "))

    def lines_until(self, pattern: str, count: int) -> None:
        """Read on until so many lines have matched."""
        while count:
            line = self.line()
            assert line, self.process.communicate()
            count -= bool(re.match(pattern, line))

    @property
    def starts(self) -> int:
        return self.log.read_text().count("master listens on")

    @property
    def child(self) -> int:
        """The pid of the master."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        others = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = {*found, *(pid for path in others for pid in path.read_text().split())}
        [pid] = [p for p in pids if b"taskyard_master" in Path(f"/proc/{p}/cmdline").read_bytes()]
        return int(pid)

    def kill_child(self) -> None:
        """kill -9 the master, and wait until the script has started it again."""
        starts = self.starts
        os.kill(self.child, signal.SIGKILL)
        eventually(lambda: self.starts > starts, "the master was started again")


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[Master]]:
    """Killed at the end."""
    started: list[Master] = []
    yield started
    for master in started:
        if master.process.poll() is None:
            master.kill()


def worker(name: str, master: Master) -> Script:
    return Script(sys.executable, TUTORIALS / name, "127.0.0.1", master.port, KEY)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_ten_results(tmp_path: Path, masters: list[Master]) -> None:
    master = Master(tmp_path, "serves_ten_results.py")
    masters.append(master)
    child = master.child
    workers = [worker("worker_queue_names.py", master) for _ in range(2)]
    out = master.output()
    assert len(re.findall(r"^Result: (\d+) \* \1 = \d+$", out, re.M)) == 10
    assert out.endswith("master exit.\n") and gone(child)
    for one in workers:
        one.process.communicate(timeout=20)  # its master may be gone before it asks again, as in the tutorial


def test_until_the_result_queue_is_full(tmp_path: Path, masters: list[Master]) -> None:
    master = Master(tmp_path, "serves_until_full.py")
    masters.append(master)
    master.lines_until("put task", 10)
    workers = [worker("worker_until_empty.py", master) for _ in range(3)]
    assert len(set(re.findall(r"^task (\d+) is finish , runtime:[01] s$", master.output(), re.M))) == 10
    for one in workers:
        one.process.communicate(timeout=20)


def test_the_master_is_killed_in_the_middle_of_ten_results(tmp_path: Path, masters: list[Master]) -> None:
    """The script never learns of it; the worker does, and is started again as people do."""
    master = Master(tmp_path, "serves_ten_results.py")
    masters.append(master)
    first = worker("worker_queue_names.py", master)
    master.lines_until("Result:", 3)
    master.kill_child()
    first.process.communicate(timeout=20)
    second = worker("worker_queue_names.py", master)
    out = master.output()
    assert out.count("Result: ") == 7 and out.endswith("master exit.\n")
    second.process.communicate(timeout=20)


def test_the_master_is_killed_before_the_result_queue_is_full(tmp_path: Path, masters: list[Master]) -> None:
    master = Master(tmp_path, "serves_until_full.py")
    masters.append(master)
    master.lines_until("put task", 10)
    first = worker("worker_until_empty.py", master)
    first.line(), first.line(), first.line(), first.line()
    master.kill_child()
    first.process.communicate(timeout=20)
    rest = [worker("worker_until_empty.py", master) for _ in range(3)]
    assert len(set(re.findall(r"^task (\d+) is finish", master.output(), re.M))) == 10
    for one in rest:
        one.process.communicate(timeout=20)


def connected(port: int, *names: str) -> StdlibManager:
    class Client(StdlibManager):
        pass

    for name in names:
        Client.register(name)
    client = Client(("127.0.0.1", port), KEY.encode())
    client.connect()
    return client


def test_serve_forever_one_queue_and_what_was_put_before(tmp_path: Path, masters: list[Master]) -> None:
    """The documentation's example: whoever gets an item has it, and no result is waited for."""
    master = Master(tmp_path, "serves_forever.py")
    masters.append(master)
    queue = connected(master.port, "get_queue").get_queue()  # type: ignore[attr-defined]
    assert queue.get(timeout=10) == "put before the start"
    queue.put("hello")
    assert connected(master.port, "get_queue").get_queue().get(timeout=10) == "hello"  # type: ignore[attr-defined]
    assert queue.qsize() == 0
    child = master.child
    master.process.send_signal(signal.SIGINT)
    assert master.output(20) == ""
    assert gone(child)


def test_the_master_ends_with_a_script_that_is_killed_and_keeps_its_tasks(tmp_path: Path) -> None:
    master = Master(tmp_path, "serves_until_full.py")
    master.lines_until("put task", 10)
    eventually(lambda: connected(master.port, "get_task").get_task().qsize() == 10)  # type: ignore[attr-defined]
    child = master.child
    master.kill()
    eventually(lambda: gone(child), "the master ended with its parent")

    class Queues(BaseManager):
        pass

    Queues.register("get_task", callable=Queue)
    with Queues(None, KEY.encode(), folder=master.log.parent) as manager:
        assert sorted(manager.get_task().get() for _ in range(10)) == list(range(10))  # type: ignore[attr-defined]


def test_what_was_accepted_is_there_when_the_script_starts_again(tmp_path: Path) -> None:
    class Queues(BaseManager):
        pass

    tasks, results = Queue(), Queue()  # type: ignore[var-annotated]
    Queues.register("get_task", callable=lambda: tasks)
    Queues.register("get_result", callable=lambda: results)
    for expected in ([], [1, 2]):
        with Queues(("127.0.0.1", 0), KEY.encode(), folder=tmp_path) as manager:
            queue = manager.get_task()  # type: ignore[attr-defined]
            found = []
            while not queue.empty():
                found.append(queue.get())
            assert found == expected
            queue.put(1), queue.put(2)
            with pytest.raises(Empty):
                manager.get_result().get(timeout=0.01)  # type: ignore[attr-defined]
            pid = manager._child.pid  # type: ignore[union-attr]
        assert gone(pid)
    with pytest.raises(ProcessError, match="shut down"):
        manager.start()


@pytest.mark.parametrize("key", [b"abc", b"qiye", None, b"\xff" * 32])
def test_a_key_that_is_easy_to_guess_is_refused(key: bytes | None) -> None:
    with pytest.raises(UsageError, match="16 characters or more, for instance authkey=b'"):
        BaseManager(("", 5000), key)


def test_what_a_yard_cannot_serve_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(match: str, **queues: object) -> None:
        class Some(BaseManager):
            pass

        for name, made in queues.items():
            Some.register(name, callable=lambda made=made: made)
        with pytest.raises(UsageError, match=match):
            Some(None, KEY.encode(), folder=tmp_path).start()

    fails("nothing to serve")
    fails("shared is a dict: a yard has queues only", shared={})
    fails("get_a and get_b would be one queue", get_a=Queue(), get_b=Queue())
    with pytest.raises(UsageError, match="TCP port"):
        BaseManager("/tmp/socket", KEY.encode())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="serializer"):
        BaseManager(None, KEY.encode(), "xmlrpclib")
    monkeypatch.setenv("TASKYARD_TLS_CERT", "cert.pem")
    fails("TLS", get_task=Queue())


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    class Queues(BaseManager):
        pass

    Queues.register("get_task", callable=Queue)
    port = free_port()
    with Queues(("127.0.0.1", port), KEY.encode(), folder=tmp_path / "one") as manager:
        assert manager.address == ("127.0.0.1", port)
        with pytest.raises(UnreachableError, match=r"the master did not start: .*in use.*master\.log"):
            Queues(("127.0.0.1", port), KEY.encode(), folder=tmp_path / "two").start()
        with pytest.raises(ProcessError, match="Already started"):
            manager.start()
