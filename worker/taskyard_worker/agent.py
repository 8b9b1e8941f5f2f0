"""The agent: leases tasks, hands them to slots, settles what becomes of them, and says that it lives.

Everything happens in one event loop, in callbacks that never wait; tasks run in other
processes and cannot hold it up. Whatever has changed, the next *turn* of the loop looks
once at all of it: it hands out what is queued, asks for more, and sends what is
finished. What the worker holds is in one of four places: queued, about to begin alone,
in a slot, or in the outbox. It is held until the master has answered for it.
"""

import asyncio
import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import taskyard
from taskyard import failpoints, log
from taskyard import messages as m
from taskyard.messages import Outcome, Reply
from taskyard.scan import Listing
from taskyard.settings import Settings
from taskyard_worker.identity import Identity, baked
from taskyard_worker.link import Link
from taskyard_worker.outbox import Outbox
from taskyard_worker.pace import Paces
from taskyard_worker.pieces import Piece
from taskyard_worker.prints import Printer, Recent
from taskyard_worker.process import Start
from taskyard_worker.pulse import Pulse
from taskyard_worker.slots import Limits, Slots
from taskyard_worker.stock import Stock
from taskyard_worker.watcher import Watcher

PLAIN = "plain"  # the function of plain tasks; a worker with TASKYARD_FUNCTION lists it
BALANCE_SECONDS = 0.25  # between two looks at whether too much is held
RETRY_SECONDS = 1.0  # after the master could not do what it was asked for

logger = logging.getLogger(__name__)


