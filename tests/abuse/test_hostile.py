"""A hostile holder of the key: all that the standard library's server offers, and what hurts there.

Refused, or harmless and capped; whoever is honest goes on meanwhile, over the same queues.
"""

import multiprocessing.managers as managers
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from figures import Figures
from lab import Lab, running_lab
from strangers import MIB, Stranger, memory
from support import eventually

from taskyard import messages
from taskyard.messages import GREETING, Chunk, Close, Fail, Hello, encode
from taskyard_master.plain_queues import CAP, METHODS

pytestmark = pytest.mark.timeout(300)
HARMLESS = {"dummy", "accept_connection", "create", "incref", "decref"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("hostile"), workers=1) as it:
        yield it


@pytest.fixture(autouse=True)
def goes_on(lab: Lab) -> Iterator[None]:
    """After each test: the yard works, an honest plain peer too, and nothing of ours failed."""
    yield
    with lab.yard() as yard:
        assert list(yard.submit("squares:square", range(50)).values()) == [n * n for n in range(50)]
    with Stranger(lab).for_calls() as peer:
        assert peer.call("get_task", "put", "a task") == ("#RETURN", None)
        assert peer.call("get_task", "get", timeout=5) == ("#RETURN", "a task")
        assert peer.call("get_result", "put", "a result") == ("#RETURN", None)
        assert peer.call("get_result", "get", timeout=5) == ("#RETURN", "a result")
    assert "Traceback" not in lab.output()
    assert "internal error" not in lab.output()


def refused(reply: Any) -> str:
    """What a stdlib client would raise as RemoteError."""
    assert reply is not None
    kind, text = reply
    assert kind == "#TRACEBACK", reply
    assert "File" not in text and "/" not in text.replace("task/", "")
    return str(text)


def test_every_public_call_of_the_standard_librarys_server(lab: Lab, figures: Figures) -> None:
    assert lab.master
    for name in managers.Server.public:
        for args in ((), ("get_task",), ("get_task", 1), ("nothing",), (["get_task"],)):
            with Stranger(lab).prove() as peer:
                reply = peer.first(name, *args)
                if name in HARMLESS:
                    assert reply is not None
                else:
                    assert name in refused(reply)
        assert lab.master.poll() is None
    figures.add("public calls of managers.Server", calls=len(managers.Server.public) * 5, stopped=0)


def test_names_that_reach_further(lab: Lab, figures: Figures) -> None:
    """As first requests, and as methods of a queue."""
    dunders = {name for it in (object, type, dict, managers.Server) for name in dir(it) if name[:2] == "__"}
    names = sorted(
        dunders | {"_task_done", "_put", "_size", "_holder", "queue", "mutex", "shutdown", "close", ""}
    )
    with Stranger(lab).for_calls() as peer:
        for name in names:
            assert "none of a queue's methods" in refused(peer.call("get_task", name))
            assert "none of a queue's methods" in refused(peer.call("get_result", name, "x", y=1))
        for typeid in (*names, "get_task.__class__", "#GETVALUE", 5, None, ("get_task",)):
            assert "another master" in refused(peer.call(typeid, "qsize"))
        for name in ("#GETVALUE", "__str__", "__repr__"):  # the fallbacks of stdlib servers
            refused(peer.call("get_task", name))
    for name in names:
        with Stranger(lab).prove() as peer:
            refused(peer.first(name))
        with Stranger(lab).prove() as peer:
            refused(peer.first("create", name))
    figures.add("dunders and other names", tried=5 * len(names), answered=0)


def test_a_storm_of_decrefs_and_unknown_ids(lab: Lab, figures: Figures) -> None:
    """Queues are not counted: they are there as long as the master."""
    assert lab.master
    before = memory(lab.master.pid)
    with Stranger(lab).for_calls() as victim:
        for number in range(300):
            with Stranger(lab).prove() as peer:
                assert peer.first("decref", "get_task") == ("#RETURN", None)
            with Stranger(lab).prove() as peer:
                refused(peer.first("decref", f"{number:x}"))
        assert victim.call("get_task", "qsize") == ("#RETURN", 0)
        for number in range(2000):
            assert "another master" in refused(victim.call(f"{number:x}", "get"))
        assert victim.call("get_task", "empty") == ("#RETURN", True)
    grown = memory(lab.master.pid) - before
    assert grown < 32 * MIB
    figures.add("decref storm and unknown ids", requests=2600, grown_mib=round(grown / MIB, 1))


