"""The server's plain dialect: what stdlib clients may ask, and what becomes of their tasks."""

import pickle
import queue
import sys
from collections.abc import Iterator

import pytest
from scripts import tutorial
from serving import KEY, LOOPS, Caller, Raw, Serving, first_request, serving
from support import eventually

from taskyard import plain
from taskyard.errors import StorageError
from taskyard_master import plain_queues


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with serving(request.param) as running:
        yield running


def values(served: Serving) -> list[object]:
    return [plain.loads(value) for _, value in served.service.ready]


# ------------------------------------------------------------ leases


def test_a_dropped_connection_gives_back_what_it_did_not_answer(served: Serving) -> None:
    with Caller(served) as peer:
        for n in range(4):
            peer.call("task", "put", n)
        for n in range(3):
            assert peer.call("task", "get") == n
        peer.call("result", "put", "zero")
    eventually(lambda: values(served) == [1, 2, 3])
    assert len(served.service.ended) == 1
    assert served.service.plain_counts() == (3, 3, 1)


def test_a_worker_killed_between_get_and_put_loses_nothing(served: Serving) -> None:
    with Caller(served) as peer:
        worker = tutorial(sys.executable, "waits.py", served.address, KEY)
        assert worker.line() == "ready"
        peer.call("task", "put", 7)
        assert worker.line() == "got 7"
        assert peer.call("task", "qsize") == 0
        worker.kill()
        assert peer.call("task", "get", timeout=20) == 7


def test_a_worker_killed_while_it_waits_in_get_swallows_nothing(served: Serving) -> None:
    with Caller(served) as peer:
        ghosts = [tutorial(sys.executable, "waits.py", served.address, KEY) for _ in range(4)]
        for ghost in ghosts:
            assert ghost.line() == "ready"
        eventually(lambda: served.service.waiting == len(ghosts))
        for ghost in ghosts:
            ghost.kill()
        eventually(lambda: served.service.waiting == 0)
        for n in range(20):
            peer.call("task", "put", n)
        assert [peer.call("task", "get", timeout=20) for _ in range(20)] == list(range(20))


def test_a_connection_that_ends_as_its_task_arrives_gives_it_back(served: Serving) -> None:
    """The put and the reset race; whoever wins, the task is there for the next."""
    with Caller(served) as peer:
        for n in range(50):
            ghost = Caller(served)
            ghost.say("get_task", "get")
            eventually(lambda: served.service.waiting == 1)
            peer.say("get_task", "put", n)
            ghost.reset()
            assert peer.hear() == ("#RETURN", None)
            assert peer.call("task", "get", timeout=20) == n
            peer.call("result", "put", n)
    eventually(lambda: served.server.connections == 0)
    assert served.service.plain_counts() == (0, 0, 50)


def test_results_settle_the_oldest_lease_first_and_are_free_without_one(served: Serving) -> None:
    with Caller(served) as peer:
        peer.call("result", "put", "free")
        for n in range(2):
            peer.call("task", "put", n)
        assert [peer.call("task", "get") for _ in range(2)] == [0, 1]
        peer.call("result", "put", "a")
        assert [index for _, index, _ in served.service.leases.values()] == [1]
        peer.call("result", "put", "b")
        assert not served.service.leases
        assert [peer.call("result", "get") for _ in range(3)] == ["free", "a", "b"]


def test_task_done_ends_a_lease_that_was_not_put_and_passes_one_that_was(served: Serving) -> None:
    with Caller(served) as peer:
        for n in range(3):
            peer.call("task", "put", n)
        assert [peer.call("task", "get") for _ in range(3)] == [0, 1, 2]
        peer.call("result", "put", "a")  # settles 0
        peer.call("task", "task_done")  # about 0, which was put
        assert len(served.service.leases) == 2
        peer.call("task", "task_done")  # about 1, which gives no result
        assert [index for _, index, _ in served.service.leases.values()] == [2]
        peer.call("result", "put", "c")
        assert not served.service.leases
        for _ in range(3):  # one too many does nothing
            peer.call("task", "task_done")
        assert served.service.plain_counts() == (0, 0, 2)


