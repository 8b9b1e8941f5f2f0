"""Slots with real processes: whatever a task does to its process costs that one task.

Every test runs a bad task among good ones and checks that each neighbour comes to its
end exactly once, and is not charged for what it did not do.
"""

import asyncio
import os
import signal
import textwrap
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually

from taskyard import batch, messages, values
from taskyard.messages import Failure, Outcome
from taskyard_worker import memory
from taskyard_worker.pieces import Piece
from taskyard_worker.process import Start
from taskyard_worker.slots import Limits, Slots

PAYLOAD = 1 << 20
SECONDS = 30.0  # deadline of every wait


class Bench:
    """An owner that hands pieces to slots, `handful` tasks at a time, and notes what becomes of them."""

    def __init__(self, folder: Path, limits: Limits, handful: int) -> None:
        self.outcomes: dict[int, list[tuple[str, object]]] = {}
        self.runs: list[Outcome] = []
        self.lines: list[tuple[str, str]] = []
        self.queue: deque[Piece] = deque()
        self.returns = 0
        self.handful = handful
        self.changed = asyncio.Event()
        self.slots = Slots(Start(folder, PAYLOAD), limits, self, self.emit)

    def emit(self, tag: str, line: str) -> None:
        self.lines.append((tag, line))
        self.changed.set()

    def settled(self, _: Piece, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.runs.append(outcome)
            items: list[bytes] = [b""] * outcome.count
            if outcome.block:
                items = batch.unpack(outcome.block, outcome.count)
            for index, item in enumerate(items, start=outcome.first):
                value: object = None
                if outcome.kind == "completed":
                    value = values.loads(item)
                elif item:
                    value = messages.decode_failure(item)
                self.outcomes.setdefault(index, []).append((outcome.kind, value))
        self.changed.set()

    def returned(self, back: Piece) -> None:
        self.returns += back.count
        self.queue.appendleft(back)
        asyncio.get_running_loop().call_soon(self.fill)

    def hungry(self) -> None:
        asyncio.get_running_loop().call_soon(self.fill)

    def fill(self) -> None:
        for slot in self.slots.free():
            if not self.queue:
                return
            first = self.queue.popleft()
            count = min(self.handful, slot.fits(first))
            if count < first.count:
                self.queue.appendleft(first.cut(count, first.count))
            self.slots.give(slot, first.cut(0, count))

    async def until(self, true: Callable[[], object], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            left = deadline - time.monotonic()
            assert left > 0, f"waited {seconds} s; outcomes {self.outcomes}, lines {self.lines[-20:]}"
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), min(left, 0.02))
            except TimeoutError:
                continue

    def kinds(self) -> dict[int, str]:
        """What became of each task; fails if something became of one twice."""
        assert all(len(each) == 1 for each in self.outcomes.values()), self.outcomes
        return {index: each[0][0] for index, each in self.outcomes.items()}

    def failure(self, index: int) -> Failure:
        kind, value = self.outcomes[index][0]
        assert isinstance(value, Failure), (kind, value)
        return value


def piece(lease: int, job: str, first: int, payloads: list[bytes], timeout: float = 0.0) -> Piece:
    count = len(payloads)
    return Piece(lease, job, "tasks:work", timeout, False, first, count, batch.pack(payloads), count)


def run(
    tmp_path: Path, source: str, inputs: list[object], *, slots: int = 1, handful: int = 100,
    timeout: float = 0.0, recycle: int = 0, prints: int = 65536,
    during: Callable[[Bench], object] | None = None,
) -> Bench:  # fmt: skip
    """Run `tasks:work` of this source over the inputs and return the bench once all have ended."""
    (tmp_path / "tasks.py").write_text(textwrap.dedent(source))

    async def main() -> Bench:
        bench = Bench(tmp_path, Limits(slots, recycle, prints), handful)
        bench.slots.start()
        bench.queue.append(piece(7, "job", 0, [values.dumps(value) for value in inputs], timeout))
        bench.fill()
        try:
            if during is not None:
                await asyncio.get_running_loop().run_in_executor(None, during, bench)
            await bench.until(lambda: len(bench.outcomes) == len(inputs))
        finally:
            await bench.slots.stop()
        return bench

    return asyncio.run(main())


def all_but(bench: Bench, *bad: int, count: int) -> None:
    """Every task completed once, except the bad ones, which have one outcome too."""
    kinds = bench.kinds()
    assert sorted(kinds) == list(range(count))
    assert {index for index, kind in kinds.items() if kind != "completed"} == set(bad)