class Agent:
    """One worker of a yard. `run` does not end by itself; `drain` and `stop` end the work."""

    def __init__(self, settings: Settings, me: Identity, watcher: Watcher) -> None:
        self.state: Literal["running", "draining", "drained"] = "running"
        self.changed = asyncio.Event()  # set after every turn
        self.link = Link(settings, self)
        self.printer = Printer()
        self.said = Recent()
        self.slots = Slots(
            Start(watcher.folder, settings.payload, settings.allow, watcher.python),
            Limits(settings.slots, settings.recycle, settings.print),
            self,
            self._printed,
        )
        self.outbox = Outbox()
        self._settings = settings
        self._me = me
        self._watcher = watcher
        self._paces = Paces(settings.slots, settings.batch)
        self._stock = Stock(self._paces, settings.payload, self._timeout)
        self._asking = False  # a request for tasks is at the master
        self._not_before = 0.0  # when the master may be asked again after it failed, monotonic
        self._leaving = False
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._pulse = Pulse(self, me, self.link, self.slots)
        self._joined = 0

    async def run(self) -> None:
        """Work, for ever; raises TaskyardError where that is not possible."""
        self._loop = asyncio.get_running_loop()
        self.slots.start()
        works = (self.link.run(), self._pulse.run(), self._balance(), self._watch())
        tasks = [self._loop.create_task(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ what it holds

    def held(self) -> Iterator[m.Held]:
        """All ranges whose outcome the master has not answered for."""
        yield from self._stock.held()
        yield from self.slots.held()
        yield from self.outbox.held()

    @property
    def idle(self) -> bool:
        """Whether nothing is held."""
        return next(self.held(), None) is None and not self.slots.busy

    def drain(self, for_good: bool = False) -> None:
        """Take nothing new, give back what has not begun, finish what runs."""
        self._leaving = self._leaving or for_good
        if self.state != "running":
            return
        failpoints.passing("drain.before")
        self.state = "draining"
        log.event(logger, "draining", f"worker {self._me.id} drains: it finishes what runs")
        self.slots.hasten(True)
        self._release(self._stock.clear())
        self._pulse.quicken()
        self._soon()

    def undrain(self) -> None:
        """Work again, unless this process is about to end."""
        if self._leaving:
            return
        self.state = "running"
        self.slots.hasten(False)
        self._pulse.quicken()
        self._soon()

    def drop(self, leases: Iterable[int]) -> None:
        """These are not ours any more: what has not begun must not run, and what runs is ended."""
        gone = set(leases)
        if not gone:
            return
        self._stock.drop(gone)
        self.slots.drop(gone)
        self._soon()

    def _release(self, pieces: Iterable[Piece]) -> None:
        self.outbox.add([piece.released() for piece in pieces], time.monotonic())

    # ------------------------------------------------------------ what slots say

    def settled(self, piece: Piece, outcomes: list[Outcome]) -> None:
        failpoints.passing("slot.after")
        for outcome in outcomes:
            if outcome.kind in ("completed", "failed", "timeout"):
                self._paces.observe(piece.function, outcome.count, outcome.seconds)
        self.outbox.add(outcomes, time.monotonic())
        self._soon()

    def returned(self, piece: Piece) -> None:
        if self.state == "running":
            self._stock.put_back(piece)
        else:
            self._release([piece])
        self._soon()

    def _printed(self, tag: str, line: str) -> None:
        self.printer.line(tag, line)
        self.said.add(tag, line)

    def hungry(self) -> None:
        self._soon()

    # ------------------------------------------------------------ what the master says

    def hello(self) -> m.Hello:
        """Who we are and all that we hold; made before each attempt to connect."""
        listing = self._watcher.listing
        return m.Hello(
            0, "worker", self._me.id, self._me.host, os.getpid(), self._me.boot, taskyard.__version__,
            platform.python_version(), container=self._me.container, slots=self._settings.slots,
            functions=self._offered(listing), digest=listing.digest,
            baked=baked(self._watcher.folder, self._me.container), held=list(self.held()),
        )  # fmt: skip

    def _offered(self, listing: Listing) -> list[str]:
        plain = [PLAIN] if self._settings.function and listing.functions else []
        return sorted(listing.functions) + plain

    def connected(self, welcome: m.Welcome) -> None:
        failpoints.passing("joined.after")
        self._pulse.lease_seconds = welcome.lease
        self._joined += 1
        self._not_before = 0.0
        listing = self._watcher.listing
        log.event(
            logger, "joined",
            f"worker {self._me.id} {'re' if self._joined > 1 else ''}joined the master at"
            f" {self._settings.address}: {len(listing.functions)} functions, tasks digest {listing.digest}",
            worker=self._me.id, functions=len(listing.functions), digest=listing.digest,
        )  # fmt: skip
        self.drop(welcome.drop)
        for lease in self._stock.alone:
            self._begin(lease)
        self._pulse.quicken()
        self._soon()

    def disconnected(self) -> None:
        self._asking = False
        self.outbox.back_all()

    def notice(self, notice: m.Notice) -> None:
        if notice.kind == "drop":
            self.drop(notice.leases)
        elif notice.kind == "drain":
            self.drain()
        else:
            self.undrain()

    def _on_leased(self, reply: Reply | None) -> None:
        self._asking = False
        if self._failed(reply, "lease tasks") or not isinstance(reply, m.Leased):
            return
        failpoints.passing("leased.before")
        self._watcher.check()
        for grant in reply.grants:
            piece = Piece.of(grant)
            if piece.function == PLAIN:
                piece = replace(piece, function=self._settings.function)
            if self.state != "running":
                self._release([piece])
            elif piece.suspect and piece.count == 1:
                self._stock.alone[piece.lease] = piece
                self._begin(piece.lease)
            else:
                self._stock.add(piece)
        self._soon()

    def _timeout(self, function: str) -> float:
        """Seconds that a function asks for; 0 = it does not."""
        return self._watcher.listing.functions.get(function, 0.0)

    def _begin(self, lease: int) -> None:
        """Ask to begin a task that may kill us: it is charged with that only if this is known."""
        failpoints.passing("begin.before")
        self.link.request(m.Begin(0, lease), partial(self._on_begun, lease))

    def _on_begun(self, lease: int, reply: Reply | None) -> None:
        if reply is None:
            return  # asked again on the next connection
        piece = self._stock.alone.pop(lease, None)
        if piece is not None and isinstance(reply, m.Ok):
            self._stock.add(piece)
        elif piece is not None:
            self._release([piece])
        self._soon()

    def _on_settled(self, ticket: int, reply: Reply | None) -> None:
        if self._failed(reply, "record outcomes"):
            self.outbox.back(ticket)
        elif reply is not None:
            failpoints.passing("settled.before")
            self._not_before = 0.0
            self.outbox.answered(ticket)
        self._soon()

    def _failed(self, reply: Reply | None, what: str) -> bool:
        """Whether the master could not do something, such as on a full disk; it is asked again then."""
        if not isinstance(reply, m.Fail):
            return False
        if self._not_before == 0.0:
            log.event(logger, "master-failed", f"the master cannot {what}: {reply.message}", logging.WARNING)
        self._not_before = time.monotonic() + RETRY_SECONDS
        return True

    # ------------------------------------------------------------ the turn

    def _soon(self) -> None:
        """Have a turn as soon as all that has happened by now is known."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        now = time.monotonic()
        if self.state == "running" and self._watcher.sure:
            self.outbox.add(self._stock.hand_out(self.slots), now)
        if self.link.up and now < self._not_before:
            self._later(self._not_before - now)
        elif self.link.up:
            if self.state == "running":
                self._ask()
            self._settle(now)
        if self.state == "draining" and self.idle:
            self.state = "drained"
            self._pulse.quicken()
        self.changed.set()

    def _ask(self) -> None:
        if self._asking or self.slots.down or not self._watcher.listing.functions:
            return
        wish = self._paces.wish(self._stock.counts(), self.slots.idle)
        if wish is not None:
            self._asking = True
            self.link.request(m.Lease(0, wish.want, wish.wants), self._on_leased)

    def _settle(self, now: float) -> None:
        while (delay := self.outbox.delay(now)) == 0.0:
            ticket, outcomes = self.outbox.take(now)
            failpoints.passing("settle.before")
            self.link.request(m.Settle(0, outcomes), partial(self._on_settled, ticket))
            failpoints.passing("settle.after")
        if delay is not None:
            self._later(delay)

    def _later(self, seconds: float) -> None:
        """Have a turn then; it sees for itself whether that was early."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._soon()

    # ------------------------------------------------------------ now and then

    async def _balance(self) -> None:
        """Give back what would wait here for long: others may be idle."""
        while True:
            await asyncio.sleep(BALANCE_SECONDS)
            excess = self._stock.excess(self.slots)
            if excess:
                self._release(excess)
                self._soon()

    async def _watch(self) -> None:
        """Renew the slots when the tasks folder has changed, and say what can run now."""
        while True:
            if not await self._watcher.change():
                self._soon()  # there may be what waited for this look
                continue
            listing = self._watcher.listing
            log.event(
                logger, "tasks-changed",
                f"the tasks have changed: {len(listing.functions)} functions, digest {listing.digest}",
                digest=listing.digest,
            )  # fmt: skip
            self.slots.renew(self._watcher.python)
            if self.link.up:
                self.link.request(m.Functions(0, self._offered(listing), listing.digest), lambda _: None)
            self._soon()
