"""Plain peers of the whole master: server, service and journal; every state is seen from outside."""

import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import tutorial
from serving import KEY, Caller, Serving, journaled, serving
from support import eventually


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(maker=journaled, journal=tmp_path / "journal") as running:
        yield running


def taken_all(served: Serving) -> list[object]:
    """What the task queue holds, which is then gone from it."""
    found = []
    with Caller(served) as peer:
        try:
            while True:
                found.append(peer.call("task", "get", block=False))
                peer.call("task", "task_done")
        except queue.Empty:
            return found


def test_a_dropped_connection_gives_back_what_it_did_not_answer(served: Serving) -> None:
    with Caller(served) as peer:
        for n in range(4):
            peer.call("task", "put", n)
        assert [peer.call("task", "get") for _ in range(3)] == [0, 1, 2]
        peer.call("result", "put", "zero")
        assert served.counts() == (1, 3, 1)
    eventually(lambda: served.counts() == (1, 3, 1) and served.server.connections == 0)
    # What was lost with a worker is a suspect: it runs alone, before the others.
    found: list[object] = []
    with Caller(served) as peer:
        for _ in range(3):
            found.append(peer.call("task", "get", timeout=10))
            peer.call("result", "put", "x")
    assert sorted(found) == [1, 2, 3]
    assert served.counts() == (0, 0, 4)


def test_a_worker_killed_between_get_and_put_loses_nothing(served: Serving) -> None:
    with Caller(served) as peer:
        worker = tutorial(sys.executable, "waits.py", served.address, KEY)
        assert worker.line() == "ready"
        peer.call("task", "put", 7)
        assert worker.line() == "got 7"
        worker.kill()
        assert peer.call("task", "get", timeout=20) == 7


def test_workers_killed_while_they_wait_in_get_swallow_nothing(served: Serving) -> None:
    with Caller(served) as peer:
        ghosts = [tutorial(sys.executable, "waits.py", served.address, KEY) for _ in range(4)]
        for ghost in ghosts:
            assert ghost.line() == "ready"
            ghost.kill()
        eventually(lambda: served.server.connections == 1)
        for n in range(20):
            peer.call("task", "put", n)
        for n in range(20):
            assert peer.call("task", "get", timeout=20) == n
            peer.call("result", "put", n)


def test_a_connection_that_ends_as_its_task_arrives_loses_nothing(served: Serving) -> None:
    with Caller(served) as peer:
        for n in range(30):
            ghost = Caller(served)
            ghost.say("get_task", "get")
            peer.say("get_task", "put", n)
            ghost.reset()
            assert peer.hear() == ("#RETURN", None)
            assert peer.call("task", "get", timeout=20) == n
            peer.call("result", "put", n)
        assert served.counts() == (0, 0, 30)
        assert [peer.call("result", "get") for _ in range(30)] == list(range(30))


def test_task_done_without_a_result_ends_a_task(served: Serving) -> None:
    with Caller(served) as peer, Caller(served) as other:
        peer.call("task", "put", 1)
        other.say("get_task", "join")
        peer.call("task", "get")
        peer.call("task", "task_done")
        assert other.hear() == ("#RETURN", None)
        assert served.counts() == (0, 0, 0)
        peer.call("result", "put", "late")  # a free result
        assert peer.call("result", "get") == "late"


def test_done_when_delivered_where_the_setting_says_so(tmp_path: Path) -> None:
    with serving(maker=journaled, journal=tmp_path / "journal", plain_ack="get") as served:
        with Caller(served) as peer:
            peer.call("task", "put", 1)
            assert peer.call("task", "get") == 1
            peer.call("task", "join")
        eventually(lambda: served.server.connections == 0)
        assert served.counts() == (0, 0, 0)


def test_bounded_queues_hold_a_put_until_there_is_room(tmp_path: Path) -> None:
    with (
        serving(maker=journaled, journal=tmp_path / "journal", plain_maxsize=1) as served,
        Caller(served) as producer,
        Caller(served) as worker,
    ):
        producer.sock.settimeout(5)
        producer.call("task", "put", 0)
        assert producer.call("task", "full") is True
        with pytest.raises(queue.Full):
            producer.call("task", "put", 1, timeout=0.01)
        producer.say("get_task", "put", 1)
        assert worker.call("task", "get") == 0
        assert producer.hear() == ("#RETURN", None)
        worker.call("result", "put", "a")
        assert worker.call("task", "get") == 1
        with pytest.raises(queue.Full):
            worker.call("result", "put", "b", block=False)
        worker.say("get_result", "put", "b")
        assert producer.call("result", "get") == "a"
        assert worker.hear() == ("#RETURN", None)
        assert producer.call("result", "get") == "b"


def test_everything_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    settings = {"journal": tmp_path / "journal"}
    with serving(maker=journaled, **settings) as served, Caller(served) as peer:
        for n in range(10):
            peer.call("task", "put", n)
        for n in range(6):
            assert peer.call("task", "get") == n
            peer.call("result", "put", -n)
        assert [peer.call("result", "get") for _ in range(3)] == [0, -1, -2]
    with serving(maker=journaled, **settings) as served, Caller(served) as peer:
        assert served.counts() == (4, 4, 3)
        assert [peer.call("result", "get") for _ in range(3)] == [-3, -4, -5]
        assert taken_all(served) == [6, 7, 8, 9]


def test_many_workers_and_connections_that_end_at_random_lose_nothing(served: Serving) -> None:
    """Each task comes out as at least one result, whatever connections do between get and put."""
    with Caller(served) as producer:
        for n in range(120):
            producer.call("task", "put", n)
        results: set[object] = set()
        turn = 0
        while served.counts()[1]:
            turn += 1
            with Caller(served) as worker:
                try:
                    for _ in range(7):
                        n = worker.call("task", "get", timeout=5)
                        if turn % 2 and n % 5 == turn % 5:
                            break  # and the connection ends with it
                        worker.call("result", "put", n)
                except queue.Empty:
                    pass
            assert turn < 500
        while producer.call("result", "qsize"):
            results.add(producer.call("result", "get"))
        assert results == set(range(120))
