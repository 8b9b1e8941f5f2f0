"""The agent, in its own process, against a master that does what the test says."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_master import KEY, Connection, Master, gone, grant, scripted
from support import eventually

from taskyard.errors import RefusedError
from taskyard.messages import Beat, Begin, Fail, Functions, Lease, Leased, Settle, Settled

SQUARE = "def work(n): return n * n"
# A task that says that it has begun, and ends once it is let.
GATE = """
import os, pathlib, time
here = pathlib.Path(__file__).parent.parent
def work(n):
    (here / f"begun{n}").write_text(str(os.getpid()))
    while not (here / f"go{n}").exists():
        time.sleep(0.002)
    return n
"""


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    with scripted(tmp_path) as master:
        yield master


def begun(tmp_path: Path, n: int) -> int:
    """Wait for task n to begin; the process that it runs in."""
    path = tmp_path / f"begun{n}"
    return int(eventually(lambda: path.exists() and path.read_text(), f"task {n} begins"))


def let(tmp_path: Path, *tasks: int) -> None:
    for n in tasks:
        (tmp_path / f"go{n}").touch()


def kinds(outcomes: dict[int, tuple[str, object]]) -> dict[int, str]:
    return {index: kind for index, (kind, _) in outcomes.items()}


# ---------------------------------------------------------------- working


def test_a_worker_says_who_it_is_works_and_drains(master: Master) -> None:
    worker = master.worker(SQUARE, slots=2, host="kitchen")
    connection = master.join().welcome()
    hello = connection.hello
    assert (hello.role, hello.host, hello.slots, hello.pid) == ("worker", "kitchen", 2, worker.process.pid)
    assert hello.functions == ["tasks:work"]
    assert hello.held == []
    assert len(hello.digest) == 16
    connection.serve([grant(n, n * 100, list(range(n * 100, n * 100 + 100))) for n in range(5)])
    outcomes = connection.settled(*range(500))
    assert outcomes == {n: ("completed", n * n) for n in range(500)}
    worker.signal()
    assert worker.code() == 0
    assert "worker " + hello.name + " joined the master at 127.0.0.1" in worker.err
    assert "1 functions, tasks digest " + hello.digest in worker.err
    assert "Traceback" not in worker.err


def test_leases_grow_with_what_is_known(master: Master) -> None:
    """One task a slot of what is unknown, then more and more of what turns out to be quick."""
    master.worker(SQUARE)
    connection = master.join().welcome()
    request = connection.next(Lease)
    assert (request.want, request.wants) == (1, {})
    sizes = [1]
    first = 0
    while sizes[-1] < 2000:
        connection.answer(Leased(request.seq, [grant(len(sizes), first, list(range(sizes[-1])))]))
        first += sizes[-1]
        connection.settled(*range(first))
        request = connection.next(Lease)
        if request.wants.get("tasks:work", 0) > sizes[-1]:
            sizes.append(request.wants["tasks:work"])
        assert len(connection.requests) < 2000


def test_the_next_lease_is_asked_for_before_the_work_ends(master: Master) -> None:
    """With quick tasks a request is at the master while slots still work on what was granted last."""
    master.worker("import time\ndef work(n): time.sleep(0.002)")
    connection = master.join().welcome()
    connection.serve([grant(n, n * 20, list(range(20))) for n in range(3)])
    connection.settled(*range(60))
    came = connection.requests
    last = max(place for place, request in enumerate(came) if isinstance(request, Settle))
    assert any(isinstance(request, Lease) for request in came[connection.places[-1] + 1 : last])


def test_long_tasks_are_not_hoarded(master: Master, tmp_path: Path) -> None:
    """While a task of unknown length runs, the worker asks for no more than its slots."""
    master.worker(GATE, slots=2)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0]))
    begun(tmp_path, 0)
    request = connection.next(Lease)
    assert request.want == 1
    connection.answer(Leased(request.seq, [grant(2, 1, [1])]))
    begun(tmp_path, 1)
    beat = connection.next(Beat)
    assert beat.state == "running"
    let(tmp_path, 0)
    connection.settled(0)
    assert connection.next(Lease).want == 1
    let(tmp_path, 1)
    connection.settled(0, 1)


def test_what_turns_out_to_take_long_goes_back(master: Master, tmp_path: Path) -> None:
    """A hundred tasks were leased by the pace of quick ones; nobody waits behind them for long."""
    master.worker(GATE)
    connection = master.join().welcome()
    let(tmp_path, *range(60))
    connection.serve([grant(1, 0, [0]), grant(2, 1, list(range(1, 60)))])
    connection.settled(*range(60))
    connection.grant(grant(3, 60, list(range(60, 160))))
    begun(tmp_path, 60)
    eventually(lambda: len(connection.outcomes) >= 60 + 98, "most of them are released")
    assert {each[0][0] for index, each in connection.outcomes.items() if index >= 60} == {"released"}
    let(tmp_path, *range(60, 160))


def test_failures_are_told_in_full(master: Master) -> None:
    source = """
