"""YardExecutor on real masters and workers: what CPython's own tests leave open, and what only yards do."""

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, as_completed, wait
from functools import partial
from pathlib import Path

import pytest
from lab import KEY, Lab, running_lab
from support import eventually

from taskyard import TaskFailed, YardExecutor, executor_map
from taskyard.errors import FunctionError, PayloadError, RefusedError, SettingsError, UnreachableError
from taskyard.executor import BrokenYardError
from taskyard.values import RemoteTraceback
from taskyard_master.schema import AHEAD_BYTES

TASKS = Path(__file__).resolve().parent.parent / "pool_tasks"
sys.path.append(str(TASKS))
import pooltasks  # noqa: E402


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab"), workers=2, tasks=TASKS) as lab:
        yield lab


@pytest.fixture
def pool(lab: Lab) -> Iterator[YardExecutor]:
    with YardExecutor(lab.address, KEY) as pool:
        yield pool


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("taskyard")]


# ---------------------------------------------------------------- calls and what comes of them


def test_arguments_partials_and_names(pool: YardExecutor) -> None:
    assert pool.submit(pooltasks.capture, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    assert pool.submit("pooltasks:mul", 6, y=7).result() == 42
    assert pool.submit(partial(partial(pooltasks.capture, 1), 2, a=3), 4, b=5).result() == (
        (1, 2, 4), {"a": 3, "b": 5},
    )  # fmt: skip
    assert list(pool.map(partial(pooltasks.mul, 10), range(3))) == [0, 10, 20]
    assert list(pool.map(partial(pooltasks.mul, y=10), range(3))) == [0, 10, 20]
    assert list(pool.map("pooltasks:mul", range(3), itertools.count(1))) == [0, 2, 6]


def test_an_exception_comes_back_with_the_workers_traceback(pool: YardExecutor) -> None:
    error = pool.submit(pooltasks.raise_value_error, "no such thing").exception()
    assert type(error) is ValueError and error.args == ("no such thing",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "raise ValueError(text)" in "".join(traceback.format_exception(error))


def test_what_does_not_come_back_as_itself_is_a_task_failed(pool: YardExecutor) -> None:
    with pytest.raises(TaskFailed, match=r"pooltasks\.Custom: 1"):
        pool.submit(pooltasks.raise_custom).result()
    with pytest.raises(TaskFailed, match=r"sys\.exit\(3\)"):
        pool.submit(pooltasks.leave, 3).result()
    with pytest.raises(TaskFailed, match="by name only"):
        pool.submit(pooltasks.unsendable).result()
    with pytest.raises(PayloadError, match="TASKYARD_ALLOW"):  # this executor does not allow the class
        pool.submit(pooltasks.make_thing, 1).result()


def test_a_killed_slot_costs_one_future_and_no_executor(pool: YardExecutor) -> None:
    futures = [pool.submit(pooltasks.square, n) for n in range(20)]
    killed = pool.submit(pooltasks.die)
    futures += [pool.submit(pooltasks.square, n) for n in range(20, 40)]
    with pytest.raises(TaskFailed, match="killed by signal 9"):
        killed.result()
    assert [future.result() for future in futures] == [n * n for n in range(40)]


def test_attempts_can_be_given(lab: Lab, tmp_path: Path) -> None:
    with YardExecutor(lab.address, KEY, max_attempts=2) as pool:
        with pytest.raises(ValueError, match="once more"):
            pool.submit(pooltasks.raise_value_error, "once more").result()
        with lab.yard() as yard:
            assert yard.status(pool.job).jobs[0].retries == 1


def test_a_time_limit_can_be_given(lab: Lab) -> None:
    with YardExecutor(lab.address, KEY, timeout=0.2) as pool, pytest.raises(TaskFailed, match=r"0\.2"):
        pool.submit(pooltasks.sleep, 60).result()


@pytest.mark.parametrize("function", [lambda n: n, pow, time.sleep, "nonsense", "".join])
def test_functions_without_a_name_in_the_tasks_folder_are_refused(
    pool: YardExecutor, function: object
) -> None:
    with pytest.raises(FunctionError):
        pool.submit(function, 1)  # type: ignore[arg-type]
    with pytest.raises(FunctionError):
        pool.map(function, [1])  # type: ignore[arg-type]


def test_a_function_that_workers_lack_fails_its_future(pool: YardExecutor) -> None:
    with pytest.raises(TaskFailed, match="nowhere"):
        pool.submit("pooltasks:nowhere").result()


def test_arguments_that_do_not_travel_are_the_futures_error(pool: YardExecutor) -> None:
    future = pool.submit(pooltasks.identity, threading.Lock())
    assert future.done()
    with pytest.raises(PayloadError, match="does not travel"):
        future.result()
    with pytest.raises(PayloadError, match="TASKYARD_PAYLOAD"):
        pool.submit(pooltasks.identity, b"x" * (2 << 20)).result()
    results = pool.map(pooltasks.identity, [1, threading.Lock(), 3])
    assert next(results) == 1
    with pytest.raises(PayloadError, match="does not travel"):
        next(results)
    assert pool.submit(pooltasks.square, 5).result() == 25


def test_without_a_master_or_the_key_one_sentence(lab: Lab) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        YardExecutor("127.0.0.1:1", KEY, patience=0.2)
    with pytest.raises(RefusedError, match="TASKYARD_AUTHKEY"):
        YardExecutor(lab.address, "another key, long enough")
    with pytest.raises(SettingsError):
        YardExecutor.from_env({})
    with pytest.raises(ValueError, match="max_workers"):
        YardExecutor.from_env(lab.environ, max_workers=0)
    assert not threads()


def test_from_the_environment(lab: Lab) -> None:
    with YardExecutor.from_env(lab.environ, name="squares") as pool:
        assert pool.submit(pooltasks.square, 3).result() == 9
        with lab.yard() as yard:
            assert yard.job("squares").id == pool.job


# ---------------------------------------------------------------- futures


def test_the_states_of_futures_and_cancel(lab: Lab, tmp_path: Path) -> None:
    """What has not been sent is cancelled here; what has been is not."""
    with YardExecutor(lab.address, KEY, max_workers=1) as pool:
        flag = str(tmp_path / "go")
        called: list[Future[object]] = []
        first = pool.submit(pooltasks.wait_for, flag)
        second, third = pool.submit(pooltasks.touch, f"{flag}.second"), pool.submit(pooltasks.square, 3)
        for future in (first, second, third):
            future.add_done_callback(called.append)
        assert first.running() and not first.cancel() and not first.done()
        assert not second.running() and second.cancel() and second.cancelled() and second.done()
        assert called == [second]
        with pytest.raises(CancelledError):
            second.result()
        with pytest.raises(TimeoutError):
            third.result(timeout=0.01)
        Path(flag).touch()
        assert third.result() == 9 and first.result() == flag
        assert list(as_completed([first, second, third], timeout=10))
        assert wait([second], timeout=10).done == {second}, "who waits is told of a cancelled one"
        eventually(lambda: called == [second, first, third])
    assert not Path(f"{flag}.second").exists()


def test_callbacks_may_submit(pool: YardExecutor) -> None:
    found: Future[int] = Future()

    def again(future: "Future[int]") -> None:
        pool.submit(pooltasks.square, future.result()).add_done_callback(
            lambda last: found.set_result(last.result())
        )

    pool.submit(pooltasks.square, 3).add_done_callback(again)
    assert found.result(timeout=20) == 81


def test_what_raises_in_a_callback_harms_nobody(pool: YardExecutor, caplog: pytest.LogCaptureFixture) -> None:
    future = pool.submit(pooltasks.sleep, 0.05)
    future.add_done_callback(lambda future: 1 // 0)
    assert future.result() is None
    assert pool.submit(pooltasks.square, 2).result() == 4
    eventually(lambda: "ZeroDivisionError" in caplog.text)


def test_many_threads_submit_at_once(pool: YardExecutor) -> None:
    found: dict[int, list[int]] = {}

    def use(k: int) -> None:
        futures = [pool.submit(pooltasks.square, n) for n in range(k * 300, (k + 1) * 300)]
        found[k] = [future.result() for future in futures]

    users = [threading.Thread(target=use, args=(k,)) for k in range(6)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [value for k in range(6) for value in found[k]] == [n * n for n in range(1800)]


def test_asyncio(pool: YardExecutor) -> None:
    async def use() -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(pool.submit(pooltasks.square, 1))
        return await asyncio.gather(
            wrapped, *(loop.run_in_executor(pool, pooltasks.square, n) for n in range(2, 200))
        )

    assert asyncio.run(use(), debug=True) == [n * n for n in range(1, 200)]


def test_a_cancelled_asyncio_future_withdraws_its_call(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")

    async def use(pool: YardExecutor) -> None:
        loop = asyncio.get_running_loop()
        busy = loop.run_in_executor(pool, pooltasks.wait_for, flag)
        task = asyncio.ensure_future(loop.run_in_executor(pool, pooltasks.touch, f"{flag}.ran"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        Path(flag).touch()
        await busy

    with YardExecutor(lab.address, KEY, max_workers=1) as pool:
        asyncio.run(use(pool))
    assert not Path(f"{flag}.ran").exists()


# ---------------------------------------------------------------- map


class Counted:
    """An iterable that knows how much of it was read."""

    def __init__(self, stop: int) -> None:
        self.read = 0
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        while self.read < self.stop:
            self.read += 1
            yield self.read - 1


def test_map_reads_no_further_ahead_than_its_bound(pool: YardExecutor) -> None:
    inputs = Counted(1 << 60)
    results = pool.map(pooltasks.square, inputs, buffersize=50)
    assert inputs.read == 50
    for n in range(500):
        assert next(results) == n * n
        assert inputs.read <= n + 1 + 50
    assert inputs.read >= 500
    without = pool.map(pooltasks.square, Counted(1 << 60))
    assert [next(without) for _ in range(10)] == [n * n for n in range(10)]
    without.close()  # type: ignore[attr-defined]


def test_map_holds_no_more_than_its_bound(pool: YardExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_map, "BOUND", 1000)
    inputs = Counted(30_000)
    ahead = 0
    for n, value in enumerate(pool.map(pooltasks.square, inputs)):
        assert value == n * n
        ahead = max(ahead, inputs.read - n)
    assert n == 29_999 and ahead <= 1001


@pytest.mark.parametrize("buffersize", [1, 2, 4, 8])
def test_map_with_a_buffersize_as_in_python_3_14(pool: YardExecutor, buffersize: int) -> None:
    assert list(pool.map(pooltasks.text, range(4), buffersize=buffersize)) == ["0", "1", "2", "3"]
    assert next(pool.map(pooltasks.text, [], buffersize=buffersize), None) is None
    assert next(pool.map(pooltasks.text, buffersize=buffersize), None) is None
    two = pool.map(pooltasks.power, itertools.count(), itertools.count(1), buffersize=buffersize)
    assert [next(two) for _ in range(4)] == [0, 1, 8, 81]


def test_map_refuses_what_the_standard_library_refuses(pool: YardExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(pooltasks.text, [1], chunksize=0)
    for buffersize in ("foo", 2.0):
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            pool.map(pooltasks.text, [1], buffersize=buffersize)  # type: ignore[arg-type]
    for buffersize in (0, -1):
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            pool.map(pooltasks.text, [1], buffersize=buffersize)


def test_map_whose_results_nobody_wants_is_done_all_the_same(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`with pool: pool.map(work, inputs)`, as many programs do, with more inputs than the bound."""
    monkeypatch.setattr(executor_map, "BOUND", 20)
    paths = [str(tmp_path / str(n)) for n in range(200)]
    with YardExecutor(lab.address, KEY) as pool:
        pool.map(pooltasks.touch, paths)
        kept = pool.map(pooltasks.touch, paths)
    assert [Path(path).read_text() for path in paths] == ["xx"] * 200
    assert list(kept) == paths, "results can be read after the end"


def test_with_a_buffersize_nothing_is_read_at_the_end(lab: Lab) -> None:
    ints = itertools.count()
    pool = YardExecutor(lab.address, KEY)
    results = pool.map(pooltasks.text, ints, buffersize=4)
    pool.shutdown()
    assert next(ints) == 4
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(results)


def test_a_map_that_is_closed_withdraws_what_was_not_sent(lab: Lab, tmp_path: Path) -> None:
    paths = [str(tmp_path / str(n)) for n in range(100)]
    with YardExecutor(lab.address, KEY, max_workers=2) as pool:
        for path in pool.map(pooltasks.touch, paths):
            assert path == paths[0]
            break
        gc.collect()
    assert sum(Path(path).exists() for path in paths) < 50


def test_map_gives_up_at_its_timeout(pool: YardExecutor, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    results = pool.map(pooltasks.wait_for, [str(flag)], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    flag.touch()


def test_inputs_that_raise(lab: Lab) -> None:
    def inputs() -> Iterator[int]:
        yield from range(100)
        raise OSError("the file has ended early")

    with YardExecutor(lab.address, KEY) as pool:
        with pytest.raises(OSError, match="early"):
            pool.map(pooltasks.square, inputs())
        results = pool.map(pooltasks.square, inputs(), buffersize=10)
        with pytest.raises(OSError, match="early"):
            list(results)
        assert pool.submit(pooltasks.square, 2).result() == 4


def test_a_slow_source_is_not_read_to_its_end_first(pool: YardExecutor) -> None:
    inputs = Counted(60)

    def slowly() -> Iterator[int]:
        for n in inputs:
            time.sleep(0.02)
            yield n

    results = pool.map(pooltasks.square, slowly())
    assert next(results) == 0
    assert inputs.read < 60
    assert list(results) == [n * n for n in range(1, 60)]


def test_the_yard_holds_a_window_and_the_rest_waits_here(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    with YardExecutor(lab.address, KEY) as pool, lab.yard() as yard:
        futures = [pool.submit(pooltasks.wait_for, flag) for _ in range(100)]
        eventually(lambda: yard.status(pool.job).jobs[0].leased >= 2)
        assert yard.status(pool.job).jobs[0].total <= 4, "two a slot"
        assert sum(future.running() for future in futures) == yard.status(pool.job).jobs[0].total
        Path(flag).touch()
        assert {future.result() for future in futures} == {flag}


def test_large_arguments_go_one_by_one(pool: YardExecutor) -> None:
    """Never more of them on their way than a submission takes without waiting."""
    blocks = [bytes([n]) * 900_000 for n in range(12)]
    assert [future.result() for future in [pool.submit(pooltasks.size, b) for b in blocks]] == [900_000] * 12
    assert list(pool.map(pooltasks.size, blocks)) == [900_000] * 12


# ---------------------------------------------------------------- ends


def test_after_shutdown_there_are_no_threads_and_no_more_calls(lab: Lab) -> None:
    with YardExecutor(lab.address, KEY) as pool:
        values = pool.map(pooltasks.absolute, range(-5, 5))
        future = pool.submit(pooltasks.square, 4)
    eventually(lambda: not threads())
    assert list(values) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4] and future.result() == 16
    for use in (
        lambda: pool.submit(pooltasks.square, 1),
        lambda: pool.map(pooltasks.square, [1]),
    ):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            use()
    pool.shutdown()
    with lab.yard() as yard:
        job = yard.status(pool.job).jobs[0]
        assert (job.state, job.total, job.completed) == ("closed", 11, 11)


def test_shutdown_without_waiting(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    pool = YardExecutor(lab.address, KEY, max_workers=1)
    futures = [pool.submit(pooltasks.wait_for, flag), pool.submit(pooltasks.touch, f"{flag}.2")]
    results = pool.map(pooltasks.absolute, range(-5, 5))
    pool.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    Path(flag).touch()
    assert [future.result() for future in futures] == [flag, f"{flag}.2"]
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    eventually(lambda: not threads())


def test_shutdown_that_cancels(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    pool = YardExecutor(lab.address, KEY, max_workers=1)
    running = pool.submit(pooltasks.wait_for, flag)
    futures = [pool.submit(pooltasks.touch, f"{flag}.ran") for _ in range(20)]
    results = pool.map(pooltasks.touch, [f"{flag}.ran"] * 20)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert wait(futures, timeout=10).not_done == set()
    with pytest.raises(CancelledError):
        next(results)
    Path(flag).touch()
    assert running.result() == flag
    eventually(lambda: not threads())
    assert not Path(f"{flag}.ran").exists()


def test_an_executor_that_is_dropped_finishes_its_calls(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    pool = YardExecutor(lab.address, KEY, max_workers=1)
    futures = [pool.submit(pooltasks.wait_for, flag), pool.submit(pooltasks.square, 3)]
    results = pool.map(pooltasks.absolute, range(-5, 5))
    del pool
    gc.collect()
    Path(flag).touch()
    assert [future.result() for future in futures] == [flag, 9]
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    eventually(lambda: not threads())


def test_a_callback_may_shut_down(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_map, "BOUND", 8)
    pool = YardExecutor(lab.address, KEY)
    results = pool.map(pooltasks.square, range(500))
    pool.submit(pooltasks.sleep, 0.05).add_done_callback(lambda _: pool.shutdown())
    eventually(lambda: not threads())
    assert list(results) == [n * n for n in range(500)]


def test_inputs_that_raise_at_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor_map, "BOUND", 8)

    def inputs() -> Iterator[int]:
        yield from range(20)
        raise OSError("the file has ended early")

    pool = YardExecutor(lab.address, KEY)
    results, future = pool.map(pooltasks.square, inputs()), pool.submit(pooltasks.square, 9)
    with pytest.raises(OSError, match="early"):
        pool.shutdown()
    assert future.done() and next(results) == 0
    eventually(lambda: not threads())

    pool = YardExecutor(lab.address, KEY)
    results, future = pool.map(pooltasks.square, inputs()), pool.submit(pooltasks.square, 9)
    del pool
    assert future.result() == 81
    eventually(lambda: not threads() and "ended early" in caplog.text)


def run(lab: Lab, script: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, that ends as its script ends."""
    environ = {**lab.environ, "PYTHONPATH": str(TASKS)}
    return subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("ending", ["", "pool.shutdown(wait=False)", "del pool"])
def test_a_program_that_ends_has_its_calls_done(lab: Lab, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "ran"
    done = run(
        lab,
        f"""if True:
        import pooltasks
        from taskyard import YardExecutor
        pool = YardExecutor.from_env(max_workers=1)
        pool.submit(pooltasks.sleep, 0.3)
        pool.submit(pooltasks.touch, {str(path)!r}).add_done_callback(lambda f: print("apple"))
        {ending}""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "apple\n", "")
    assert path.read_text() == "x"


def test_no_calls_once_the_interpreter_ends(lab: Lab) -> None:
    done = run(
        lab,
        """if True:
        import atexit
        @atexit.register
        def run_last():
            try:
                pool.submit("pooltasks:zero")
            except RuntimeError:
                print("runtime-error")
                raise
        from taskyard import YardExecutor
        pool = YardExecutor.from_env()
        pool.submit("pooltasks:zero").result()""",
    )
    assert "RuntimeError: cannot schedule new futures after interpreter shutdown" in done.stderr
    assert done.stdout == "runtime-error\n"


def test_a_forked_child_is_told_to_make_its_own(lab: Lab) -> None:
    done = run(
        lab,
        """if True:
        import os, pooltasks
        from taskyard import YardExecutor
        pool = YardExecutor.from_env()
        if os.fork() == 0:
            try:
                pool.submit(pooltasks.zero)
            except RuntimeError as error:
                print(error, flush=True)
            pool.shutdown()
            raise SystemExit
        assert os.wait()[1] == 0
        print(pool.submit(pooltasks.zero).result())""",
    )
    assert done.stdout.splitlines()[0].startswith("this executor belongs to the parent process")
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, "0"), done.stderr


# ---------------------------------------------------------------- what breaks


def test_submit_does_not_wait_for_a_master_that_is_silent(tmp_path: Path) -> None:
    """So that it can be called in an event loop."""
    with running_lab(tmp_path, workers=1, tasks=TASKS) as lab, YardExecutor(lab.address, KEY) as pool:
        list(pool.map(pooltasks.square, range(5000)))  # from now on the yard takes many at a time
        assert lab.master is not None
        lab.master.send_signal(signal.SIGSTOP)
        sizes = [1000] * 2000 + [140_000] * 20 + [900_000] * 3 + [10] * 20_000
        returned = threading.Event()
        futures: list[Future[int]] = []

        def submit() -> None:
            futures.extend(pool.submit(pooltasks.size, bytes(size)) for size in sizes)
            returned.set()

        threading.Thread(target=submit).start()
        assert returned.wait(20)
        assert not any(future.done() for future in futures)
        lab.master.send_signal(signal.SIGCONT)
        assert [future.result() for future in futures] == sizes


def test_master_and_worker_are_killed_in_the_middle(tmp_path: Path) -> None:
    with (
        running_lab(tmp_path, workers=2, tasks=TASKS, lease="2", grace="0.5") as lab,
        YardExecutor(lab.address, KEY) as pool,
    ):
        results = pool.map(pooltasks.square, range(50_000))
        single = pool.submit(pooltasks.sleep, 0.2)
        found = [next(results) for _ in range(1000)]
        lab.kill_master()
        late = pool.submit(pooltasks.square, 9)  # waits for nobody
        lab.start_master()
        found += [next(results) for _ in range(1000)]
        lab.workers[0].kill()
        found += results
        assert found == [n * n for n in range(50_000)]
        assert single.result() is None and late.result() == 81


def test_a_master_that_is_gone_for_good_breaks_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = str(tmp_path / "go")
    monkeypatch.setattr(executor_map, "BOUND", 8)
    with running_lab(tmp_path, workers=1, tasks=TASKS) as lab:
        pool = YardExecutor(lab.address, KEY, reconnect=0.3, max_workers=1)
        running, queued = pool.submit(pooltasks.wait_for, flag), pool.submit(pooltasks.square, 2)
        cancelled = pool.submit(pooltasks.square, 3)
        assert cancelled.cancel()
        results = pool.map(pooltasks.square, range(100))
        lab.kill_master()
        for future in (running, queued):
            with pytest.raises(BrokenYardError, match="no master answers"):
                future.result(timeout=20)
        assert cancelled.cancelled()
        with pytest.raises(BrokenExecutor):
            next(results)
        with pytest.raises(BrokenExecutor):
            pool.submit(pooltasks.square, 1)
        with pytest.raises(BrokenExecutor):
            pool.map(pooltasks.square, [1])
        pool.shutdown()
        eventually(lambda: not threads())


def test_a_job_that_somebody_cancels_breaks_its_executor(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    pool = YardExecutor(lab.address, KEY)
    future = pool.submit(pooltasks.wait_for, flag)
    eventually(lambda: Path(f"{flag}.begun").exists())
    with lab.yard() as yard:
        yard.cancel(pool.job)
    with pytest.raises(BrokenYardError, match="cancelled"):
        future.result(timeout=20)
    pool.shutdown()


def test_a_full_disk_breaks_the_executor_and_says_so(tmp_path: Path) -> None:
    room = AHEAD_BYTES + 300_000  # the write-ahead log has its bytes from the start
    with running_lab(tmp_path, workers=1, tasks=TASKS, disk=str(room)) as lab:
        pool = YardExecutor(lab.address, KEY)
        done = 0
        with pytest.raises(BrokenYardError, match="TASKYARD_DISK"):
            while True:
                done += pool.submit(pooltasks.size, os.urandom(100_000)).result(timeout=20) // 100_000
        assert done > 0
        pool.shutdown()


def test_calls_wait_for_the_first_worker(tmp_path: Path) -> None:
    with running_lab(tmp_path, workers=0, tasks=TASKS) as lab, YardExecutor(lab.address, KEY) as pool:
        results = pool.map(pooltasks.square, range(100))
        future = pool.submit(pooltasks.square, 7)
        lab.start_workers(1)
        assert list(results) == [n * n for n in range(100)] and future.result() == 49
