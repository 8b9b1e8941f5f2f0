"""The verbs of the wire: ledger, journal and everybody who waits for them, in one event loop."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import taskyard
from taskyard import failpoints
from taskyard import messages as m
from taskyard.errors import (
    TaskyardError,
    UsageError,
)
from taskyard.log import event
from taskyard.settings import Settings
from taskyard.tls_identity import Identity
from taskyard_master.backups import Backups
from taskyard_master.commits import Commits
from taskyard_master.consumed import Consumed
from taskyard_master.control import Control
from taskyard_master.inviting import Invitations
from taskyard_master.journal import Journal
from taskyard_master.leasing import Leasing
from taskyard_master.ledger import Ledger
from taskyard_master.plain_verbs import PlainVerbs
from taskyard_master.plans import Plan
from taskyard_master.results import Results
from taskyard_master.submissions import Submissions
from taskyard_master.workers import Peer, Roster, Worker
from taskyard_master.working import Working

log = logging.getLogger(__name__)

GRANTS_FLUSH = 0.2  # seconds after which grants that ride on nothing are written by themselves


class Service:
    """What the server calls: one coroutine a request, and `gone` at the end of a connection."""

    def __init__(self, settings: Settings, journal: Journal, ledger: Ledger, loop: asyncio.AbstractEventLoop):
        self.settings = settings
        self.journal = journal
        self.ledger = ledger
        self.loop = loop
        self.roster = Roster()
        self.commits = Commits(ledger, journal, loop, self._changed)
        self.leasing = Leasing(self.commits, loop, self.roster.sharing)
        self.results = Results(self.commits, loop)
        self.consumed = Consumed(self.commits, self.results, loop)
        self.plain = PlainVerbs(
            self.commits, self.leasing, self.results, loop,
            maxsize=settings.plain_maxsize, lease=settings.plain_lease,
        )  # fmt: skip
        self.connections: Callable[[], int] = lambda: 0  # set by the server
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when it rings, monotonic
        self.submissions = Submissions(settings, self.commits, self.results, self.roster)
        self.working = Working(self.commits, self.leasing, self.roster, loop, self._arm)
        self.control = Control(settings.address, self.commits, self.roster, lambda: self.connections())
        self.backups = Backups(journal, settings.reserve)
        self.invitations = Invitations()
        self._verbs: dict[type, Callable[[Peer, Any], Awaitable[m.Reply]]] = {
            m.Open: self.submissions.open, m.Chunk: self.submissions.chunk,
            m.Close: self.submissions.close, m.Renew: self.submissions.renew,
            m.Lease: self.working.lease, m.Begin: self.working.begin, m.Settle: self.working.settle,
            m.Beat: self.working.beat, m.Functions: self.working.functions,
            m.Results: self.results.read, m.Status: self.control.status, m.Cancel: self.control.cancel,
            m.Requeue: self.control.requeue, m.Delete: self.control.delete, m.Drain: self.control.drain,
            m.Backup: self.backups.part, m.Invite: self._invite,
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
            self.roster.note(worker)
            plan = await self.commits.run(
                lambda: self.ledger.hello(hello.boot, hello.name, hello.held, time.monotonic())
            )
            failpoints.passing("hello.before")
            drop = plan.drop
            if known is None:
                self._announce(worker)
            if worker.draining:
                peer.notify(m.Notice(0, "drain"))
        return m.Welcome(hello.seq, self.control.master(), self.settings.lease, drop)

    def _announce(self, worker: Worker) -> None:
        h = worker.hello
        text = f"worker {h.name} joined from {h.host} with {h.slots} slot(s); {self.roster.joined} joined"
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
        if self.submissions.stopping:
            return  # the connection ends with this master: the worker comes back to the next one
        worker.peer = None
        worker.running = []
        self.leasing.forget(hello.boot)
        self.roster.note(worker)
        going = worker.drained or worker.draining or worker.leaving
        grace = 0.0 if going else self.settings.grace
        self.loop.call_later(grace, self._give_up, hello.boot)

    def _give_up(self, boot: str) -> None:
        worker = self.roster.by_boot.get(boot)
        if worker is None or worker.peer is not None:
            return
        del self.roster.by_boot[boot]
        held = self.ledger.holding(boot)
        event(
            log, "worker-left", f"worker {worker.hello.name} left, holding {held} task(s)",
            logging.WARNING if held else logging.INFO, worker=worker.hello.name, held=held,
        )  # fmt: skip
        self.commits.in_background(self._lost(boot), f"giving back the tasks of {worker.hello.name}")

    def _lost(self, boot: str) -> Plan:
        failpoints.passing("lost.before")
        return self.ledger.lost(boot, time.monotonic())

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
        self.submissions.accepting()
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
            self.submissions.accepting()
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
        """Once in a while: write riding grants, delete jobs whose retention has passed, drop what was
        taken of those that go on."""
        await asyncio.gather(self._keep(), self.consumed.run())

    async def _keep(self) -> None:
        while not self.submissions.stopping:
            await asyncio.sleep(GRANTS_FLUSH)
            self.journal.flush_grants()
            for job in self.ledger.expired_jobs(time.time()):
                event(log, "job-expired", f"the retention of job {job} has passed: deleted", job=job)
                try:
                    await self.control.forget(job)
                except TaskyardError as error:
                    log.error("job %s stays: %s", job, error)

    def stop(self) -> None:
        """Refuse new work; what is queued is still committed when the journal closes."""
        self.submissions.stopping = True
        if self._timer is not None:
            self._timer.cancel()