import os
def work(n):
    if n == 1: raise ValueError("no luck")
    if n == 2: os._exit(3)
    if n == 3: return lambda: 1
    return n
"""
    master.worker(source)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0, 1, 2, 3, 4]))
    outcomes = connection.settled(0, 1, 2, 3, 4)
    assert kinds(outcomes) == {0: "completed", 1: "failed", 2: "killed", 3: "refused", 4: "completed"}
    assert outcomes[1][1].type == "ValueError"  # type: ignore[attr-defined]
    assert outcomes[2][1].message == "its process ended with exit code 3"  # type: ignore[attr-defined]


def test_a_time_limit_ends_a_task_and_tells_how_long_it_ran(master: Master) -> None:
    master.worker("import time\ndef work(n): time.sleep(1000 if n == 1 else 0)")
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0, 1, 2], timeout=0.2))
    assert kinds(connection.settled(0, 1, 2)) == {0: "completed", 1: "timeout", 2: "completed"}
    run = next(run for run in connection.runs if run.kind == "timeout")
    assert 0.2 <= run.seconds < 5


def test_a_value_beyond_the_limit_here_is_refused_alone(master: Master) -> None:
    """The master's limit may be larger than ours."""
    master.worker("def work(n): return len(n)", payload=1000)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, ["a", "x" * 200_000, "bcd"]))
    outcomes = connection.settled(0, 1, 2)
    assert outcomes[0] == ("completed", 1)
    assert outcomes[2] == ("completed", 3)
    assert outcomes[1][0] == "refused"
    assert "TASKYARD_PAYLOAD" in outcomes[1][1].message


def test_what_tasks_print_is_tagged(master: Master) -> None:
    worker = master.worker("def work(n): print('hello from', n)")
    connection = master.join().welcome()
    connection.grant(grant(1, 0, list(range(10))))
    connection.settled(*range(10))
    expected = "".join(f"[job/{n}] hello from {n}\n" for n in range(10))
    eventually(lambda: worker.out == expected, "tagged lines")


def test_heartbeats_carry_the_latest_of_what_tasks_print(master: Master) -> None:
    """A few lines of it, shortened, and each once."""
    master.worker("def work(n): print('hello', n, 'x' * 1000)")
    connection = master.join().welcome()
    connection.grant(grant(1, 0, list(range(50))))
    connection.settled(*range(50))
    said: list[tuple[str, str]] = []
    while ("job/49", ("hello 49 " + "x" * 1000)[:300]) not in said:
        beat = connection.next(Beat)
        assert len(beat.said) <= 20
        said += beat.said
    assert len(said) == len(set(said))
    connection.grant(grant(2, 50, [0]))
    connection.settled(*range(51))
    while "job/50" not in [tag for tag, _ in said]:
        said += connection.next(Beat).said
    assert len(said) == len(set(said))


def test_plain_tasks_run_the_set_function(master: Master) -> None:
    master.worker(SQUARE, function="tasks:work")
    connection = master.join().welcome()
    assert connection.hello.functions == ["tasks:work", "plain"]
    connection.grant(grant(1, 0, [7], job="plain", function="plain"))
    assert connection.settled(0) == {0: ("completed", 49)}


# ---------------------------------------------------------------- losing the connection


def test_a_worker_waits_quietly_for_its_master(master: Master) -> None:
    master.away()
    worker = master.worker(SQUARE)
    eventually(lambda: "waiting for the master" in worker.err, "a line that says so")
    master.back()
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [3]))
    connection.settled(0)
    assert worker.err.count("waiting for the master") == 1


def test_a_worker_that_reconnects_names_what_it_holds_and_goes_on(master: Master, tmp_path: Path) -> None:
    """Running, queued and finished but not answered: all of it is held, and settled on the new connection."""
    worker = master.worker(GATE)
    one = master.join().welcome()
    one.settling = False
    let(tmp_path, 0)
    one.grant(grant(1, 0, [0]))
    one.next(Settle)
    one.grant(grant(2, 1, [1, 2, 3]))
    begun(tmp_path, 1)
    one.close()
    let(tmp_path, 1)
    two = master.join()
    held = {(h.lease, h.first + n) for h in two.hello.held for n in range(h.count)}
    assert held == {(1, 0), (2, 1), (2, 2), (2, 3)}
    assert two.hello.boot == one.hello.boot
    assert two.hello.name == one.hello.name
    two.welcome()
    let(tmp_path, 2, 3)
    assert set(kinds(two.settled(0, 1, 2, 3)).values()) == {"completed"}
    worker.signal()
    assert worker.code() == 0
    assert "rejoined the master" in worker.err


