"""The whole house in processes: a real master, real workers, the client; and what they survive."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import EXAMPLES, KEY, Lab, running_lab
from support import eventually

from taskyard import Yard
from taskyard.errors import FunctionError, RefusedError, UnknownJobError, UnreachableError

TASKS = '''
import os, pathlib, time

def square(n):
    return n * n

def fail(n):
    raise ValueError(f"no {n}")

def flaky(path):
    """Fails until the file is there."""
    if not os.path.exists(path):
        raise RuntimeError("not yet")
    return "done"

def wait_for(path):
    """Runs until the file is there."""
    pathlib.Path(path + ".begun").touch()
    while not os.path.exists(path):
        time.sleep(0.01)
    return "seen"

def note(args):
    """Leaves one line a run, to count executions."""
    path, n = args
    with open(path, "a") as f:
        f.write(f"{n}\\n")
    return n
'''


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "work.py").write_text(TASKS)
    return folder


@pytest.fixture
def lab(tmp_path: Path, tasks: Path) -> Iterator[Lab]:
    with running_lab(tmp_path, workers=2, tasks=tasks, lease="3", grace="1") as running:
        yield running


def test_ten_squares(tmp_path: Path) -> None:
    """The tutorial's job, with the functions that we ship."""
    with running_lab(tmp_path, workers=3, tasks=EXAMPLES) as lab, lab.yard() as yard:
        job = yard.submit("squares:square", range(10), name="squares")
        outcomes = list(job.results(follow=True, ordered=True))
    assert [outcome.value for outcome in outcomes] == [n * n for n in range(10)]
    assert [outcome.index for outcome in outcomes] == list(range(10))
    assert {outcome.state for outcome in outcomes} == {"completed"}


