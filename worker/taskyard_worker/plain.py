"""Working for a stdlib master, `TASKYARD_DIALECT=plain`: get, run, put, as the tutorials' workers do.

Each slot has a *lane*: a connection of its own, which gets one task, has a slot run it
and puts what the function returned. A master that is not there yet is waited for. When
it ends, as the tutorials' masters do after the last result, so does the worker.

There is nobody to report a failure to: a task that raises, runs too long or kills its
slot gives no result and is logged. A task that is in hand when the worker must end is
put back on the task queue.
"""

import asyncio
import contextlib
import difflib
import logging
import os
import random
import time
from collections import deque

from taskyard import backoff, batch, log, messages, plain
from taskyard.errors import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    FunctionError,
    PayloadError,
    SettingsError,
    TaskyardError,
    UnreachableError,
)
from taskyard.messages import Outcome
from taskyard.scan import Listing
from taskyard.settings import Settings
from taskyard_worker.identity import Beacon, Identity
from taskyard_worker.link import LONGEST_PAUSE, LOUDER_SECONDS
from taskyard_worker.pieces import Piece
from taskyard_worker.plain_link import PlainLink, RemoteError, find
from taskyard_worker.prints import Printer
from taskyard_worker.process import Start
from taskyard_worker.slots import Limits, Slots
from taskyard_worker.watcher import Watcher

JOB = "plain"  # what the log calls all tasks
SUSPICIONS = 3  # times that a task runs whose slot is killed from outside
BEAT_SECONDS = 10.0

logger = logging.getLogger(__name__)


