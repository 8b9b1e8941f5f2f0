"""Deadlines of many connections, looked at by one timer for all, and by none while there are none."""

import asyncio
from typing import Protocol


class Watched(Protocol):
    """Who is told that its deadline has passed."""

    def late(self) -> None: ...


class Watch:
    """Who must get somewhere by when."""

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float) -> None:
        self._loop = loop
        self._period = period
        self._deadlines: dict[Watched, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, one: Watched, deadline: float) -> None:
        self._deadlines[one] = deadline
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._look)

    def extend(self, one: Watched, seconds: float) -> None:
        """Move a deadline; without one, nothing."""
        if one in self._deadlines:
            self._deadlines[one] += seconds

    def clear(self, one: Watched) -> None:
        self._deadlines.pop(one, None)

    def has(self, one: Watched) -> bool:
        return one in self._deadlines

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._period, self._look) if self._deadlines else None
        now = self._loop.time()
        for late in [one for one, deadline in self._deadlines.items() if deadline <= now]:
            late.late()