def test_done_when_delivered_where_the_setting_says_so() -> None:
    with serving(plain_ack="get") as served:
        with Caller(served) as peer:
            peer.call("task", "put", 1)
            assert peer.call("task", "get") == 1
            peer.call("task", "join")
            peer.call("result", "put", "one")  # from whichever thread
        eventually(lambda: served.server.connections == 0)
        assert served.service.plain_counts() == (0, 0, 1)
        assert served.service.returned == 0


def test_who_gets_and_never_puts_is_named_and_capped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_queues, "MANY", 3)
    monkeypatch.setattr(plain_queues, "CAP", 5)
    monkeypatch.setattr(plain_queues, "CAP_SECONDS", 0.05)
    with serving() as served, Caller(served) as peer:
        for n in range(6):
            peer.call("task", "put", n)
        assert [peer.call("task", "get") for _ in range(5)] == [0, 1, 2, 3, 4]
        assert "TASKYARD_PLAIN_ACK=get" in caplog.text
        for wait in ({"block": False}, {"timeout": 0.01}, {}):
            with pytest.raises(queue.Empty):
                peer.call("task", "get", **wait)
        peer.call("result", "put", 0)
        assert peer.call("task", "get") == 5


def test_a_task_that_could_not_be_settled_stays_the_oldest(served: Serving) -> None:
    with Caller(served) as peer:
        peer.call("task", "put", 1)
        peer.call("task", "get")
        served.service.fault = StorageError("the disk is full: make room")
        kind, text = peer.request("get_result", "put", "x")
        assert (kind, text) == ("#TRACEBACK", "the disk is full: make room\n")
        served.service.fault = None
        peer.call("result", "put", "x")
        assert served.service.plain_counts() == (0, 0, 1)


# ------------------------------------------------------------ waiting


def test_bounded_queues_hold_a_put_until_there_is_room() -> None:
    with serving(plain_maxsize=2) as served, Caller(served) as producer, Caller(served) as worker:
        producer.call("task", "put", 0)
        assert producer.call("task", "full") is False
        producer.call("task", "put", 1)
        assert producer.call("task", "full") is True
        for words in ({"block": False}, {"timeout": 0.01}):
            with pytest.raises(queue.Full):
                producer.call("task", "put", 2, **words)
        with pytest.raises(ValueError, match="non-negative"):
            producer.call("task", "put", 2, timeout=-1)
        producer.say("get_task", "put", 2)
        eventually(lambda: served.service.waiting == 1)
        assert worker.call("task", "get") == 0
        assert producer.hear() == ("#RETURN", None)
        worker.call("result", "put", 0)
        worker.call("result", "put", 1)
        assert producer.call("result", "full") is True
        with pytest.raises(queue.Full):
            worker.call("result", "put_nowait", 2)
        worker.say("get_result", "put", 2)
        eventually(lambda: served.service.waiting == 1)
        assert producer.call("result", "get") == 0
        assert worker.hear() == ("#RETURN", None)


def test_an_unbounded_queue_does_not_look_at_the_timeout_of_a_put(served: Serving) -> None:
    with Caller(served) as peer:
        assert peer.call("task", "put", 1, timeout=-1) is None
        assert peer.call("task", "put", 2, True, "soon") is None


@pytest.mark.parametrize("timeout", [-1, -0.5, "soon", [1], (1,), {}])
def test_timeouts_that_are_none_raise_as_in_queue(served: Serving, timeout: object) -> None:
    with Caller(served) as peer:
        with pytest.raises((ValueError, TypeError)) as mine:
            peer.call("task", "get", timeout=timeout)
        with pytest.raises(mine.type):
            queue.Queue().get(timeout=timeout)  # type: ignore[arg-type]
        with pytest.raises(queue.Empty):  # it is not looked at without block
            peer.call("task", "get", False, timeout)


