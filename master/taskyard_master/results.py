"""Reading recorded outcomes by cursor, and waiting for more of them."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from taskyard import batch
from taskyard import messages as m
from taskyard.clock import Deadline
from taskyard_master.commits import Commits
from taskyard_master.workers import Peer

PREFETCH = 8 << 20  # bytes that one answer holds at most


class Results:
    """The `results` verb, and the wake-ups of everybody who waits for a job to move."""

    def __init__(self, commits: Commits, loop: asyncio.AbstractEventLoop) -> None:
        self._commits = commits
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._loop = loop
        self._waiting: defaultdict[str, set[asyncio.Future[bool]]] = defaultdict(set)
        # Told the job, boot id and cursor of everyone who asks for its rows in turn.
        self.observers: list[Callable[[str, str, int], None]] = []

    def changed(self, jobs: set[str]) -> None:
        """Something of these jobs was committed that somebody may wait for."""
        for job in jobs:
            for future in self._waiting.pop(job, ()):
                if not future.done():
                    future.set_result(True)

    async def change(self, job: str, deadline: Deadline) -> bool:
        """Wait for the next commit that ends anything of a job; False if the deadline passed first."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[job].add(future)
        left = deadline.timeout()
        timer = None if left is None else self._loop.call_later(left, _expire, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting[job].discard(future)
            if not self._waiting[job]:
                del self._waiting[job]

    async def read(self, peer: Peer, request: m.Results) -> m.Reply:
        """Rows after the cursor; held up to `wait` seconds while there are none and more may come."""
        job = self._ledger.find(request.job)
        deadline = Deadline.after(min(request.wait, 60.0))
        if peer.hello is not None and not (request.ordered or request.failed):
            for observe in self.observers:
                observe(job, peer.hello.boot, request.cursor)
        while True:
            finished = self._ledger.done(job)  # before reading: what comes later is then seen again
            reply = self._ordered(job, request) if request.ordered else self._in_turn(job, request)
            if reply.rows or finished or deadline.passed:
                reply.done = finished and reply.done
                return reply
            await self.change(job, deadline)
            self._ledger.status(job)  # raises if it was deleted meanwhile

    def _in_turn(self, job: str, request: m.Results) -> m.Rows:
        newest = self._commits.newest.get(job)
        if newest is not None and newest <= request.cursor:
            return m.Rows(request.seq, [], request.cursor, True)
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
            if row is None:  # finished without a result, or that was dropped: on to the next that is there
                following = self._journal.read.next_result(job, index)
                index += count if following is None else min(count, following - index)
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


def _expire(future: "asyncio.Future[bool]") -> None:
    if not future.done():
        future.set_result(False)