def test_what_the_welcome_drops_is_not_run(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    one = master.join().welcome()
    one.grant(grant(1, 0, [0, 1]))
    pid = begun(tmp_path, 0)
    one.close()
    two = master.join().welcome(drop=(1,))
    eventually(lambda: gone(pid), "the slot that runs it is killed")
    two.grant(grant(2, 10, [10]))
    let(tmp_path, 10, 1, 0)
    two.settled(10)
    assert not (tmp_path / "begun1").exists()


def test_work_finished_while_the_master_was_away_is_settled_late(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    one = master.join().welcome(lease=0.3)
    one.grant(grant(1, 0, [0]))
    begun(tmp_path, 0)
    master.away()
    one.close()
    let(tmp_path, 0)
    eventually(lambda: one.closed)
    master.back()
    two = master.join().welcome()
    assert two.settled(0) == {0: ("completed", 0)}


def test_a_master_that_says_nothing_any_more_is_given_up(master: Master) -> None:
    """A half-open connection: heartbeats without an answer."""
    master.worker(SQUARE)
    one = master.join().welcome(lease=0.2)
    one.next(Beat)
    one.mute = True
    master.join()


def test_a_settle_that_fails_is_sent_again(master: Master) -> None:
    """A full disk at the master: outcomes are kept, and taken later."""
    worker = master.worker(SQUARE)
    connection = master.join().welcome()
    connection.settling = False
    connection.grant(grant(1, 0, [1]))
    request = connection.next(Settle)
    connection.answer(Fail(request.seq, "StorageError", "the disk is full"))
    again = connection.next(Settle)
    assert [outcome.first for outcome in again.outcomes] == [0]
    connection.answer(Settled(again.seq, 1, 0))
    assert "the disk is full" in worker.err
    worker.signal()
    assert worker.code() == 0


# ---------------------------------------------------------------- heartbeat and orders


def test_heartbeats_name_leases_and_what_runs(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    connection = master.join().welcome(lease=0.3)
    connection.grant(grant(7, 40, [0, 1]))
    begun(tmp_path, 0)

    def look() -> Beat | None:
        beat = connection.next(Beat)
        return beat if beat.running else None

    beat = eventually(look)
    assert beat.leases == [7]
    assert [(running.slot, running.job, running.index) for running in beat.running] == [(0, "job", 40)]
    assert beat.memory > 1 << 20
    let(tmp_path, 0, 1)
    connection.settled(40, 41)
    eventually(lambda: connection.next(Beat).leases == [])


def test_a_heartbeat_comes_early_when_something_else_runs(master: Master, tmp_path: Path) -> None:
    """What people see of a worker is not as old as its lease allows; one that is idle says nothing more."""
    master.worker(GATE)
    connection = master.join().welcome(lease=300)
    assert connection.next(Beat).running == []
    connection.grant(grant(7, 40, [0, 1]))
    begun(tmp_path, 0)
    assert [running.index for running in connection.next(Beat).running] == [40]
    let(tmp_path, 0)
    begun(tmp_path, 1)
    assert [running.index for running in connection.next(Beat).running] == [41]
    let(tmp_path, 1)
    connection.settled(40, 41)


@pytest.mark.parametrize("by", ["notice", "heartbeat"])
def test_a_cancelled_lease_is_killed(master: Master, tmp_path: Path, by: str) -> None:
    master.worker(GATE)
    connection = master.join().welcome(lease=0.3)
    connection.grant(grant(1, 0, [0, 1]), grant(2, 10, [10], job="other"))
    pid = begun(tmp_path, 0)
    if by == "notice":
        connection.notice("drop", 1)
    else:
        connection.drop = [1]
    eventually(lambda: gone(pid))
    let(tmp_path, 10)
    assert connection.settled(10) == {10: ("completed", 10)}
    assert not (tmp_path / "begun1").exists()


def test_a_suspect_is_begun_only_once_the_master_knows(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0], suspect=True))
    request = connection.next(Begin)
    assert request.lease == 1
    assert not (tmp_path / "begun0").exists()
    connection.answer(Fail(request.seq, "ConflictError", "not yours"))
    assert kinds(connection.settled(0)) == {0: "released"}
    connection.grant(grant(2, 1, [1], suspect=True))
    assert connection.begin() == 2
    begun(tmp_path, 1)
    let(tmp_path, 1)
    assert kinds(connection.settled(0, 1)) == {0: "released", 1: "completed"}


def test_a_suspect_that_is_about_to_begin_is_held_over_a_reconnect(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    one = master.join().welcome()
    one.grant(grant(1, 0, [0], suspect=True))
    one.next(Begin)
    one.close()
    two = master.join().welcome()
    assert [held.lease for held in two.hello.held] == [1]
    assert two.begin() == 1
    let(tmp_path, 0)
    two.settled(0)


def test_suspects_run_one_at_a_time(master: Master, tmp_path: Path) -> None:
    """Half of a lost range, with slots enough for all: only one task runs, and its death is its own."""
    master.worker(GATE, slots=3)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0, 1, 2], suspect=True))
    pid = begun(tmp_path, 0)
    os.kill(pid, signal.SIGKILL)
    begun(tmp_path, 1)
    assert not (tmp_path / "begun2").exists()
    let(tmp_path, 1, 2)
    assert kinds(connection.settled(0, 1, 2)) == {0: "killed", 1: "completed", 2: "completed"}