def test_a_timeout_that_is_no_number_is_refused_where_queue_would_spin_for_ever(served: Serving) -> None:
    with Caller(served) as peer, pytest.raises(ValueError, match="NaN"):
        peer.call("task", "get", timeout=float("nan"))


@pytest.mark.parametrize("timeout", [None, 1e18, 10**400, float("inf"), True, 1 << 40])
def test_a_get_with_a_timeout_beyond_counting_waits(served: Serving, timeout: object) -> None:
    with Caller(served) as peer, Caller(served) as other:
        peer.say("get_task", "get", True, timeout)
        eventually(lambda: served.service.waiting == 1)
        other.call("task", "put", "x")
        assert peer.hear() == ("#RETURN", "x")


def test_join_returns_when_nothing_is_unfinished(served: Serving) -> None:
    with Caller(served) as producer, Caller(served) as worker:
        producer.call("task", "put", 1)
        producer.say("get_task", "join")
        worker.call("task", "get")
        eventually(lambda: served.service.waiting == 1)
        worker.call("result", "put", 1)
        assert producer.hear() == ("#RETURN", None)
        producer.say("get_result", "join")
        assert worker.call("result", "qsize") == 1
        assert worker.call("result", "get") == 1
        assert producer.hear() == ("#RETURN", None)


def test_requests_sent_ahead_are_answered_in_order_one_at_a_time(served: Serving) -> None:
    with Caller(served) as hasty, Caller(served) as other:
        hasty.say("get_task", "get")
        for _ in range(3000):
            hasty.say("get_result", "put", "x" * 20)
            hasty.say("get_task", "qsize")
        eventually(lambda: served.service.waiting == 1)
        assert other.call("result", "qsize") == 0
        other.call("task", "put", "first")
        assert hasty.hear() == ("#RETURN", "first")
        for _ in range(3000):
            assert hasty.hear() == ("#RETURN", None)
            assert hasty.hear() == ("#RETURN", 0)
        assert served.service.plain_counts() == (0, 0, 3000)


# ------------------------------------------------------------ refusals


def test_a_proxy_is_made_by_name_and_its_id_is_the_name(served: Serving) -> None:
    for name in ("get_task", "task_queue", "get_result_queue"):
        kind, (ident, exposed) = first_request(served, "create", name)
        assert (kind, ident) == ("#RETURN", name)
        assert {"put", "get", "qsize", "task_done", "join"} <= set(exposed)
        assert first_request(served, "incref", name) == ("#RETURN", None)
        assert first_request(served, "decref", name) == ("#RETURN", None)
    assert first_request(served, "dummy") == ("#RETURN", None)


@pytest.mark.parametrize(
    "request_",
    [
        ("shutdown",),
        ("debug_info",),
        ("number_of_objects",),
        ("get_methods", "get_task"),
        ("create", "list"),
        ("create", "get_task", 5),
        ("create",),
        ("create", 5),
        ("incref", "7f00deadbeef"),
        ("decref", "7f00deadbeef"),
        ("serve_client",),
        ("__class__",),
        ("", "get_task"),
    ],
    ids=str,
)
def test_first_requests_that_are_refused(served: Serving, request_: tuple[str, ...]) -> None:
    kind, text = first_request(served, *request_)
    assert kind == "#TRACEBACK"
    assert "Traceback" not in text
    assert "/" not in text
    assert first_request(served, "dummy") == ("#RETURN", None)


