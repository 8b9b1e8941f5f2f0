"""Reading recorded outcomes by cursor, and waiting for more of them."""

import asyncio
from collections import defaultdict

from taskyard import batch
from taskyard import messages as m
from taskyard.clock import Deadline
from taskyard_master.commits import Commits
from taskyard_master.workers import Peer

PREFETCH = 8 << 20  # bytes that one answer holds at most


class Results:
    """The `results` verb, and the wake-ups of everybody who waits for a job to move."""

    def __init__(self, commits: Commits, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._loop = loop
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def changed(self, jobs: set[str]) -> None:
        """Something of these jobs was committed."""
        for job in jobs:
            for future in self._waiting.pop(job, ()):
                if not future.done():
                    future.set_result(None)

    async def change(self, job: str, deadline: Deadline) -> bool:
        """Wait for the next commit that touches a job; False if the deadline passed first."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[job].add(future)
        try:
            # Not wait_for, which in Python 3.11 forgets a cancellation that comes with the result: whoever
            # waited would wait on, for a connection that is gone.
            async with asyncio.timeout(deadline.timeout()):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting[job].discard(future)
            if not self._waiting[job]:
                del self._waiting[job]

    async def read(self, peer: Peer, request: m.Results) -> m.Reply:
        """Rows after the cursor; held up to `wait` seconds while there are none and more may come."""
        job = self._ledger.find(request.job)
        deadline = Deadline.after(min(request.wait, 60.0))
        while True:
            finished = self._ledger.done(job)  # before reading: what comes later is then seen again
            reply = self._ordered(job, request) if request.ordered else self._in_turn(job, request)
            if reply.rows or finished or deadline.passed:
                reply.done = finished and reply.done
                return reply
            await self.change(job, deadline)
            self._ledger.status(job)  # raises if it was deleted meanwhile

    def _in_turn(self, job: str, request: m.Results) -> m.Rows:
        space = min(request.space, PREFETCH)
        rows = self._journal.read.results(job, request.cursor, space, failed=request.failed)
        cursor = rows[-1].at if rows else request.cursor
        return m.Rows(request.seq, rows, cursor, not rows)

    def _ordered(self, job: str, request: m.Results) -> m.Rows:
        rows: list[m.Row] = []
        index, used = request.cursor, 0
        while used < min(request.space, PREFETCH):
            count, state = self._ledger.ended_run(job, index)
            if count == 0:
                break
            if state == "cancelled" or (request.failed and state == "completed"):
                index += count
                continue
            row = self._journal.read.result_at(job, index)
            if row is None:  # finished without a result
                index += 1
                continue
            stop = min(row.first + row.count, index + count)
            row.block = batch.cut(row.block, row.count, index - row.first, stop - row.first)
            row.started += row.seconds * (index - row.first) / row.count
            row.seconds *= (stop - index) / row.count
            row.first, row.count = index, stop - index
            rows.append(row)
            used += len(row.block) + 100
            index = stop
        return m.Rows(request.seq, rows, index, index >= self._ledger.status(job).total)
