"""The verbs of workers: lease tasks, begin suspects, settle outcomes, say that they live."""

import asyncio
import time
from collections.abc import Callable
from random import random

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import UsageError
from taskyard_master.commits import Commits
from taskyard_master.leasing import Leasing, Wanted
from taskyard_master.workers import Peer, Roster, Worker

Hear = Callable[[str, list[tuple[str, str]]], None]  # takes what tasks of a worker print, see messages.Beat


class Working:
    """`arm` is called where the ledger may have got something to do by itself."""

    def __init__(
        self, commits: Commits, leasing: Leasing, roster: Roster, loop: asyncio.AbstractEventLoop,
        arm: Callable[[], None],
    ) -> None:  # fmt: skip
        self._commits = commits
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._leasing = leasing
        self._roster = roster
        self._loop = loop
        self._arm = arm
        self.hearers: list[Hear] = []

    def _worker(self, peer: Peer) -> Worker:
        worker = self._roster.by_boot.get(peer.hello.boot) if peer.hello else None
        if worker is None or worker.peer is not peer:
            raise UsageError("only a worker's newest connection may lease and settle tasks")
        return worker

    async def lease(self, peer: Peer, request: m.Lease) -> m.Reply:
        worker = self._worker(peer)
        hello = worker.hello
        future: asyncio.Future[list[m.Grant]] = self._loop.create_future()
        wanted = Wanted(
            hello.boot, hello.name, worker.functions, request.want, future, request.wants, request.space
        )
        self._leasing.ask(wanted)
        self._arm()
        return m.Leased(request.seq, await future)

    async def begin(self, peer: Peer, request: m.Begin) -> m.Reply:
        hello = self._worker(peer).hello
        await self._commits.run(lambda: self._ledger.begin(hello.boot, request.lease))
        return m.Ok(request.seq)

    async def settle(self, peer: Peer, request: m.Settle) -> m.Reply:
        worker = self._worker(peer)
        hello = worker.hello
        for outcome in request.outcomes:
            if outcome.kind not in ("released", "suspect"):
                batch.check(outcome.block, outcome.count)
        plan = await self._commits.judged(
            lambda: self._ledger.settle(
                hello.boot, hello.name, hello.host, request.outcomes, time.monotonic(), time.time(), random()
            )
        )
        if plan.records:
            self._overtake(request.outcomes)
            await self._commits.write(plan)
        for outcome in request.outcomes:
            if self._ledger.lease(outcome.lease) is None:  # else a part of it still has to be known
                self._journal.forget(outcome.lease)
            if outcome.kind == "completed":
                worker.completed += outcome.count
            elif outcome.kind not in ("released", "suspect"):
                worker.failed += outcome.count
        return m.Settled(request.seq, plan.accepted, plan.duplicates)

    def _overtake(self, outcomes: list[m.Outcome]) -> None:
        """A grant that is all completed before it was written need not be: should this commit fail, its
        worker still names it."""
        for outcome in outcomes:
            lease = self._ledger.lease(outcome.lease)
            if lease is not None and outcome.kind == "completed" and outcome.count >= lease.left:
                self._journal.forget(outcome.lease)

    async def beat(self, peer: Peer, request: m.Beat) -> m.Reply:
        worker = self._worker(peer)
        worker.running, worker.memory = request.running, request.memory
        worker.leaving = request.state == "draining"  # by itself: it was told to stop
        worker.drained = request.state == "drained"
        if request.said:
            for hear in self.hearers:
                hear(worker.hello.name, request.said)
        drop = self._ledger.renew(worker.hello.boot, request.leases, time.monotonic())
        return m.Beaten(request.seq, drop)

    async def functions(self, peer: Peer, request: m.Functions) -> m.Reply:
        worker = self._worker(peer)
        worker.hello.functions, worker.hello.digest = request.functions, request.digest
        worker.functions = frozenset(request.functions)
        self._roster.note(worker)
        self._leasing.relist(worker.hello.boot, worker.functions)
        return m.Ok(request.seq)
