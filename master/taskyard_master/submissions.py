"""The verbs of submitters: open a job, add chunks to it in order, close it."""

import asyncio
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from taskyard import batch
from taskyard import messages as m
from taskyard.clock import Deadline
from taskyard.errors import BacklogFullError, PayloadError, UnreachableError
from taskyard.settings import Settings
from taskyard_master.commits import Commits
from taskyard_master.plans import Plan
from taskyard_master.results import Results
from taskyard_master.space import Space
from taskyard_master.workers import Peer, Roster


class Submissions:
    """What comes in, as long as there is room for it and the master is not stopping."""

    def __init__(self, settings: Settings, commits: Commits, results: Results, roster: Roster) -> None:
        self.stopping = False
        self._payload: int = settings.payload
        self._backlog: int = settings.backlog
        self._commits = commits
        self._ledger = commits.ledger
        self._results = results
        self._roster = roster
        self._space = Space(settings, commits.journal)
        # By job, for as long as somebody submits to it; a peer can name any number of jobs that are none.
        self._submitting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, peer: Peer, request: m.Open) -> m.Reply:
        self.accepting()
        await self._commits.run(lambda: self._ledger.open(request, time.time()))
        status = self._ledger.status(request.job)
        return m.Opened(request.seq, request.job, status.total, self._roster.able(status.function))

    async def chunk(self, peer: Peer, request: m.Chunk) -> m.Reply:
        batch.check(request.block, request.count)
        limit = self._payload
        if len(request.block) > limit and batch.longest(request.block, request.count) > limit:
            raise PayloadError(
                f"a task of job {request.job} is larger than {limit} bytes (TASKYARD_PAYLOAD): "
                "put the data on shared storage and send its path"
            )
        written = await self._submit(
            request.job,
            lambda: self._ledger.chunk(request, time.monotonic(), self._backlog),
            hold=not request.inside,
        )
        if written is not None:
            await written
        return m.Accepted(request.seq, request.first + request.count)

    async def _submit(
        self, job: str, judge: Callable[[], Plan], *, hold: bool
    ) -> "asyncio.Future[None] | None":
        """Plan and queue tasks of a job, in order of arrival, held while its backlog is full."""
        async with self._turn(job):
            while True:
                self.accepting()
                try:
                    plan = await self._commits.judged(judge)
                    return self._commits.write(plan) if plan.records else None
                except BacklogFullError:
                    if not hold:
                        raise
                    await self._results.change(job, Deadline.after(5.0))

    def _turn(self, job: str) -> asyncio.Lock:
        """Held by one submitter of a job after the other."""
        lock = self._submitting.get(job) or asyncio.Lock()
        self._submitting[job] = lock
        return lock

    def accepting(self) -> None:
        if self.stopping:
            raise UnreachableError("the master is stopping and accepts nothing new: try again in a moment")
        self._space.check()

    async def close(self, peer: Peer, request: m.Close) -> m.Reply:
        async with self._turn(request.job):
            await self._commits.run(lambda: self._ledger.close(request, time.time()))
        return m.Ok(request.seq)

    async def renew(self, peer: Peer, request: m.Renew) -> m.Reply:
        self._ledger.renew_job(request.job, time.monotonic())
        return m.Ok(request.seq)