def test_a_drained_worker_stays_and_works_again_when_told(master: Master, tmp_path: Path) -> None:
    master.worker(GATE)
    connection = master.join().welcome(lease=0.3)
    connection.grant(grant(1, 0, [0, 1, 2]))
    begun(tmp_path, 0)
    connection.notice("drain")
    eventually(lambda: {1, 2} <= set(connection.outcomes))
    assert kinds(connection.settled(1, 2)) == {1: "released", 2: "released"}
    eventually(lambda: connection.next(Beat).state == "draining")
    let(tmp_path, 0)
    connection.settled(0, 1, 2)
    eventually(lambda: connection.next(Beat).state == "drained")
    connection.notice("undrain")
    let(tmp_path, 5)
    connection.grant(grant(2, 5, [5]))
    connection.settled(0, 1, 2, 5)


# ---------------------------------------------------------------- ending


def test_a_signal_drains(master: Master, tmp_path: Path) -> None:
    """What runs is finished, what has not begun goes back, a late grant too, and the code is 0."""
    worker = master.worker(GATE)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0, 1, 2]))
    begun(tmp_path, 0)
    worker.signal()
    eventually(lambda: {1, 2} <= set(connection.outcomes))
    let(tmp_path, 0)
    assert kinds(connection.settled(0, 1, 2)) == {0: "completed", 1: "released", 2: "released"}
    assert worker.code() == 0


def test_a_grant_that_comes_while_draining_goes_back(master: Master, tmp_path: Path) -> None:
    worker = master.worker(GATE, slots=2)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0]))
    begun(tmp_path, 0)
    request = connection.next(Lease)
    worker.signal()
    eventually(lambda: "drains" in worker.err)
    connection.answer(Leased(request.seq, [grant(2, 1, [1])]))
    assert kinds(connection.settled(1)) == {1: "released"}
    let(tmp_path, 0)
    connection.settled(0, 1)
    assert worker.code() == 0


def test_a_worker_that_leaves_is_not_told_to_stay(master: Master, tmp_path: Path) -> None:
    worker = master.worker(GATE)
    connection = master.join().welcome(lease=0.3)
    connection.grant(grant(1, 0, [0]))
    begun(tmp_path, 0)
    worker.signal()
    eventually(lambda: connection.next(Beat).state == "draining")
    connection.notice("undrain")
    let(tmp_path, 0)
    connection.settled(0)
    assert worker.code() == 0


def test_a_drain_has_an_end(master: Master, tmp_path: Path) -> None:
    """What still runs then is killed, and given back without a charge."""
    worker = master.worker(GATE, drain=0.3)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0]))
    pid = begun(tmp_path, 0)
    worker.signal()
    assert worker.code() == 0
    assert kinds(connection.settled(0)) == {0: "released"}
    assert gone(pid)


def test_a_second_signal_stops_at_once(master: Master, tmp_path: Path) -> None:
    worker = master.worker(GATE)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0, 1]))
    begun(tmp_path, 0)
    worker.signal(signal.SIGINT)
    eventually(lambda: "drains" in worker.err)
    worker.signal(signal.SIGINT)
    assert worker.code() == 130
    assert kinds(connection.settled(0, 1)) == {0: "released", 1: "released"}


def test_a_worker_without_work_or_master_ends_at_once(master: Master) -> None:
    master.away()
    worker = master.worker(SQUARE)
    eventually(lambda: "waiting for the master" in worker.err)
    worker.signal()
    assert worker.code(5) == 0