def test_jobs_that_nobody_knows_leave_nothing_behind(lab: Lab, figures: Figures) -> None:
    assert lab.master
    for size in (1000, 20_000):  # once to warm up
        before = memory(lab.master.pid)
        for number in range(0, size, 500):  # with that many failures, a connection would be slowed
            with Stranger(lab).prove() as peer:
                peer.greet()
                for one in range(number, number + 500):
                    job = f"unknown-{one:x}-" + "x" * 500
                    peer.send(encode(Chunk(2 * one + 1, job, 0, 1, b"", b"\0\0\0\0\0\0\0\0")))
                    peer.send(encode(Close(2 * one + 2, job, 0)))
                    if one % 100 == 99:
                        for _ in range(200):
                            assert isinstance(peer.reply(), Fail)
    grown = memory(lab.master.pid) - before
    figures.add("unknown jobs", requests=2 * size, grown_mib=round(grown / MIB, 1))
    assert grown < 8 * MIB


def test_one_that_gets_and_hoards(lab: Lab, figures: Figures) -> None:
    """It has a thousand at most; what is left goes to others, and what it held when it goes."""
    most = CAP + 200
    with ExitStack() as stack:
        honest = stack.enter_context(Stranger(lab).for_calls())
        for number in range(most):
            assert honest.call("get_task", "put", number) == ("#RETURN", None)
        hoarder = stack.enter_context(Stranger(lab, "127.0.0.8").for_calls())
        held = 0
        while hoarder.call("get_task", "get", False)[0] == "#RETURN":
            held += 1
        assert held == CAP
        for _ in range(most - CAP):
            kind, task = honest.call("get_task", "get", False)
            assert kind == "#RETURN"
            assert honest.call("get_result", "put", task) == ("#RETURN", None)
        hoarder.sock.close()
        back = Stranger(lab).for_calls()
        stack.enter_context(back)
        for _ in range(CAP):
            kind, task = back.call("get_task", "get", timeout=20)
            assert kind == "#RETURN", task
            assert back.call("get_result", "put", task) == ("#RETURN", None)
        results = [back.call("get_result", "get", timeout=20)[1] for _ in range(most)]
        assert sorted(results) == list(range(most))
        eventually(lambda: "holds 1000 tasks" in lab.output(), "a line about it")
    figures.add("get and hoard", got=held, cap=CAP, lost=0)


def test_methods_with_nonsense_for_arguments(lab: Lab, figures: Figures) -> None:
    """Whatever is wrong with a call is the caller's own to hear."""
    nonsense: list[Any] = [-1, 1 << 2000, float("nan"), float("inf"), "x", b"x", [], {}, None, (1, 2), True]
    count = 0
    with Stranger(lab).for_calls() as peer:
        for method in METHODS:
            for one in nonsense:
                for args, kwds in (((one, one, 0.01), {}), ((one, False, one), {}), ((), {"nonsense": one})):
                    if method == "get" and one in ("x", True) and args:
                        continue  # a get that waits, as it was asked to
                    kind, value = peer.call("get_result", method, *args, **kwds)
                    assert kind in ("#RETURN", "#ERROR", "#TRACEBACK")
                    assert not isinstance(value, str) or "internal" not in value
                    count += 1
        while peer.call("get_result", "get", False)[0] == "#RETURN":
            pass
    figures.add("methods with nonsense", calls=count)


def test_a_yard_hello_for_two(lab: Lab) -> None:
    """A second hello, one that is none, and a worker's requests of a client."""
    with Stranger(lab).prove() as peer:
        peer.greet()
        peer.send(encode(Hello(5, "client", "x", "h", 1, "b", "0", "3")))
        assert peer.rest() == []
    with Stranger(lab).prove() as peer:
        peer.greet()
        for request in (
            messages.Lease(1, 1),
            messages.Settle(2, []),
            messages.Beat(3, []),
            messages.Begin(4, 1),
        ):
            reply = peer.ask(request)
            assert isinstance(reply, Fail) and reply.error == "UsageError"
    with Stranger(lab).prove() as peer:
        peer.send(GREETING + pickle.dumps(None))
        assert peer.read() is None
