"""Whoever waits for a job to move, and is cancelled because its connection has ended."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.clock import Deadline
from taskyard_master.results import Results


@pytest.mark.parametrize("seconds", [60.0, None])
def test_a_cancellation_that_comes_with_the_change_is_not_forgotten(seconds: float | None) -> None:
    async def work() -> None:
        commits: Any = SimpleNamespace(ledger=None, journal=None)
        results = Results(commits, asyncio.get_running_loop())
        waiting = asyncio.create_task(results.change("j", Deadline.after(seconds)))
        await asyncio.sleep(0)
        results.changed({"j"})
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())


def test_it_waits_no_longer_than_it_was_told() -> None:
    async def work() -> None:
        commits: Any = SimpleNamespace(ledger=None, journal=None)
        results = Results(commits, asyncio.get_running_loop())
        assert not await results.change("j", Deadline.after(0.01))
        waiting = asyncio.create_task(results.change("j", Deadline.after(60.0)))
        await asyncio.sleep(0)
        results.changed({"j"})
        assert await waiting

    asyncio.run(work())
