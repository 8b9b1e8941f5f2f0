"""The coroutines that work for one connection: kept while they run, cancelled when it ends."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class InFlight:
    """Runs coroutines, started in the order of `start`; they handle their own errors.

    `freed` is called whenever one has ended and is no longer counted.
    """

    __slots__ = ("_freed", "_loop", "_tasks", "_then")

    def __init__(self, loop: asyncio.AbstractEventLoop, freed: Callable[[], None]) -> None:
        self._loop = loop
        self._freed = freed
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps weak references only
        self._then: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cancel(self, then: Callable[[], None]) -> None:
        """Cancel all of them, and call `then` once, when the last has ended."""
        self._then = then
        for task in self._tasks:
            task.cancel()
        self._check()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not self._then:
            self._freed()
        self._check()

    def _check(self) -> None:
        if self._then and not self._tasks:
            then, self._then = self._then, None
            then()