class PlainWorker:
    """One worker of a stdlib master."""

    def __init__(self, settings: Settings, me: Identity, watcher: Watcher) -> None:
        self.printer = Printer()
        self.slots = Slots(
            Start(watcher.folder, settings.payload, settings.allow, watcher.python),
            Limits(settings.slots, settings.recycle, settings.print),
            self,
            self.printer.line,
        )
        self._settings = settings
        self._me = me
        self._watcher = watcher
        self._waiting: deque[Piece] = deque()  # for a slot
        self._outcomes: dict[int, asyncio.Future[Outcome | None]] = {}
        self._count = 0  # tasks that were got
        self._in_hand = 0  # and whose result the master does not have
        self._leaving = asyncio.Event()
        self._stopped = False

    async def run(self) -> int:
        """Work until the master ends or `drain` is called; returns the exit code, raises TaskyardError."""
        timeout = self._timeout(self._watcher.listing)
        self.slots.start()
        queues = await self._find_queues()
        if queues is None:
            return EXIT_DONE
        log.event(
            logger, "joined",
            f"worker {self._me.id} works for the plain master at {self._settings.address}:"
            f" {self._settings.function}, tasks digest {self._watcher.listing.digest}",
            worker=self._me.id,
        )  # fmt: skip
        lanes = [self._lane(number, *queues, timeout) for number in range(self._settings.slots)]
        beside = [asyncio.ensure_future(work) for work in (self._watch(), self._beat())]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in beside:
                task.cancel()
        if self._in_hand:
            words = f"the master ended before it took the results of {self._in_hand} tasks"
            log.event(logger, "not-settled", words, logging.WARNING)
            return EXIT_UNREACHABLE
        log.event(logger, "left", f"the work is done: {self._count} tasks")
        return EXIT_DONE

    def drain(self) -> None:
        """Get nothing new, and end after what runs."""
        log.event(logger, "draining", f"worker {self._me.id} drains: it finishes what runs")
        self._leaving.set()

    def stop(self) -> None:
        """End what runs; its tasks go back on the queue."""
        self._leaving.set()
        self._stopped = True
        for slot in self.slots.all:
            slot.stop()

    def _timeout(self, listing: Listing) -> float:
        """Seconds that a task may run; raises if there is no function to run them."""
        name = self._settings.function
        if not name:
            raise SettingsError(
                "TASKYARD_FUNCTION: is not set; it names what plain tasks run, module:function"
            )
        if name not in listing.functions:
            fault = listing.faults.get(name.partition(":")[0])
            near = difflib.get_close_matches(name, listing.functions, n=1)
            hint = f": {fault}" if fault else f"; did you mean {near[0]}?" if near else ""
            raise FunctionError(f"TASKYARD_FUNCTION={name} cannot run from {self._watcher.folder}{hint}")
        return listing.functions[name]

    # ------------------------------------------------------------ the master

    async def _find_queues(self) -> tuple[str, str] | None:
        """The ids of both queues, as soon as there is a master; None if it is time to leave first."""
        pauses = backoff.delays(iter(random.random, None), cap=LONGEST_PAUSE)
        said = 0.0
        while not self._leaving.is_set():
            try:
                tasks = await find(self._settings, self._settings.plain_tasks)
                return tasks, await find(self._settings, self._settings.plain_results)
            except UnreachableError as error:
                now = time.monotonic()
                if not said or now - said > LOUDER_SECONDS:
                    level = logging.WARNING if said else logging.INFO
                    log.event(logger, "no-master", f"waiting for the master: {error}", level)
                    said = now
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), next(pauses))
        return None

    async def _lane(self, number: int, tasks: str, results: str, timeout: float) -> None:
        """Get, run, put, until the master ends or it is time to leave."""
        try:
            link = await PlainLink.dial(self._settings)
        except UnreachableError:
            return
        try:
            await link.accept(f"{self._me.id}-{number}")
            while not self._leaving.is_set():
                await self._next(link, tasks, results, timeout)
        except UnreachableError as error:
            log.event(logger, "master-gone", f"lane {number} ends: {error}", logging.DEBUG)
        except RemoteError as error:
            if error.name != "ShutDown":  # a queue of Python 3.13 that was shut down: the end, too
                raise TaskyardError(f"the master's queue failed: {error.name}: {error.text}") from error
        finally:
            link.close()

    async def _next(self, link: PlainLink, tasks: str, results: str, timeout: float) -> None:
        """Do one task, or find that there is none at the moment."""
        try:
            payload = plain.dumps(await link.get(tasks))
        except RemoteError as error:
            if error.name == "Empty":
                return
            raise
        except PayloadError as error:
            log.event(logger, "task-not-read", f"a task cannot be read: {error}", logging.ERROR)
            return
        self._count += 1
        self._in_hand += 1
        self._watcher.check()
        outcome = await self._run(self._count, payload, timeout)
        if outcome is None:
            await link.put(tasks, payload)
        elif outcome.kind == "completed":
            await link.put(results, batch.unpack(outcome.block, 1)[0])
        else:
            self._complain(outcome)
        self._in_hand -= 1

    def _complain(self, outcome: Outcome) -> None:
        words = "its slot is killed from outside each time"
        if outcome.block:
            failure = messages.decode_failure(batch.unpack(outcome.block, 1)[0])
            words = f"{failure.type}: {failure.message}" if failure.type else failure.message
            words += f"\n{failure.traceback}".rstrip()
        name = f"{JOB}/{outcome.first}"
        log.event(logger, "task-failed", f"task {name} gives no result: {words}", logging.ERROR, task=name)

    # ------------------------------------------------------------ the slots

    async def _run(self, number: int, payload: bytes, timeout: float) -> Outcome | None:
        """Have a slot run a task; None if it was taken back before it ended."""
        block = batch.pack([payload])
        piece = Piece(number, JOB, self._settings.function, timeout, False, number, 1, block, 1)
        for _ in range(SUSPICIONS):
            future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
            self._outcomes[number] = future
            self.returned(piece)
            outcome = await future
            if outcome is None or outcome.kind != "suspect":
                break
        return outcome

    def settled(self, piece: Piece, outcomes: list[Outcome]) -> None:
        self._tell(piece, outcomes[-1])

    def returned(self, piece: Piece) -> None:
        if self._stopped:
            self._tell(piece, None)
        else:
            self._waiting.appendleft(piece)
            self.hungry()

    def hungry(self) -> None:
        asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        if not self._watcher.sure:
            return
        for slot in self.slots.free():
            if slot.batches or not self._waiting:
                return
            piece = self._waiting.popleft()
            if slot.fits(piece):
                self.slots.give(slot, piece)
            else:
                words = "its value is too large for a slot (TASKYARD_PAYLOAD)"
                failure = messages.Failure("refused", "", words)
                self._tell(piece, piece.outcome("refused", failure=failure))

    def _tell(self, piece: Piece, outcome: Outcome | None) -> None:
        future = self._outcomes.pop(piece.lease, None)
        if future is not None and not future.done():
            future.set_result(outcome)

    # ------------------------------------------------------------ now and then

    async def _watch(self) -> None:
        while True:
            if await self._watcher.change():
                digest = self._watcher.listing.digest
                log.event(logger, "tasks-changed", f"the tasks have changed: digest {digest}")
                self.slots.renew(self._watcher.python)
            self.hungry()

    async def _beat(self) -> None:
        beacon = Beacon()
        while True:
            beacon.show({"id": self._me.id, "pid": os.getpid(), "state": "running"})
            await asyncio.sleep(BEAT_SECONDS)