def test_values_come_back_in_order(tmp_path: Path) -> None:
    """Many quick tasks over two slots, each outcome once, merged into few runs."""
    bench = run(tmp_path, "def work(n): return n * n", list(range(5000)), slots=2, handful=1000)
    all_but(bench, count=5000)
    assert [bench.outcomes[n][0][1] for n in range(5000)] == [n * n for n in range(5000)]
    assert len(bench.runs) < 100


BAD = {
    "raise": ("raise ValueError('no\\nluck')", "failed", "raised", "no | luck"),
    "sys.exit": ("import sys; sys.exit(3)", "failed", "raised", "sys.exit(3)"),
    "interrupt": ("raise KeyboardInterrupt", "failed", "raised", ""),
    "os._exit": ("import os; os._exit(3)", "killed", "killed", "exit code 3"),
    "segfault": ("import ctypes; ctypes.string_at(1)", "killed", "killed", "signal 11 (segmentation fault)"),
    "abort": ("import os; os.abort()", "killed", "killed", "signal 6 (abort)"),
    "kill": ("import os; os.kill(os.getpid(), 9)", "killed", "killed", "signal 9, probably out of memory"),
    "huge": ("return b'x' * (1 << 20)", "refused", "refused", "TASKYARD_PAYLOAD"),
    "unpicklable": ("return lambda: 1", "refused", "refused", ""),
    "pickle raises": ("return Bad()", "refused", "refused", ""),
    "recursion": ("return work(n)", "failed", "raised", "recursion"),
    "bad error": ("raise Worse", "failed", "raised", "text cannot be made"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_task_costs_itself(tmp_path: Path, name: str) -> None:
    body, kind, reason, words = BAD[name]
    source = f"""
        class Bad:
            def __reduce__(self):
                raise RuntimeError('never')
        class Worse(Exception):
            def __str__(self):
                raise RuntimeError('never')
        def work(n):
            if n == 42:
                {body}
            return n
    """
    bench = run(tmp_path, source, list(range(100)))
    all_but(bench, 42, count=100)
    failure = bench.failure(42)
    assert bench.kinds()[42] == kind
    assert failure.reason == reason
    assert words in failure.message
    assert "slot.py" not in failure.traceback
    if name == "raise":
        assert failure.type == "ValueError"
        assert 'tasks.py", line' in failure.traceback
        error = values.loads(failure.exception)
        assert isinstance(error, ValueError)
        assert str(error) == "no\nluck"


def test_every_task_is_bad(tmp_path: Path) -> None:
    """Slots die one after the other; each death is charged to one task."""
    bench = run(tmp_path, "import os\ndef work(n): os._exit(n + 1)", list(range(6)), slots=2, handful=3)
    assert bench.kinds() == dict.fromkeys(range(6), "killed")
    assert sorted(bench.failure(n).message for n in range(6)) == [
        f"its process ended with exit code {n + 1}" for n in range(6)
    ]


def test_killed_from_outside_while_others_run_is_suspect(tmp_path: Path) -> None:
    """A kill -9 from somewhere is not held against the task when other slots were at work."""
    source = """
        import os, pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            if n < 2:
                (here / f"pid{n}").write_text(str(os.getpid()))
                while not (here / "go").exists():
                    time.sleep(0.001)
            return n
    """

    def during(bench: Bench) -> None:
        pids = [eventually(lambda n=n: written(tmp_path / f"pid{n}")) for n in (0, 1)]
        os.kill(int(pids[1]), 9)
        eventually(lambda: 1 in bench.outcomes)
        (tmp_path / "go").touch()

    bench = run(tmp_path, source, list(range(20)), slots=2, handful=1, during=during)
    all_but(bench, 1, count=20)
    assert bench.kinds()[1] == "suspect"


def test_a_hang_in_c_is_killed_at_its_timeout(tmp_path: Path) -> None:
    """C code that never returns to Python, with what it has started."""
    source = """
        import ctypes, os, pathlib, subprocess
        def work(n):
            if n == 3:
                child = subprocess.Popen(["sleep", "1000"])
                (pathlib.Path(__file__).parent / "child").write_text(str(child.pid))
                ctypes.CDLL(None).pause()
            return n
    """
    bench = run(tmp_path, source, list(range(10)), timeout=0.3)
    all_but(bench, 3, count=10)
    assert bench.kinds()[3] == "timeout"
    assert bench.failure(3).reason == "timed out"
    assert "0.3 s" in bench.failure(3).message
    assert not alive(int((tmp_path / "child").read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def written(path: Path) -> str:
    """What a task has written to a file; "" as long as it has not."""
    return path.read_text() if path.exists() else ""


def test_what_lies_behind_a_long_task_goes_to_other_slots(tmp_path: Path) -> None:
    """The rest of a batch does not wait for its first task."""
    source = """
        import pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            while n == 0 and not (here / "go").exists():
                time.sleep(0.001)
            return n
    """

    def during(bench: Bench) -> None:
        eventually(lambda: len(bench.outcomes) == 199)
        (tmp_path / "go").touch()

    bench = run(tmp_path, source, list(range(200)), slots=2, handful=50, during=during)
    all_but(bench, count=200)
    assert bench.returns >= 49


def test_finished_outcomes_do_not_wait_behind_a_long_task(tmp_path: Path) -> None:
    """One slot, one batch: what came before the long task is settled while it runs."""
    source = """
        import pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            while n == 5 and not (here / "go").exists():
                time.sleep(0.001)
            return n
    """

    def during(bench: Bench) -> None:
        eventually(lambda: len(bench.outcomes) == 5)
        (tmp_path / "go").touch()

    bench = run(tmp_path, source, list(range(10)), during=during)
    all_but(bench, count=10)


def test_forked_children_that_come_back_do_not_run_the_batch(tmp_path: Path) -> None:
    """os.fork() in a task: the child returns, exits or raises, and the batch goes on once."""
    source = """
        import os, sys
        def work(n):
            if n % 10 == 3:
                pid = os.fork()
                if pid == 0:
                    if n == 13: sys.exit(5)
                    if n == 23: raise ValueError
                    return "child"
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return n
    """
    bench = run(tmp_path, source, list(range(40)))
    all_but(bench, count=40)
    assert [bench.outcomes[n][0][1] for n in (3, 13, 23, 33)] == [0, 5, 1, 0]


def test_children_that_keep_the_pipes_open_do_not_outlive_a_death(tmp_path: Path) -> None:
    """The slot's death is seen although a grandchild holds all its descriptors, and ends that too."""
    source = """
        import os, pathlib, time
        def work(n):
            if n == 2:
                pid = os.fork()
                if pid == 0:
                    time.sleep(1000)
                (pathlib.Path(__file__).parent / "child").write_text(str(pid))
                os._exit(1)
            return n
    """
    bench = run(tmp_path, source, list(range(10)))
    all_but(bench, 2, count=10)
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not alive(child))


CLOSING = (
    "os.close(1); os.close(2)",
    "sys.stdout.close(); sys.stderr.buffer.close()",
    "sys.stdout.detach()",
    "sys.stdout = None",
    "os.closerange(0, 100)",
)


@pytest.mark.parametrize("what", CLOSING)
def test_closing_stdout_harms_no_neighbour(tmp_path: Path, what: str) -> None:
    source = f"""
        import os, sys, subprocess
        def work(n):
            if n == 3:
                {what}
            elif n == 8:
                subprocess.run(["echo", "from echo"], check=True)
            else:
                print("task", n)
            return n
    """
    bench = run(tmp_path, source, list(range(10)), handful=3)
    all_but(bench, count=10)
    assert ("job/9", "task 9") in bench.lines
    assert ("job/8", "from echo") in bench.lines


def test_closing_everything_costs_a_slot_and_no_task(tmp_path: Path) -> None:
    """The slot can't go on, but the outcome of the task that did it is safe, and nobody is charged."""
    source = """
        import os, time
        def work(n):
            if n == 3:
                os.closerange(0, 4096)
                time.sleep(0.01)  # longer than the time between two bells
            return n
    """
    bench = run(tmp_path, source, list(range(10)))
    all_but(bench, count=10)


def test_prints_are_told_apart_by_task(tmp_path: Path) -> None:
    """From Python, from C and from children; whole lines and unfinished ones."""
    source = """
        import os, sys, subprocess
        def work(n):
            print("out", n)
            print("err", n, file=sys.stderr)
            os.write(1, b"raw %d\\n" % n)
            if n % 5 == 0:
                subprocess.run(["sh", "-c", f"echo child {n}"])
            print("open", n, end="")
            return n
    """
    bench = run(tmp_path, source, list(range(50)), handful=10, slots=2)
    all_but(bench, count=50)
    for n in range(50):
        lines = [line for tag, line in bench.lines if tag == f"job/{n}"]
        expected = [f"out {n}", f"err {n}", f"raw {n}", *([f"child {n}"] if n % 5 == 0 else []), f"open {n}"]
        assert sorted(lines) == sorted(expected), bench.lines


def test_a_task_that_prints_gigabytes_costs_itself(tmp_path: Path) -> None:
    """What is beyond the limit is counted, not kept, and the others' output is whole."""
    source = """
        import os
        def work(n):
            if n == 3:
                for _ in range(3000):
                    os.write(1, (b"x" * 99 + b"\\n") * 1000)
            print("task", n)
            return n
    """
    bench = run(tmp_path, source, list(range(10)), prints=1000)
    all_but(bench, count=10)
    loud = [line for tag, line in bench.lines if tag == "job/3"]
    assert loud[:10] == ["x" * 99] * 10
    assert loud[10:] == [f"... and {300_000_000 - 1000 + 7} bytes more that were not kept (TASKYARD_PRINT)"]
    assert [line for tag, line in bench.lines if tag == "job/4"] == ["task 4"]


def test_what_a_running_task_prints_is_shown_at_once(tmp_path: Path) -> None:
    source = """
        import pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            print("begun")
            while not (here / "go").exists():
                time.sleep(0.001)
    """

    def during(bench: Bench) -> None:
        eventually(lambda: ("job/0", "begun") in bench.lines)
        (tmp_path / "go").touch()

    run(tmp_path, source, [0], during=during)


def test_processes_are_renewed_after_so_many_tasks(tmp_path: Path) -> None:
    source = "import os\ndef work(n): return os.getpid()"
    bench = run(tmp_path, source, list(range(10)), recycle=3)
    all_but(bench, count=10)
    pids = [bench.outcomes[n][0][1] for n in range(10)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3, 1]


def test_big_values_are_handed_out_in_parts(tmp_path: Path) -> None:
    """A batch ends early where its outcomes fill the memory; the rest is handed out again."""
    source = "def work(data): return data + data[:10]"
    inputs: list[object] = [bytes([n]) * 900_000 for n in range(30)]
    bench = run(tmp_path, source, inputs)
    all_but(bench, count=30)
    assert all(bench.outcomes[n][0][1] == bytes([n]) * 900_010 for n in range(30))


MISSING = {
    "def other(n): pass": "has no function work",
    "from math import sqrt as work": "is not a function defined in tasks.py",
    "import nosuchmodule\ndef work(n): pass": "No module named 'nosuchmodule'",
    "def work(n: pass": "SyntaxError",
    "raise SystemExit(3)": "SystemExit: 3",
}


@pytest.mark.parametrize("source", MISSING)
def test_a_function_that_is_not_there_is_refused(tmp_path: Path, source: str) -> None:
    bench = run(tmp_path, source, [1, 2, 3])
    assert set(bench.kinds().values()) == {"refused"}
    assert MISSING[source] in bench.failure(1).message
    if "nosuchmodule" in source:
        assert "tasks.py" in bench.failure(0).traceback


def test_an_import_that_ends_the_process_is_charged_to_one_task(tmp_path: Path) -> None:
    source = "import os\nos._exit(9)"
    bench = run(tmp_path, source, [1, 2])
    assert bench.kinds() == {0: "killed", 1: "killed"}
    assert bench.failure(0).message == "its process ended with exit code 9 while its module was imported"


def test_a_payload_that_cannot_be_read_is_refused_alone(tmp_path: Path) -> None:
    """Its class is not on the list; the others of the block run."""
    (tmp_path / "tasks.py").write_text("def work(n): return n")

    async def main() -> Bench:
        bench = Bench(tmp_path, Limits(), 100)
        bench.slots.start()
        blocks = [values.dumps(n) for n in range(10)]
        blocks[4] = b"\x80\x03cos\nsystem\n."
        blocks[6] = values.call((6,), {})
        blocks[7] = values.call_of("tasks:work", (7,), {})
        blocks[8] = values.call_of("tasks:wrok", (7,), {})
        bench.queue.append(piece(7, "job", 0, blocks))
        bench.fill()
        try:
            await bench.until(lambda: len(bench.outcomes) == 10)
        finally:
            await bench.slots.stop()
        return bench

    bench = asyncio.run(main())
    all_but(bench, 4, 8, count=10)
    assert "TASKYARD_ALLOW" in bench.failure(4).message
    assert "did you mean tasks:work?" in bench.failure(8).message


def test_a_dropped_lease_is_killed_and_forgotten(tmp_path: Path) -> None:
    """What runs under it is ended, what waits does not run, and other leases go on."""
    source = """
        import pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            (here / f"ran{n}").touch()
            if n < 100:
                time.sleep(1000)
            return n
    """
    (tmp_path / "tasks.py").write_text(textwrap.dedent(source))

    async def main() -> Bench:
        bench = Bench(tmp_path, Limits(), 5)
        bench.slots.start()
        bench.queue.append(piece(1, "old", 0, [values.dumps(n) for n in (0, 1)]))
        bench.queue.append(piece(2, "new", 100, [values.dumps(100)]))
        bench.fill()
        try:
            await bench.until(lambda: (tmp_path / "ran0").exists())
            bench.slots.drop({1})
            await bench.until(lambda: 100 in bench.outcomes)
        finally:
            await bench.slots.stop()
        return bench

    bench = asyncio.run(main())
    assert bench.kinds() == {100: "completed"}
    assert not (tmp_path / "ran1").exists()
    assert all(each.lease != 1 for each in bench.queue)


def test_stopping_returns_what_ran(tmp_path: Path) -> None:
    source = """
        import pathlib, time
        def work(n):
            (pathlib.Path(__file__).parent / "ran").touch()
            time.sleep(1000)
    """
    (tmp_path / "tasks.py").write_text(textwrap.dedent(source))

    async def main() -> Bench:
        bench = Bench(tmp_path, Limits(), 5)
        bench.slots.start()
        bench.queue.append(piece(1, "job", 0, [values.dumps(0)] * 3))
        bench.fill()
        await bench.until(lambda: (tmp_path / "ran").exists())
        pids = bench.slots.pids()
        await bench.slots.stop()
        assert not any(alive(pid) for pid in pids)
        return bench

    bench = asyncio.run(main())
    assert sum(each.count for each in bench.queue) == 3
    assert not bench.outcomes


def test_slots_die_with_the_agent(tmp_path: Path) -> None:
    """Kill -9 of the agent ends its slots and what their tasks have forked, though they are busy."""
    source = """
        import os, pathlib, time
        here = pathlib.Path(__file__).parent
        def work(n):
            child = os.fork()
            (here / ("child" if child == 0 else "slot")).write_text(str(os.getpid()))
            time.sleep(1000)
    """
    (tmp_path / "tasks.py").write_text(textwrap.dedent(source))
    agent = os.fork()
    if agent == 0:

        async def main() -> None:
            bench = Bench(tmp_path, Limits(), 1)
            bench.slots.start()
            bench.queue.append(piece(1, "job", 0, [values.dumps(0)]))
            bench.fill()
            await asyncio.sleep(1000)

        try:
            asyncio.run(main())
        finally:
            os._exit(1)
    pids = [int(eventually(lambda name=name: written(tmp_path / name))) for name in ("child", "slot")]
    os.kill(agent, 9)
    os.waitpid(agent, 0)
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_a_batch_that_ends_during_a_look_keeps_its_outcomes(tmp_path: Path) -> None:
    """The last outcome is written between what a look has read and what it does about that."""
    (tmp_path / "tasks.py").write_text("def work(n): return n")

    async def main() -> Bench:
        bench = Bench(tmp_path, Limits(), 1)
        (slot,) = bench.slots.all
        slot.start()
        assert slot.process is not None
        os.kill(slot.process.pid, signal.SIGSTOP)  # this test is the slot now
        slot.give(piece(1, "job", 0, [values.dumps(7)]))
        batch = slot.batches[0]
        state, region = batch.region.state, batch.region
        state[memory.PHASE], region.began[0] = memory.RUNNING, time.monotonic()
        slot.look(time.monotonic(), 0.0)

        def end(*_: object) -> None:
            data = values.dumps(7)
            region.output[: len(data)] = data
            region.times[0], region.ends[1] = time.monotonic(), len(data)
            state[memory.DONE], state[memory.PHASE] = 1, memory.ENDED

        slot._listener.look = end  # type: ignore[method-assign]
        slot.look(time.monotonic(), 0.0)
        del slot._listener.look
        slot.look(time.monotonic(), 0.0)
        slot.look(time.monotonic(), 0.0)
        await bench.slots.stop()
        return bench

    bench = asyncio.run(main())
    assert bench.outcomes == {0: [("completed", 7)]}
    assert not bench.queue
