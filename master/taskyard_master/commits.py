"""Judge, journal, apply: the only way from a request to a changed ledger.

The ledger judges a request against what is committed and plans records; these are
queued in the journal and applied when their commit is on disk. A request that
touches what is still queued waits for that commit and is judged again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from taskyard import failpoints
from taskyard.messages import Beginning, Chunked, Ending, Granting, Record
from taskyard_master.journal import Journal
from taskyard_master.ledger import Ledger
from taskyard_master.plans import Plan
from taskyard_master.rows import Entry
from taskyard_master.spans import Pending

log = logging.getLogger(__name__)

QUIET = Beginning | Chunked | Granting  # records that are news to nobody who waits for a job
SNAPSHOT_ROWS = 20_000  # rows after which the ledger's state is saved, to bound the next start


class Commits:
    """The ledger and the journal behind it.

    `changed(jobs)` runs once after every group commit, with the jobs of which anything has ended,
    before those who asked for these commits are answered: workers and readers have waited longer.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[set[str]], None],
    ) -> None:
        self.ledger = ledger
        self.journal = journal
        self._loop = loop
        self._changed = changed
        self._tickets: dict[int, asyncio.Future[None]] = {}
        self._touched: set[str] = set()
        self._answers: list[tuple[asyncio.Future[None], Exception | None]] = []
        self.applied = journal.last  # seq of the last row that the ledger knows
        self.newest: dict[str, int] = {}  # by job: seq of the last row of outcomes, if this master wrote one
        self.observers: list[Callable[[Record], None]] = []  # of every record that is committed
        journal.delivered = self._wake

    async def run(self, judge: Callable[[], Plan]) -> Plan:
        """Judge until nothing pending is in the way, then commit what was planned.

        Raises what the judge raises, and StorageError if the commit failed: nothing
        of the plan was done then.
        """
        plan = await self.judged(judge)
        if plan.records:
            await self.write(plan)
        return plan

    async def judged(self, judge: Callable[[], Plan]) -> Plan:
        """The plan of a request, once nothing pending is in its way; write it without waiting between."""
        while True:
            try:
                return judge()
            except Pending as pending:
                await asyncio.shield(self._tickets[pending.ticket])

    def write(self, plan: Plan) -> "asyncio.Future[None]":
        """Queue a plan's records as one; the future is done, or has the error, after the commit."""
        done: asyncio.Future[None] = self._loop.create_future()
        entries = []
        left = [len(plan.records)]
        for record, block in plan.records:
            ticket = self.ledger.hold(record)
            self._tickets[ticket] = self._loop.create_future()
            entries.append((Entry(record, block), partial(self._settled, ticket, record, done, left)))
        self.journal.append(entries)
        return done

    def in_background(self, plan: Plan, what: str) -> None:
        """Commit a plan that nobody waits for; a failure is logged and judged anew at the next tick."""
        if plan.records:
            self.write(plan).add_done_callback(lambda done: _log_failure(done, what))

    def _settled(
        self,
        ticket: int,
        record: Record,
        done: "asyncio.Future[None]",
        left: list[int],
        error: Exception | None,
        seq: int,
        offset: int,
    ) -> None:
        if error is None:
            failpoints.passing("apply.before")
            self.ledger.commit(ticket, time.monotonic())
            self.applied = max(self.applied, seq)
            if isinstance(record, Ending):
                self.newest[record.job] = self.applied
            for observe in self.observers:
                observe(record)
            failpoints.passing("apply.after")
        else:
            self.ledger.abort(ticket)
        self._tickets.pop(ticket).set_result(None)
        left[0] -= 1
        if error is not None or left[0] == 0:
            self._answers.append((done, error))
        if error is not None or not isinstance(record, QUIET):
            self._touched.add(record.job)

    def save(self) -> None:
        """Have the journal keep the ledger's state, so that a start reads only what comes later."""
        self.journal.save_snapshot(self.applied, self.ledger.snapshot())

    def _wake(self) -> None:
        """A group commit is over, done or failed."""
        touched, self._touched = self._touched, set()
        answers, self._answers = self._answers, []
        if self.journal.rows_since_snapshot >= SNAPSHOT_ROWS:
            self.save()
        try:
            self._changed(touched)
        finally:
            for done, error in answers:
                if done.done():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)


def _log_failure(done: "asyncio.Future[None]", what: str) -> None:
    error = done.exception()
    if error is not None:
        log.error("%s: %s", what, error)
