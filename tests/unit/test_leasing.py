"""Requests for tasks that wait: none is lost, whatever became of those before it."""

import asyncio
from types import SimpleNamespace
from typing import Any

from taskyard.messages import Grant
from taskyard_master.leasing import Leasing, Wanted
from taskyard_master.workers import Roster


class Handing(Leasing):
    """Has one task for each request, while `ready`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready = True
        ledger: Any = SimpleNamespace(leasable=lambda: self.ready, ready_for=self._ready_for)
        self.looked = 0
        commits: Any = SimpleNamespace(ledger=ledger, journal=None)
        super().__init__(commits, loop)

    def _ready_for(self, functions: frozenset[str]) -> bool:
        self.looked += 1
        return "f" in functions

    def _grant(self, wanted: Wanted) -> list[Grant]:
        return [Grant(1, "job", "f", 0, 1, 0.0, False, b"")]


def wanted(loop: asyncio.AbstractEventLoop, function: str = "f") -> Wanted:
    return Wanted("boot", "worker", frozenset({function}), 1, loop.create_future())


def test_thousands_who_cannot_run_what_is_ready_cost_one_look() -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        leasing = Handing(loop)
        leasing.ready = False
        idle = [wanted(loop, "g") for _ in range(1000)]
        for each in (*idle, one := wanted(loop)):
            leasing.ask(each)
        leasing.ready = True
        leasing.serve()
        assert one.future.done()
        assert not any(each.future.done() for each in idle)
        assert leasing.looked == 2

    asyncio.run(ask())


def test_a_request_waits_though_one_at_the_same_address_was_served_just_before() -> None:
    """That one is freed before its callback has run, and the next may take its place in memory."""

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        leasing = Handing(loop)
        one = wanted(loop)
        place = id(one)
        leasing.ask(one)
        assert one.future.done()
        del one
        leasing.ready = False
        others = [wanted(loop)]
        while id(others[-1]) != place and len(others) < 100:
            others.append(wanted(loop))
        leasing.ask(others[-1])
        await asyncio.sleep(0)  # the callbacks of the first
        leasing.ready = True
        leasing.serve()
        assert others[-1].future.done()

    asyncio.run(ask())


def test_the_rest_of_a_job_is_shared_among_those_that_can_run_it() -> None:
    roster = Roster()
    assert roster.sharing(frozenset({"f"})) == 1

    def worker(boot: str, functions: set[str], slots: int, connected: bool = True) -> Any:
        return SimpleNamespace(
            hello=SimpleNamespace(boot=boot, slots=slots), functions=frozenset(functions),
            peer=object() if connected else None,
        )  # fmt: skip

    for number in range(100):
        roster.note(worker(f"idle-{number}", {"g"}, 4))
    roster.note(worker("one", {"f"}, 2))
    roster.note(worker("two", {"f", "g"}, 3))
    assert roster.sharing(frozenset({"f"})) == 5
    assert roster.joined == 102
    roster.note(worker("two", {"g"}, 3))  # its tasks folder has changed
    roster.note(worker("one", {"f"}, 2, connected=False))
    assert roster.sharing(frozenset({"f"})) == 1
    assert roster.sharing(frozenset({"g"})) == 403
