"""From the settings to the exit code of a worker: log, signals, one dialect or the other, the end."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from taskyard import failpoints, log
from taskyard.clock import Deadline
from taskyard.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_UNREACHABLE, TaskyardError
from taskyard.settings import Settings
from taskyard_worker.agent import Agent
from taskyard_worker.identity import Identity
from taskyard_worker.joining import join
from taskyard_worker.plain import PlainWorker
from taskyard_worker.process import reap_orphans
from taskyard_worker.slots import Slots
from taskyard_worker.watcher import Watcher

REAP_SECONDS = 1.0  # between two looks for orphans
EXIT_TERMINATED = 128 + signal.SIGTERM
SETTLE_SECONDS = 5.0  # how long a worker that ends waits for the master's last answers

logger = logging.getLogger("taskyard_worker")


class Signals:
    """SIGTERM and SIGINT: the first one drains, the second one stops."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.terminated = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came, number)

    def _came(self, number: int) -> None:
        self.terminated = self.terminated or number == signal.SIGTERM
        (self.second if self.first.is_set() else self.first).set()

    async def unless(self, work: Awaitable[Any]) -> bool:
        """Wait for some work, but no longer than for the first signal; whether the work has ended."""
        return await self._before(self.first, asyncio.ensure_future(work), None)

    async def unless_again(self, work: Awaitable[Any], seconds: float) -> bool:
        """The same with the second signal, and no longer than some seconds."""
        return await self._before(self.second, asyncio.ensure_future(work), seconds)

    async def _before(self, event: asyncio.Event, work: "asyncio.Future[Any]", seconds: float | None) -> bool:
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([waiting, work], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            return work.done()
        finally:
            waiting.cancel()


async def serve(settings: Settings, swarm: bool = False) -> int:
    """Be a worker until a signal comes; returns the exit code, raises TaskyardError."""
    signals = Signals()
    code = await _serve(settings, signals)
    return EXIT_TERMINATED if swarm and signals.terminated and code == EXIT_DONE else code


async def _serve(settings: Settings, signals: Signals) -> int:
    environments = Path(settings.environments) if settings.environments else None
    watcher = Watcher(Path(settings.tasks_dir).resolve(), environments)
    if not await signals.unless(watcher.list()):
        return EXIT_DONE
    me = Identity.make(settings.host)
    work = serve_plain if settings.dialect == "plain" else serve_yard
    try:
        return await work(settings, me, watcher, signals)
    finally:
        watcher.stop()


async def reap(slots: Slots, watcher: Watcher) -> None:
    """As the first process of a container, reap the orphans of tasks, for ever."""
    while os.getpid() == 1:
        await asyncio.sleep(REAP_SECONDS)
        if not watcher.busy:
            reap_orphans(slots.pids())


async def serve_yard(settings: Settings, me: Identity, watcher: Watcher, signals: Signals) -> int:
    """Work for a yard's master, which never ends by itself."""
    agent = Agent(settings, me, watcher)
    working = asyncio.ensure_future(agent.run())
    reaping = asyncio.ensure_future(reap(agent.slots, watcher))
    try:
        await signals.unless(working)
        return await leave(agent, signals, settings.drain)
    finally:
        reaping.cancel()
        working.cancel()
        await asyncio.wait([working])
        await agent.slots.stop()
        agent.printer.close()


async def serve_plain(settings: Settings, me: Identity, watcher: Watcher, signals: Signals) -> int:
    """Work for a stdlib master, and end with it."""
    worker = PlainWorker(settings, me, watcher)
    working = asyncio.ensure_future(worker.run())
    reaping = asyncio.ensure_future(reap(worker.slots, watcher))
    try:
        if await signals.unless(working):
            return working.result()
        worker.drain()
        await signals.unless_again(working, settings.drain)
        if not working.done():
            worker.stop()
            await asyncio.wait([working], timeout=SETTLE_SECONDS)
        if signals.second.is_set():
            return EXIT_INTERRUPTED
        return working.result() if working.done() else EXIT_UNREACHABLE
    finally:
        reaping.cancel()
        working.cancel()
        await asyncio.wait([working])
        await worker.slots.stop()
        worker.printer.close()


async def leave(agent: Agent, signals: Signals, drain: float) -> int:
    """Drain, then stop what still runs, then wait for the master to have it all; returns the exit code."""
    deadline = Deadline.after(drain)
    agent.drain(for_good=True)
    await _until(agent, lambda: signals.second.is_set() or not agent.slots.busy, deadline)
    cut = len(agent.slots.running())
    if cut:
        log.event(logger, "cut", f"{cut} tasks still run: they are ended, and run again elsewhere")
    await agent.slots.stop()
    last = Deadline.after(SETTLE_SECONDS)
    if not agent.link.up and not signals.second.is_set():
        last = Deadline(max(last.at, deadline.at))
    await _until(agent, lambda: agent.outbox.empty, last)
    if not agent.outbox.empty:
        log.event(
            logger, "not-settled", "the master did not answer for the last outcomes: those tasks run again",
            logging.WARNING,
        )  # fmt: skip
        return EXIT_INTERRUPTED if signals.second.is_set() else EXIT_UNREACHABLE
    log.event(logger, "left", "all that this worker held is settled or given back")
    return EXIT_INTERRUPTED if signals.second.is_set() else EXIT_DONE


async def _until(agent: Agent, true: Callable[[], bool], deadline: Deadline) -> None:
    while not true() and not deadline.passed:
        agent.changed.clear()
        try:
            await asyncio.wait_for(agent.changed.wait(), min(0.05, deadline.left()))
        except TimeoutError:
            continue


def _loop() -> asyncio.AbstractEventLoop:
    """The fast loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main(swarm: bool = False) -> int:
    """Run a worker; whatever goes wrong is one line, and an exit code of `errors`.

    Under Swarm, which starts again what does not end with 0, a worker that SIGTERM ends must not end
    with 0: its host may be restarting. SIGINT is for the one that is to end for good.
    """
    try:
        join(os.environ)
        settings = Settings.from_env()
        failpoints.arm(settings.failpoint)
    except TaskyardError as error:
        log.setup()
        for line in str(error).splitlines():
            logger.error(line)
        return error.exit_code
    log.setup(settings.log)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(serve(settings, swarm))
    except TaskyardError as error:
        log.event(logger, "ended", str(error), logging.ERROR)
        return error.exit_code
