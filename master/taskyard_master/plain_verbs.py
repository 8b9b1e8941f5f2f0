"""What the two plain queues do to the ledger: they are the two ends of one open job named `plain`."""

import asyncio
import math
import time
from collections import deque
from random import random

from taskyard import batch
from taskyard import messages as m
from taskyard.clock import Deadline
from taskyard.errors import StorageError
from taskyard_master.commits import Commits
from taskyard_master.leasing import Leasing, Wanted
from taskyard_master.plans import Plan
from taskyard_master.results import Results
from taskyard_master.workers import Peer

JOB = "plain"
FUNCTION = "plain"  # yard workers with TASKYARD_FUNCTION list it, and serve plain tasks too
_FUNCTIONS = frozenset([FUNCTION])
AHEAD = 256 << 10  # bytes of results read ahead


class PlainVerbs:
    """Puts and gets of stdlib peers; values are opaque pickles."""

    def __init__(
        self, commits: Commits, leasing: Leasing, results: Results, loop: asyncio.AbstractEventLoop,
        *, maxsize: int, lease: float,
    ) -> None:  # fmt: skip
        self._commits, self._leasing, self._results = commits, leasing, results
        self._ledger = commits.ledger
        self._loop = loop
        self._maxsize = maxsize
        self._lease = lease or math.inf
        if maxsize:  # a put that waits for room is to know of every get, which no commit tells
            leasing.watched[JOB] = lambda: results.changed({JOB})
        self._submitting = asyncio.Lock()
        self._ahead: deque[tuple[int, int, bytes]] = deque()  # (seq of the row, results taken with it, value)
        self._read_to = 0
        self._indices: dict[str, dict[int, int]] = {}  # by connection: lease -> index, until it has a result

    async def start(self) -> None:
        """Open the job `plain`, which stays open for good; what connections to a master before this one
        held goes to others, because a connection never comes back."""
        options = m.Options(consume=True)
        opening = m.Open(0, JOB, JOB, FUNCTION, options, "")
        await self._commits.run(lambda: self._ledger.open(opening, time.time()))
        for boot in self._ledger.connections():
            plan = self._ledger.lost(boot, time.monotonic())
            self._commits.in_background(plan, "giving back what plain peers held")

    # ------------------------------------------------------------ tasks

    async def put(self, value: bytes, timeout: float | None) -> bool:
        """Accept a task; False if the queue stayed full. `timeout`: seconds, None = for ever."""
        block = batch.pack([value])
        deadline = Deadline.after(timeout)
        while True:
            async with self._submitting:
                if not self._maxsize or self.counts()[0] < self._maxsize:
                    written = self._commits.write(await self._commits.judged(lambda: self._next(block)))
                    break
            if deadline.passed or not await self._results.change(JOB, deadline):
                return False
        await written
        return True

    def _next(self, block: bytes) -> Plan:
        chunk = m.Chunk(0, JOB, self._ledger.next_index(JOB), 1, batch.digest(block), block)
        return self._ledger.chunk(chunk, time.monotonic(), 0)

    async def get(self, peer: Peer, timeout: float | None) -> tuple[int, int, bytes] | None:
        """Lease one task to a connection: (lease, index, value), or None if there was none in time."""
        future: asyncio.Future[list[m.Grant]] = self._loop.create_future()
        self._leasing.ask(Wanted(peer.id, peer.id, _FUNCTIONS, 1, future, seconds=self._lease, only=JOB))
        try:
            if not future.done() and timeout is not None:
                await asyncio.wait({future}, timeout=timeout)
                if not future.done():
                    future.cancel()
                    return None
            grant = (await future)[0]
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                for lost in future.result():
                    self._commits.journal.forget(lost.lease)
                    self._ledger.shrink(lost.lease, 0)
                self._leasing.serve()
            else:
                future.cancel()
            raise
        if grant.suspect and not self._indices.get(peer.id):  # only alone can its loss be its own doing
            await self._commits.run(lambda: self._ledger.begin(peer.id, grant.lease))
        self._indices.setdefault(peer.id, {})[grant.lease] = grant.first
        return grant.lease, grant.first, batch.unpack(grant.block, 1)[0]

    def gone(self, peer: Peer) -> None:
        """A connection ended: what it was handed is not its own any more."""
        self._indices.pop(peer.id, None)

    async def settle(self, peer: Peer, lease: int, value: bytes, timeout: float | None) -> bool:
        """The result of a leased task; False if the result queue stayed full."""
        if not await self._room(timeout):
            return False
        await self._finish(peer, lease, value, void=False)
        return True

    async def done(self, peer: Peer, lease: int) -> None:
        """A leased task is finished and gives no result."""
        await self._finish(peer, lease, b"", void=True)

    async def _finish(self, peer: Peer, lease: int, value: bytes, *, void: bool) -> None:
        index = self._indices[peer.id][lease]
        block = batch.pack([value])
        outcome = m.Outcome(lease, JOB, index, 1, "completed", time.time(), 0.0, block, void)
        await self._commits.run(
            lambda: self._ledger.settle(
                peer.id, peer.id, peer.address, [outcome], time.monotonic(), time.time(), random()
            )
        )
        self._indices.get(peer.id, {}).pop(lease, None)
        self._commits.journal.forget(lease)

    async def free(self, value: bytes, timeout: float | None) -> bool:
        """A result that answers no task; False if the result queue stayed full."""
        if not await self._room(timeout):
            return False
        block = batch.pack([value])
        async with self._submitting:
            plan = await self._commits.judged(
                lambda: self._ledger.free(JOB, block, worker="", host="", seconds=0.0, wall=time.time())
            )
            written = self._commits.write(plan)
        await written
        return True

    async def _room(self, timeout: float | None) -> bool:
        deadline = Deadline.after(timeout)
        while self._maxsize and self.counts()[2] >= self._maxsize:
            if deadline.passed or not await self._results.change(JOB, deadline):
                return False
        return True

    # ------------------------------------------------------------ results

    async def take(self, timeout: float | None) -> bytes | None:
        """The next result, for good: its taking is committed before this returns."""
        deadline = Deadline.after(timeout)
        while not (self._ahead or self._read_ahead()):
            if deadline.passed or not await self._results.change(JOB, deadline):
                return None
        at, offset, value = self._ahead.popleft()
        try:
            await asyncio.shield(self._commits.run(lambda: self._ledger.take(JOB, at, offset, 1)))
        except StorageError:
            self._ahead.clear()
            self._read_to = 0  # read again from what is committed
            raise
        return value

    def _read_ahead(self) -> bool:
        at, taken, _ = self._ledger.taken(JOB)
        after = max(self._read_to, at - 1)
        for row in self._commits.journal.read.results(JOB, after, AHEAD):
            self._read_to = row.at
            if row.state != "completed":
                continue
            skip = taken if row.at == at else 0
            values = batch.unpack(row.block, row.count)
            self._ahead.extend((row.at, n + 1, values[n]) for n in range(skip, row.count))
        return bool(self._ahead)

    # ------------------------------------------------------------ looking

    def counts(self) -> tuple[int, int, int]:
        """(ready tasks, unfinished tasks, results not yet taken)."""
        job = self._ledger.status(JOB)
        unfinished = job.ready + job.leased + job.delayed + job.suspect
        return job.ready, unfinished, self._ledger.untaken(JOB)

    async def join(self) -> None:
        """Wait until nothing is unfinished."""
        while self.counts()[1]:
            await self._results.change(JOB, Deadline.after(None))
