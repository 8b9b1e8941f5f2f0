"""Heartbeats: they renew what is held, say what runs, and show that the worker's loop turns."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from taskyard import failpoints
from taskyard.messages import Beat, Beaten, Held, Reply, Running
from taskyard_worker.identity import Beacon, Identity, memory
from taskyard_worker.link import Link
from taskyard_worker.prints import Recent
from taskyard_worker.slots import Slots

BEAT_SECONDS = 10.0  # between two at most
NEWS_SECONDS = 2.0  # between two at least, while what runs changes or prints
SILENCE_SECONDS = 3.0  # without a byte from the master, and a whole lease: its connection is given up


class Heart(Protocol):
    """Whose pulse it is."""

    @property
    def state(self) -> Literal["running", "draining", "drained"]: ...

    @property
    def said(self) -> Recent: ...

    def held(self) -> Iterator[Held]: ...

    def drop(self, leases: Iterable[int]) -> None: ...


class Pulse:
    """Beats a third of a lease apart, and at once when there is something to say."""

    def __init__(self, heart: Heart, me: Identity, link: Link, slots: Slots) -> None:
        self.lease_seconds = 30.0  # that a lease lasts without a heartbeat, as the master says
        self._heart = heart
        self._me = me
        self._link = link
        self._slots = slots
        self._beacon = Beacon()
        self._now = asyncio.Event()

    def quicken(self) -> None:
        """Beat now."""
        self._now.set()

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            self._now.clear()
            running = self._slots.running()
            shown = self._heart.state if self._link.up else "connecting"
            self._beacon.show({"id": self._me.id, "pid": os.getpid(), "state": shown})
            if self._link.up:
                self._beat(running)
            await self._rest(min(self.lease_seconds / 3, BEAT_SECONDS), running)

    def _beat(self, running: list[Running]) -> None:
        leases = sorted({held.lease for held in self._heart.held()})
        used = memory([os.getpid(), *self._slots.pids()])
        said = self._heart.said.take()
        self._link.request(Beat(0, leases, running, self._heart.state, used, said), self._on_beaten)
        failpoints.passing("beat.after")
        silent = time.monotonic() - self._link.heard
        if silent > max(SILENCE_SECONDS, self.lease_seconds):
            self._link.reset(f"nothing came from the master for {silent:.0f} s")

    async def _rest(self, seconds: float, told: list[Running]) -> None:
        """Wait so long, or until there is an order, or until something else runs than the master was told.

        So people see what runs and what it prints, and a worker that is idle or at one long task says
        nothing in between.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._now.wait(), min(left, NEWS_SECONDS))
                return
            except TimeoutError:
                if self._heart.said or _tasks(self._slots.running()) != _tasks(told):
                    return

    def _on_beaten(self, reply: Reply | None) -> None:
        if isinstance(reply, Beaten):
            self._heart.drop(reply.drop)


def _tasks(running: list[Running]) -> list[tuple[int, str, int]]:
    return [(one.slot, one.job, one.index) for one in running]