def test_a_hundred_thousand_tasks_are_each_recorded_once(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:square", range(100_000))
        values = {outcome.index: outcome.value for outcome in job.results(follow=True)}
        status = job.status()
    assert values == {n: n * n for n in range(100_000)}
    assert (status.completed, status.dead, status.total) == (100_000, 0, 100_000)


def test_results_may_be_read_twice_and_later(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:square", range(100))
        first = sorted(job.values(ordered=False))
    with lab.yard() as yard:
        again = sorted(yard.job(job.id).values(ordered=False))
    assert first == again == sorted(n * n for n in range(100))


def test_a_failing_task_is_tried_three_times_then_dead_with_its_reason(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:fail", [7], max_attempts=2)
        (outcome,) = job.results(follow=True)
        assert outcome.state == "dead"
        assert outcome.attempts == 2
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message) == ("ValueError", "no 7")
        assert "raise ValueError" in outcome.error.traceback
        with pytest.raises(ValueError, match="no 7"):
            _ = outcome.value


def test_a_dead_task_can_be_requeued(lab: Lab, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with lab.yard() as yard:
        job = yard.submit("work:flaky", [str(flag)], max_attempts=1)
        (dead,) = job.results(follow=True)
        assert dead.state == "dead"
        flag.touch()
        assert job.requeue() == 1
        eventually(lambda: job.status().completed == 1, "the task is completed in its second round")
        (newest,) = job.results(ordered=True)
        assert newest.value == "done"


def test_cancel_stops_what_runs_and_frees_the_worker(lab: Lab, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    with lab.yard() as yard:
        job = yard.submit("work:wait_for", [never] * 20)
        eventually(lambda: (tmp_path / "never.begun").exists(), "a task runs")
        job.cancel()
        status = job.status()
        assert (status.state, status.cancelled, status.completed) == ("cancelled", 20, 0)
        after = yard.submit("work:square", [3])
        assert list(after.values()) == [9], lab.output()


def test_the_master_killed_in_the_middle_loses_and_doubles_nothing(lab: Lab, tmp_path: Path) -> None:
    """kill -9 of the master while a job streams in, runs and is read: everybody just goes on."""
    with lab.yard() as yard:
        killed = threading.Event()

        def inputs() -> Iterator[int]:
            for n in range(30_000):
                if n == 15_000:
                    lab.kill_master()
                    lab.start_master()
                    killed.set()
                yield n

        job = yard.submit("work:square", inputs())
        values = [(outcome.index, outcome.value) for outcome in job.results(follow=True)]
        assert killed.is_set()
    assert len(values) == 30_000, "each index once"
    assert dict(values) == {n: n * n for n in range(30_000)}


def test_a_worker_killed_in_the_middle_costs_nothing(lab: Lab, tmp_path: Path) -> None:
    with lab.yard() as yard:
        flag = str(tmp_path / "go")
        job = yard.submit("work:wait_for", [flag, flag])
        eventually(lambda: sum(w.leased for w in yard.status().workers) == 2, "both workers hold a task")
        lab.workers[0].kill()
        eventually(lambda: len(yard.status().workers) == 1, "the master gave the dead worker up")
        Path(flag).touch()
        outcomes = list(job.results(follow=True))
    assert [outcome.value for outcome in outcomes] == ["seen", "seen"]
    assert {outcome.attempts for outcome in outcomes} == {1}, "a loss is no attempt"


def test_a_stopped_worker_is_found_within_the_lease(lab: Lab, tmp_path: Path) -> None:
    """SIGSTOP: its connection stays open, so only its silence tells."""
    import signal

    with lab.yard() as yard:
        job = yard.submit("work:square", range(10))
        list(job.results(follow=True))
        flag = str(tmp_path / "go")
        job = yard.submit("work:wait_for", [flag, flag])
        eventually(lambda: sum(w.leased for w in yard.status().workers) == 2, "both workers hold a task")
        lab.workers[0].send_signal(signal.SIGSTOP)
        Path(flag).touch()
        values = list(job.values())
        lab.workers[0].send_signal(signal.SIGCONT)
    assert values == ["seen", "seen"]


def test_sigterm_drains_a_worker(lab: Lab, tmp_path: Path) -> None:
    flag = str(tmp_path / "go")
    with lab.yard() as yard:
        job = yard.submit("work:wait_for", [flag])
        eventually(lambda: (tmp_path / "go.begun").exists(), "the task runs")
        for worker in lab.workers:
            worker.terminate()
        eventually(lambda: sum(w.poll() == 0 for w in lab.workers) == 1, "the idle one ended")
        Path(flag).touch()
        assert list(job.values()) == ["seen"]
        eventually(lambda: all(w.poll() == 0 for w in lab.workers), "the busy one ended after its task")
        assert job.status().retries == 0


def test_sigterm_stops_the_master_with_exit_code_0_and_its_state_is_there_again(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:square", range(1000))
        before = sorted(job.values(ordered=False))
        assert lab.master is not None
        lab.master.terminate()
        assert lab.master.wait(20) == 0
        lab.start_master()
        assert sorted(job.values(ordered=False)) == before


def test_a_task_is_run_once_where_nothing_disturbs_it(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    with lab.yard() as yard:
        job = yard.submit("work:note", [(str(path), n) for n in range(2000)])
        assert list(job.values()) == list(range(2000))
    assert sorted(map(int, path.read_text().split())) == list(range(2000))


def test_two_jobs_take_turns(lab: Lab, tmp_path: Path) -> None:
    """A small job does not wait behind a huge one."""
    with lab.yard() as yard:
        huge = yard.submit("work:square", range(300_000))
        small = yard.submit("work:square", range(10))
        list(small.results(follow=True))
        assert huge.status().completed < 300_000 or huge.status().ended >= small.status().ended


def test_a_deleted_job_is_forgotten(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:square", range(10))
        list(job.results(follow=True))
        yard.delete(job.id)
        with pytest.raises(UnknownJobError):
            yard.job(job.id)


def test_wrong_key_no_master_and_unknown_job_are_one_line_errors(lab: Lab) -> None:
    with pytest.raises(RefusedError, match="TASKYARD_AUTHKEY"):
        Yard(lab.address, "another key, long enough")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        Yard("127.0.0.1:1", KEY, patience=0.5)
    with lab.yard() as yard, pytest.raises(UnknownJobError, match="nonsense"):
        yard.job("nonsense")


def test_a_lambda_is_refused_with_the_reason(lab: Lab) -> None:
    with lab.yard() as yard, pytest.raises(FunctionError, match="lambda"):
        yard.submit(lambda n: n, [1])


def test_a_backup_taken_under_load_can_be_served(lab: Lab, tmp_path: Path, tasks: Path) -> None:
    with lab.yard() as yard:
        job = yard.submit("work:square", range(50_000))
        yard.backup(tmp_path / "copy.db")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "copy.db").rename(other / "journal.db")
    with running_lab(other, workers=1, tasks=tasks, lease="3") as restored, restored.yard() as yard:
        values = sorted(yard.job(job.id).values(ordered=False))
    assert values == sorted(n * n for n in range(50_000))


def test_a_function_that_is_new_in_the_folder_is_run_by_workers_that_wait(lab: Lab, tasks: Path) -> None:
    with lab.yard() as yard:
        eventually(lambda: len(yard.status().workers) == 2, "both wait for tasks")
        (tasks / "newer.py").write_text("def double(n):\n    return 2 * n\n")
        assert list(yard.submit("newer:double", [4]).values()) == [8]