def test_outcomes_that_nobody_takes_are_said(master: Master, tmp_path: Path) -> None:
    """The master goes while a worker drains: it waits as long as it may, and tells."""
    worker = master.worker(GATE, drain=0.5)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [0]))
    begun(tmp_path, 0)
    master.away()
    connection.close()
    let(tmp_path, 0)
    worker.signal()
    assert worker.code() == 3
    assert "run again" in worker.err


FATAL = {
    "key": ({"authkey": "another-key-entirely"}, 4, "authkey"),
    "settings": ({"slots": "many", "authkey": "short"}, 2, "TASKYARD_SLOTS"),
    "unknown": ({"slotz": "1"}, 2, "did you mean TASKYARD_SLOTS?"),
    "folder": ({"tasks_dir": "/nosuch"}, 2, "there is no tasks folder /nosuch"),
    "dialect": ({"dialect": "elvish"}, 2, "must be one of yard, plain"),
}


@pytest.mark.parametrize("name", FATAL)
def test_what_cannot_work_ends_with_one_line_and_a_code(master: Master, name: str) -> None:
    settings, code, words = FATAL[name]
    worker = master.worker(SQUARE, **settings)
    if name == "key":
        with pytest.raises(RefusedError, match="authkey"):
            master.join()
    assert worker.code() == code
    assert words in worker.err
    assert "Traceback" not in worker.err
    assert KEY not in worker.err


# ---------------------------------------------------------------- the tasks folder


def test_a_changed_folder_renews_the_slots(master: Master, tmp_path: Path) -> None:
    """Between batches, without a restart of the worker; the master is told what can run now."""
    master.worker(SQUARE)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [3]))
    connection.settled(0)
    (tmp_path / "tasks" / "tasks.py").write_text("def work(n): return -n\ndef more(n): return n")
    request = connection.next(Functions)
    assert request.functions == ["tasks:more", "tasks:work"]
    assert request.digest != connection.hello.digest
    connection.grant(grant(2, 1, [3]))
    assert connection.settled(0, 1) == {0: ("completed", 9), 1: ("completed", -3)}


def test_tasks_that_come_right_after_an_edit_run_the_edit(master: Master, tmp_path: Path) -> None:
    """However soon: edits are seen when tasks come, and not at the next look a second later."""
    master.worker(SQUARE)
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [3]))
    connection.settled(0)
    expected: dict[int, object] = {0: ("completed", 9)}
    for n in range(1, 6):  # of one length each, so that only time and content differ
        (tmp_path / "tasks" / "tasks.py").write_text(f"def work(n): return n + {n}")
        connection.grant(grant(n + 1, n, [3]))
        expected[n] = ("completed", 3 + n)
        assert connection.settled(*range(n + 1)) == expected
    (tmp_path / "tasks" / "tasks.py").write_text(
        "import time\ndef work(n): time.sleep(60)\nwork.timeout = 0.1"
    )
    connection.grant(grant(9, 9, [3]))
    assert connection.settled(*expected, 9)[9][0] == "timeout"


def test_a_folder_that_was_only_touched_is_not_listed_again(master: Master, tmp_path: Path) -> None:
    """Nor does it hold up tasks: they run in the same process as before."""
    master.worker("import os\ndef work(n): return os.getpid()")
    connection = master.join().welcome()
    connection.grant(grant(1, 0, [3]))
    before = connection.settled(0)[0]
    os.utime(tmp_path / "tasks" / "tasks.py")
    (tmp_path / "tasks" / "notes.txt").touch()
    connection.grant(grant(2, 1, [3]))
    assert connection.settled(0, 1)[1] == before
    assert not [request for request in connection.requests if isinstance(request, Functions)]


def test_modules_that_do_not_import_are_named(master: Master, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "bad.py").write_text("import nosuch")
    worker = master.worker(SQUARE)
    connection = master.join()
    assert connection.hello.functions == ["tasks:work"]
    assert "module bad of" in worker.err
    assert "No module named 'nosuch'" in worker.err


def test_a_health_file_is_kept(master: Master, tmp_path: Path) -> None:
    (tmp_path / "taskyard").mkdir()
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path)
    try:
        master.worker(SQUARE)
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
    if Path("/run/taskyard").is_dir():
        pytest.skip("this machine has a /run/taskyard of its own")
    connection: Connection = master.join().welcome(lease=0.3)
    path = tmp_path / "taskyard" / "worker.json"
    eventually(lambda: path.exists() and '"running"' in path.read_text())
    assert connection.hello.name in path.read_text()
    before = path.stat().st_mtime_ns
    eventually(lambda: path.stat().st_mtime_ns > before)