@pytest.mark.parametrize(
    ("ident", "method"),
    [
        ("get_task", "__class__"),
        ("get_task", "__reduce__"),
        ("get_task", "#GETVALUE"),
        ("get_task", "shutdown"),
        ("get_task", "queue"),
        ("get_task", "_get"),
        ("get_task", ""),
        ("7f00deadbeef", "get"),
        ("", "get"),
        (None, "shutdown"),
        (5, "put"),
        (("get_task",), "put"),
    ],
)
def test_calls_that_are_refused(served: Serving, ident: object, method: str) -> None:
    with Caller(served) as peer:
        kind, text = peer.request(ident, method)
        assert kind == "#TRACEBACK"
        assert "Traceback" not in text
        assert "/" not in text
        assert peer.call("task", "qsize") == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x80",
        b"junk",
        pickle.dumps(5),
        pickle.dumps(("get_task", "put", [1], {})),
        pickle.dumps(("get_task", "put", (1,))),
        pickle.dumps((None, b"accept_connection", (), {})),
        pickle.dumps(("get_task", "put", (1,), {}))[:-3],
    ],
)
@pytest.mark.parametrize("introduced", [False, True])
def test_what_is_no_request_ends_the_connection(served: Serving, frame: bytes, introduced: bool) -> None:
    with Caller(served) if introduced else Raw(served).prove() as peer:
        peer.send(frame)
        assert peer.rest() == []


class Boom:
    def __reduce__(self) -> object:
        return (pytest.fail, ("code from the network ran",))


def test_a_value_with_code_in_it_is_refused_with_a_reason(served: Serving) -> None:
    with Caller(served) as peer:
        for method in ("put", "get", "qsize"):
            with pytest.raises(ValueError, match="TASKYARD_ALLOW"):
                peer.call("task", method, Boom())
        with pytest.raises(ValueError, match="TASKYARD_ALLOW"):
            peer.call("result", "put", 1, timeout=Boom())
        assert peer.call("task", "qsize") == 0
    with Raw(served).prove() as stranger:
        stranger.send(pickle.dumps((None, "create", (Boom(),), {})))
        assert stranger.rest() == []


def test_a_value_that_is_too_large_is_refused_with_a_cure() -> None:
    with serving(payload=1000) as served, Caller(served) as peer:
        for target in ("task", "result"):
            with pytest.raises(ValueError, match="shared storage"):
                peer.call(target, "put", "x" * 1001)
            with pytest.raises(ValueError, match="shared storage"):
                peer.call(target, "put", [b"x" * 1000] * 1000, timeout=b"y" * 100_000)
            peer.call(target, "put", "x" * 900)


def test_a_first_request_is_small(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.send(pickle.dumps((None, "create", ("x" * (1 << 16),), {})))
        assert peer.rest() == []


def test_wrong_arguments_raise_type_error(served: Serving) -> None:
    with Caller(served) as peer:
        for method, args, kwds in (
            ("put", (), {}),
            ("put", (1, 2, 3, 4), {}),
            ("get", (), {"self": 1}),
            ("get", (), {"timeout": 1, "colour": 2}),
            ("qsize", (1,), {}),
            ("task_done", (1,), {}),
        ):
            with pytest.raises(TypeError):
                peer.call("task", method, *args, **kwds)


def test_an_unexpected_fault_is_logged_and_told_without_a_word_of_it(
    served: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    with Caller(served) as peer:
        served.service.fault = ZeroDivisionError("/secret/path")
        kind, text = peer.request("get_task", "put", 1)
        assert (kind, text) == ("#TRACEBACK", "internal error, see the master's log\n")
        assert "/secret/path" in caplog.text


def test_names_come_from_the_settings() -> None:
    with serving(plain_tasks="jobs", plain_results="answers") as served, Caller(served) as peer:
        assert peer.request("jobs", "put", 1) == ("#RETURN", None)
        assert peer.request("answers", "qsize") == ("#RETURN", 0)
        assert peer.request("get_task", "qsize")[0] == "#TRACEBACK"


def test_old_proxies_know_a_restarted_master() -> None:
    """The id that a proxy carries is the name, whichever master it came from."""
    with serving() as first:
        _, (ident, _) = first_request(first, "create", "get_task")
    with serving() as second, Caller(second) as peer:
        assert peer.request(ident, "put", 1) == ("#RETURN", None)
