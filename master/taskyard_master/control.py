"""The verbs of people: how things are, cancel, requeue, delete, drain."""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import taskyard
from taskyard import messages as m
from taskyard.errors import UsageError
from taskyard_master.commits import Commits
from taskyard_master.workers import Peer, Roster


class Control:
    """`web` is where the dashboard is, for people; `connections` tells how many are open."""

    def __init__(
        self, address: str, commits: Commits, roster: Roster, connections: Callable[[], int]
    ) -> None:
        self.web = ""
        self._connections = connections
        self._address = address
        self._commits = commits
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._roster = roster
        self._started = time.time()

    async def status(self, peer: Peer, request: m.Status) -> m.Reply:
        reply = self.overview(request.job)
        reply.seq = request.seq
        return reply

    def overview(self, job: str = "") -> m.StatusReply:
        """Master, jobs (or the one that `job` names) and workers, as they are."""
        ids = [self._ledger.find(job)] if job else self._ledger.jobs()
        able: dict[str, bool] = {}  # by function: many jobs share one, and there may be many workers
        jobs = [self._noted(self._ledger.status(name), able) for name in ids]
        workers = [w.status(self._ledger.holding(boot)) for boot, w in self._roster.by_boot.items()]
        return m.StatusReply(0, self.master(), jobs, workers)

    def _noted(self, job: m.JobStatus, able: dict[str, bool]) -> m.JobStatus:
        if not job.ready or job.note:
            return job
        if job.function not in able:
            able[job.function] = self._roster.able(job.function) > 0
        if not able[job.function]:
            lacking = f"no joined worker can run {job.function}"
            job.note = lacking if self._roster.joined else "no workers yet: taskyard scale 2"
        return job

    def master(self) -> m.MasterStatus:
        """The master alone: the answer to a hello holds it, too."""
        return m.MasterStatus(
            address=self._address, pid=os.getpid(), version=taskyard.__version__,
            python=platform.python_version(), started=self._started, boot=self._journal.boot, web=self.web,
            journal=str(self._journal.path), journal_bytes=self._journal.size(), memory=_memory(),
            connections=self._connections(), warnings=[],
        )  # fmt: skip

    async def cancel(self, peer: Peer, request: m.Cancel) -> m.Reply:
        job = self._ledger.find(request.job)
        plan = await self._commits.judged(lambda: self._ledger.cancel(job, time.time()))
        drops = self._holders(plan.drop)
        if plan.records:
            await self._commits.write(plan)
        self._tell(drops)
        return m.Ok(request.seq)

    def _holders(self, leases: list[int]) -> dict[str, list[int]]:
        """Leases by the boot id of who holds them."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number in leases:
            lease = self._ledger.lease(number)
            if lease is not None:
                found[lease.boot].append(number)
        return found

    def _tell(self, drops: dict[str, list[int]]) -> None:
        """Tell workers which of their leases are void, so that they stop running them."""
        for boot, leases in drops.items():
            worker = self._roster.by_boot.get(boot)
            if worker is not None and worker.peer is not None:
                worker.peer.notify(m.Notice(0, "drop", leases))

    async def requeue(self, peer: Peer, request: m.Requeue) -> m.Reply:
        job = self._ledger.find(request.job)
        plan = await self._commits.run(lambda: self._ledger.requeue(job, request.first, request.count))
        return m.Settled(request.seq, plan.accepted, plan.duplicates)

    async def delete(self, peer: Peer, request: m.Delete) -> m.Reply:
        await self.forget(self._ledger.find(request.job))
        return m.Ok(request.seq)

    async def forget(self, job: str) -> None:
        """Delete a job that is over, with all that is kept of it."""
        await self._commits.run(lambda: self._ledger.delete(job, time.time()))
        self._journal.read.forget_job(job)
        self._commits.newest.pop(job, None)
        self._journal.purge(job)

    async def drain(self, peer: Peer, request: m.Drain) -> m.Reply:
        workers = self._roster.named(request.worker)
        if len(workers) != 1:
            what = "several workers begin" if workers else "no worker is named or begins"
            raise UsageError(f"{what} with {request.worker!r}: see 'taskyard status'")
        worker = workers[0]
        worker.draining, worker.drained = not request.undo, False
        if worker.peer is not None:
            worker.peer.notify(m.Notice(0, "undrain" if request.undo else "drain"))
        return m.Ok(request.seq)


def _memory() -> int:
    """Resident bytes of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
