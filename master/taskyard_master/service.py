"""The verbs of the wire: ledger, journal and everybody who waits for them, in one event loop."""

import asyncio
import logging
import os
import platform
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import random
from typing import Any
from weakref import WeakValueDictionary

import taskyard
from taskyard import batch, failpoints
from taskyard import messages as m
from taskyard.clock import Deadline
from taskyard.errors import (
    BacklogFullError,
    PayloadError,
    TaskyardError,
    UnreachableError,
    UsageError,
)
from taskyard.log import event
from taskyard.settings import Settings
from taskyard.tls_identity import Identity
from taskyard_master.backups import Backups
from taskyard_master.commits import Commits
from taskyard_master.inviting import Invitations
from taskyard_master.journal import Journal
from taskyard_master.leasing import Leasing, Wanted
from taskyard_master.ledger import Ledger
from taskyard_master.plain_verbs import PlainVerbs
from taskyard_master.plans import Plan
from taskyard_master.results import Results
from taskyard_master.space import Space
from taskyard_master.workers import Peer, Roster, Worker

log = logging.getLogger(__name__)

GRANTS_FLUSH = 0.2  # seconds after which grants that ride on nothing are written by themselves


class Service:
    """What the server calls: one coroutine a request, and `gone` at the end of a connection."""

    def __init__(self, settings: Settings, journal: Journal, ledger: Ledger, loop: asyncio.AbstractEventLoop):
        self.settings = settings
        self.journal = journal
        self.ledger = ledger
        self.loop = loop
        self.started = time.time()
        self.roster = Roster()
        self.commits = Commits(ledger, journal, loop, self._changed)
        self.leasing = Leasing(self.commits, loop)
        self.results = Results(self.commits, loop)
        self.plain = PlainVerbs(
            self.commits, self.leasing, self.results, loop,
            maxsize=settings.plain_maxsize, lease=settings.plain_lease,
        )  # fmt: skip
        self.connections: Callable[[], int] = lambda: 0  # set by the server
        self.web = ""
        # By job, for as long as somebody submits to it; a peer can name any number of jobs that are none.
        self._submitting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when it rings, monotonic
        self._stopping = False
        self.space = Space(settings, journal)
        self.backups = Backups(journal)
        self.invitations = Invitations()
        self._verbs: dict[type, Callable[[Peer, Any], Awaitable[m.Reply]]] = {
            m.Open: self._open, m.Chunk: self._chunk, m.Close: self._close, m.Renew: self._renew,
            m.Lease: self._lease, m.Begin: self._begin, m.Settle: self._settle, m.Beat: self._beat,
            m.Functions: self._functions, m.Results: self.results.read, m.Status: self._status,
            m.Cancel: self._cancel, m.Requeue: self._requeue, m.Delete: self._delete,
            m.Drain: self._drain, m.Backup: self.backups.part, m.Invite: self._invite,
        }  # fmt: skip
        self._tick()

    # ------------------------------------------------------------ connections

    async def hello(self, peer: Peer, hello: m.Hello) -> m.Welcome:
        """A peer says who it is; a worker, also what it holds."""
        drop: list[int] = []
        if hello.role == "worker":
            known = self.roster.by_boot.get(hello.boot)
            if known is not None and known.peer is not None and known.peer is not peer:
                known.peer.close("a newer connection of this worker took its place")
            worker = known or Worker(hello, peer, time.time(), time.time())
            worker.hello, worker.peer, worker.seen = hello, peer, time.time()
            worker.functions = frozenset(hello.functions)
            self.roster.by_boot[hello.boot] = worker
            self._count_slots()
            plan = await self.commits.run(
                lambda: self.ledger.hello(hello.boot, hello.name, hello.held, time.monotonic())
            )
            failpoints.passing("hello.before")
            drop = plan.drop
            if known is None:
                self._announce(worker)
            if worker.draining:
                peer.notify(m.Notice(0, "drain"))
        return m.Welcome(hello.seq, self._master(), self.settings.lease, drop)

    def _announce(self, worker: Worker) -> None:
        h = worker.hello
        joined = sum(1 for w in self.roster.by_boot.values() if w.peer is not None)
        text = f"worker {h.name} joined from {h.host} with {h.slots} slot(s); {joined} joined"
        event(log, "worker-joined", text, worker=h.name, host=h.host, slots=h.slots)
        if h.version != taskyard.__version__:
            event(
                log, "version-skew", f"worker {h.name} is taskyard {h.version}, the master is "
                f"{taskyard.__version__}: build both from one version", logging.WARNING,
            )  # fmt: skip

    def gone(self, peer: Peer) -> None:
        """A connection ended: a worker may come back within the grace, a plain peer's tasks go back."""
        hello = peer.hello
        self.backups.drop(peer)
        if hello is None:
            self.leasing.forget(peer.id)
            self.plain.gone(peer)
            self.commits.in_background(self._lost(peer.id), "giving back a plain peer's tasks")
            return
        worker = self.roster.by_boot.get(hello.boot)
        if hello.role != "worker" or worker is None or worker.peer is not peer:
            return
        if self._stopping:
            return  # the connection ends with this master: the worker comes back to the next one
        worker.peer = None
        worker.running = []
        self.leasing.forget(hello.boot)
        self._count_slots()
        going = worker.drained or worker.draining or worker.leaving
        grace = 0.0 if going else self.settings.grace
        self.loop.call_later(grace, self._give_up, hello.boot)

    def _give_up(self, boot: str) -> None:
        worker = self.roster.by_boot.get(boot)
        if worker is None or worker.peer is not None:
            return
        del self.roster.by_boot[boot]
        self._count_slots()
        held = self._held(boot)
        event(
            log, "worker-left", f"worker {worker.hello.name} left, holding {held} task(s)",
            logging.WARNING if held else logging.INFO, worker=worker.hello.name, held=held,
        )  # fmt: skip
        self.commits.in_background(self._lost(boot), f"giving back the tasks of {worker.hello.name}")

    def _held(self, boot: str) -> int:
        return sum(self.ledger.held(boot).values())

    def _lost(self, boot: str) -> Plan:
        failpoints.passing("lost.before")
        return self.ledger.lost(boot, time.monotonic())

    def _count_slots(self) -> None:
        self.leasing.slots = self.roster.slots()

    async def handle(self, peer: Peer, request: m.Request) -> m.Reply:
        """One request, one reply; raises TaskyardError where it was not done."""
        if peer.hello is not None:
            worker = self.roster.by_boot.get(peer.hello.boot)
            if worker is not None:
                worker.seen = time.time()
        verb = self._verbs.get(type(request))
        if verb is None:
            raise UsageError(f"{type(request).__name__} is not a request of an open connection")
        return await verb(peer, request)

    # ------------------------------------------------------------ submitting

    async def _open(self, peer: Peer, request: m.Open) -> m.Reply:
        self._accepting()
        await self.commits.run(lambda: self.ledger.open(request, time.time()))
        status = self.ledger.status(request.job)
        return m.Opened(request.seq, request.job, status.total, self.roster.able(status.function))

    async def _chunk(self, peer: Peer, request: m.Chunk) -> m.Reply:
        batch.check(request.block, request.count)
        limit: int = self.settings.payload
        if len(request.block) > limit and batch.longest(request.block, request.count) > limit:
            raise PayloadError(
                f"a task of job {request.job} is larger than {limit} bytes (TASKYARD_PAYLOAD): "
                "put the data on shared storage and send its path"
            )
        written = await self._submit(
            request.job,
            lambda: self.ledger.chunk(request, time.monotonic(), self.settings.backlog),
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
                self._accepting()
                try:
                    plan = await self.commits.judged(judge)
                    return self.commits.write(plan) if plan.records else None
                except BacklogFullError:
                    if not hold:
                        raise
                    await self.results.change(job, Deadline.after(5.0))

    def _turn(self, job: str) -> asyncio.Lock:
        """Held by one submitter of a job after the other."""
        lock = self._submitting.get(job) or asyncio.Lock()
        self._submitting[job] = lock
        return lock

    def _accepting(self) -> None:
        if self._stopping:
            raise UnreachableError("the master is stopping and accepts nothing new: try again in a moment")
        self.space.check()

    async def _close(self, peer: Peer, request: m.Close) -> m.Reply:
        async with self._turn(request.job):
            await self.commits.run(lambda: self.ledger.close(request, time.time()))
        return m.Ok(request.seq)

    async def _renew(self, peer: Peer, request: m.Renew) -> m.Reply:
        self.ledger.renew_job(request.job, time.monotonic())
        return m.Ok(request.seq)

    # ------------------------------------------------------------ working

    def _worker(self, peer: Peer) -> Worker:
        worker = self.roster.by_boot.get(peer.hello.boot) if peer.hello else None
        if worker is None or worker.peer is not peer:
            raise UsageError("only a worker's newest connection may lease and settle tasks")
        return worker

    async def _lease(self, peer: Peer, request: m.Lease) -> m.Reply:
        worker = self._worker(peer)
        hello = worker.hello
        future: asyncio.Future[list[m.Grant]] = self.loop.create_future()
        wanted = Wanted(
            hello.boot, hello.name, worker.functions, request.want, future, request.wants, request.space
        )
        self.leasing.ask(wanted)
        self._arm()
        return m.Leased(request.seq, await future)

    async def _begin(self, peer: Peer, request: m.Begin) -> m.Reply:
        hello = self._worker(peer).hello
        await self.commits.run(lambda: self.ledger.begin(hello.boot, request.lease))
        return m.Ok(request.seq)

    async def _settle(self, peer: Peer, request: m.Settle) -> m.Reply:
        worker = self._worker(peer)
        hello = worker.hello
        for outcome in request.outcomes:
            if outcome.kind not in ("released", "suspect"):
                batch.check(outcome.block, outcome.count)
        plan = await self.commits.judged(
            lambda: self.ledger.settle(
                hello.boot, hello.name, hello.host, request.outcomes, time.monotonic(), time.time(), random()
            )
        )
        if plan.records:
            self._overtake(request.outcomes)
            await self.commits.write(plan)
        for outcome in request.outcomes:
            if self.ledger.lease(outcome.lease) is None:  # else a part of it still has to be known
                self.journal.forget(outcome.lease)
            if outcome.kind == "completed":
                worker.completed += outcome.count
            elif outcome.kind not in ("released", "suspect"):
                worker.failed += outcome.count
        return m.Settled(request.seq, plan.accepted, plan.duplicates)

    def _overtake(self, outcomes: list[m.Outcome]) -> None:
        """A grant that is all completed before it was written need not be: should this commit fail, its
        worker still names it."""
        for outcome in outcomes:
            lease = self.ledger.lease(outcome.lease)
            if lease is not None and outcome.kind == "completed" and outcome.count >= lease.left:
                self.journal.forget(outcome.lease)

    async def _beat(self, peer: Peer, request: m.Beat) -> m.Reply:
        worker = self._worker(peer)
        worker.running, worker.memory = request.running, request.memory
        worker.leaving = request.state == "draining"  # by itself: it was told to stop
        worker.drained = request.state == "drained"
        drop = self.ledger.renew(worker.hello.boot, request.leases, time.monotonic())
        return m.Beaten(request.seq, drop)

    async def _functions(self, peer: Peer, request: m.Functions) -> m.Reply:
        worker = self._worker(peer)
        worker.hello.functions, worker.hello.digest = request.functions, request.digest
        worker.functions = frozenset(request.functions)
        self.leasing.relist(worker.hello.boot, worker.functions)
        return m.Ok(request.seq)

    # ------------------------------------------------------------ people

    async def _status(self, peer: Peer, request: m.Status) -> m.Reply:
        reply = self.overview(request.job)
        reply.seq = request.seq
        return reply

    def overview(self, job: str = "") -> m.StatusReply:
        """Master, jobs (or the one that `job` names) and workers, as they are."""
        ids = [self.ledger.find(job)] if job else self.ledger.jobs()
        jobs = [self._noted(self.ledger.status(name)) for name in ids]
        workers = [w.status(self._held(boot)) for boot, w in self.roster.by_boot.items()]
        return m.StatusReply(0, self._master(), jobs, workers)

    def _noted(self, job: m.JobStatus) -> m.JobStatus:
        if job.ready and not job.note and not self.roster.able(job.function):
            joined = any(worker.peer is not None for worker in self.roster.by_boot.values())
            job.note = (
                f"no joined worker can run {job.function}" if joined else "no workers yet: taskyard scale 2"
            )
        return job

    def _master(self) -> m.MasterStatus:
        return m.MasterStatus(
            address=self.settings.address, pid=os.getpid(), version=taskyard.__version__,
            python=platform.python_version(), started=self.started, boot=self.journal.boot, web=self.web,
            journal=str(self.journal.path), journal_bytes=self.journal.size(), memory=_memory(),
            connections=self.connections(), warnings=[],
        )  # fmt: skip

    async def _cancel(self, peer: Peer, request: m.Cancel) -> m.Reply:
        job = self.ledger.find(request.job)
        plan = await self.commits.judged(lambda: self.ledger.cancel(job, time.time()))
        drops = self._holders(plan.drop)
        if plan.records:
            await self.commits.write(plan)
        self._tell(drops)
        return m.Ok(request.seq)

    def _holders(self, leases: list[int]) -> dict[str, list[int]]:
        """Leases by the boot id of who holds them."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number in leases:
            lease = self.ledger.lease(number)
            if lease is not None:
                found[lease.boot].append(number)
        return found

    def _tell(self, drops: dict[str, list[int]]) -> None:
        """Tell workers which of their leases are void, so that they stop running them."""
        for boot, leases in drops.items():
            worker = self.roster.by_boot.get(boot)
            if worker is not None and worker.peer is not None:
                worker.peer.notify(m.Notice(0, "drop", leases))

    async def _requeue(self, peer: Peer, request: m.Requeue) -> m.Reply:
        job = self.ledger.find(request.job)
        plan = await self.commits.run(lambda: self.ledger.requeue(job, request.first, request.count))
        return m.Settled(request.seq, plan.accepted, plan.duplicates)

    async def _delete(self, peer: Peer, request: m.Delete) -> m.Reply:
        await self._forget(self.ledger.find(request.job))
        return m.Ok(request.seq)

    async def _forget(self, job: str) -> None:
        await self.commits.run(lambda: self.ledger.delete(job, time.time()))
        self.journal.read.forget_job(job)
        self.commits.newest.pop(job, None)
        self.journal.purge(job)

    async def _drain(self, peer: Peer, request: m.Drain) -> m.Reply:
        workers = self.roster.named(request.worker)
        if len(workers) != 1:
            what = "several workers begin" if workers else "no worker is named or begins"
            raise UsageError(f"{what} with {request.worker!r}: see 'taskyard status'")
        worker = workers[0]
        worker.draining, worker.drained = not request.undo, False
        if worker.peer is not None:
            worker.peer.notify(m.Notice(0, "undrain" if request.undo else "drain"))
        return m.Ok(request.seq)

    async def _invite(self, peer: Peer, request: m.Invite) -> m.Reply:
        if not self.settings.tls:
            raise UsageError("this master has no TLS, so a machine cannot join: see 'taskyard certs'")
        self.invitations.add(request)
        return m.Ok(request.seq)

    def invited(self, who: Identity, address: str) -> m.Reply:
        """What a peer gets that came to join."""
        return self.invitations.answer(who, address)

    # ------------------------------------------------------------ plain peers, see PlainVerbs

    async def plain_put(self, value: bytes, timeout: float | None) -> bool:
        self._accepting()
        return await self.plain.put(value, timeout)

    async def plain_get(self, peer: Peer, timeout: float | None) -> tuple[int, int, bytes] | None:
        return await self.plain.get(peer, timeout)

    async def plain_settle(self, peer: Peer, lease: int, value: bytes, timeout: float | None) -> bool:
        return await self.plain.settle(peer, lease, value, timeout)

    async def plain_free(self, value: bytes, timeout: float | None) -> bool:
        return await self.plain.free(value, timeout)

    async def plain_done(self, peer: Peer, lease: int) -> None:
        await self.plain.done(peer, lease)

    async def plain_take(self, timeout: float | None) -> bytes | None:
        return await self.plain.take(timeout)

    def plain_counts(self) -> tuple[int, int, int]:
        return self.plain.counts()

    async def plain_join(self) -> None:
        await self.plain.join()

    def trouble(self) -> str:
        """Why new work would not be accepted now; "" if it would."""
        try:
            self._accepting()
        except TaskyardError as error:
            return str(error)
        return self.journal.trouble

    # ------------------------------------------------------------ time

    def _changed(self, jobs: set[str]) -> None:
        """After every group commit: whoever waits for tasks or results is served."""
        self.leasing.serve()
        self.results.changed(jobs)
        self._arm()

    def _arm(self) -> None:
        """Be woken when the ledger next has something to do by itself, or sooner, for nothing."""
        now = time.monotonic()
        due = self.ledger.next_due(now)
        if due is None or (self._timer is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_at(self.loop.time() + max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        plan = self.ledger.tick(time.monotonic(), time.time())
        if plan.records:
            failpoints.passing("expired.before")
        self.commits.in_background(plan, "taking back what is overdue")
        self.leasing.serve()
        self._arm()

    async def housekeeping(self) -> None:
        """Once in a while: write riding grants, delete jobs whose retention has passed."""
        while not self._stopping:
            await asyncio.sleep(GRANTS_FLUSH)
            self.journal.flush_grants()
            for job in self.ledger.expired_jobs(time.time()):
                event(log, "job-expired", f"the retention of job {job} has passed: deleted", job=job)
                try:
                    await self._forget(job)
                except TaskyardError as error:
                    log.error("job %s stays: %s", job, error)

    def stop(self) -> None:
        """Refuse new work; what is queued is still committed when the journal closes."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()


def _memory() -> int:
    """Resident bytes of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
