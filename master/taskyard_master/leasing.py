"""Handing out tasks: requests that wait, in order, until there is something to lease."""

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

import msgspec

from taskyard import batch, failpoints
from taskyard.errors import StorageError
from taskyard.messages import Failure, Grant, Outcome
from taskyard_master.commits import Commits
from taskyard_master.plans import Granted

log = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until tasks are read again that the disk did not give


@dataclass(slots=True, eq=False)
class Wanted:
    """A request for tasks that waits for its turn."""

    boot: str  # the holder of the leases: a worker's boot id, or a plain connection
    worker: str
    functions: frozenset[str]
    want: int
    future: "asyncio.Future[list[Grant]]"
    wants: Mapping[str, int] = field(default_factory=dict)
    space: int = 4 << 20
    seconds: float | None = None  # that the lease lasts; None = the usual time, inf = no end
    only: str = ""  # the one job to serve, for plain peers


class Leasing:
    """The queue of requests for tasks, and what is handed out to them."""

    def __init__(
        self, commits: Commits, loop: asyncio.AbstractEventLoop,
        share: Callable[[frozenset[str]], int] = lambda functions: 1,
    ) -> None:  # fmt: skip
        self._commits = commits
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._loop = loop
        self._serial = count()
        self._waiting: OrderedDict[int, Wanted] = OrderedDict()
        self._of: defaultdict[str, set[int]] = defaultdict(set)  # keys of those by holder
        self.watched: dict[str, Callable[[], None]] = {}  # by job: who wants to know that tasks were leased
        self._share = share  # slots that can run these functions: how far the rest of a job is to be shared

    def ask(self, wanted: Wanted) -> None:
        """Queue a request; its future gets the grants. A cancelled future leaves the queue."""
        key = next(self._serial)  # not its id(): another one may get that before the callback has run
        self._waiting[key] = wanted
        self._of[wanted.boot].add(key)
        wanted.future.add_done_callback(lambda _: self._drop(key, wanted.boot))
        self.serve()

    def _drop(self, key: int, boot: str) -> None:
        self._waiting.pop(key, None)
        self._of[boot].discard(key)
        if not self._of[boot]:
            del self._of[boot]

    def relist(self, boot: str, functions: frozenset[str]) -> None:
        """A holder can run other functions than when it asked."""
        for key in self._of.get(boot, ()):
            if (wanted := self._waiting.get(key)) is not None:
                wanted.functions = functions
        self.serve()

    def forget(self, boot: str) -> None:
        """Drop the waiting requests of a holder that is gone."""
        for key in self._of.get(boot, ()):
            if (wanted := self._waiting.get(key)) is not None:
                wanted.future.cancel()

    def serve(self) -> None:
        """Answer waiting requests, first come first served, while there is something ready."""
        if not self._waiting or not self._ledger.leasable():
            return  # before anything looks at all of them: there may be thousands, and each asks in its turn
        barren: set[frozenset[str]] = set()  # nothing is ready for workers that have these functions
        for key, wanted in list(self._waiting.items()):
            if not self._ledger.leasable():
                return
            if wanted.future.done() or wanted.functions in barren:
                continue
            if not self._ledger.ready_for(wanted.functions):
                barren.add(wanted.functions)
                continue
            grants = self._grant(wanted)
            if grants:
                failpoints.passing("grant.before")
                self._waiting.pop(key, None)
                wanted.future.set_result(grants)
                for job in self.watched.keys() & {grant.job for grant in grants}:
                    self.watched[job]()

    def _grant(self, wanted: Wanted) -> list[Grant]:
        now = time.monotonic()
        grants: list[Grant] = []
        space = wanted.space
        for granted in self._ledger.grant(
            wanted.boot, wanted.worker, wanted.functions, wanted.want, wanted.wants,
            self._share(wanted.functions), now, seconds=wanted.seconds, only=wanted.only,
        ):  # fmt: skip
            if space <= 0:
                self._ledger.shrink(granted.lease, 0)
                continue
            grant = self._fill(granted, space)
            if grant is None:
                continue
            space -= len(grant.block)
            grants.append(grant)
            self._journal.ride(msgspec.structs.replace(granted.record(), count=grant.count))
        return grants

    def _fill(self, granted: Granted, space: int) -> Grant | None:
        """The grant with its payloads, shortened to what fits; None where they cannot be read."""
        g = granted
        try:
            block = self._journal.read.payloads(g.job, g.first, g.count)
        except StorageError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError | OSError):  # the disk, not its content
                log.error("%s", error)
                self._ledger.shrink(g.lease, 0)
                self._loop.call_later(AGAIN, self.serve)
            else:
                self._refuse(g, error)
            return None
        count = batch.take(block, g.count, space)
        if count < g.count:
            block = batch.cut(block, g.count, 0, count)
            self._ledger.shrink(g.lease, count)
        return Grant(g.lease, g.job, g.function, g.first, count, g.timeout, g.suspect, block)

    def _refuse(self, g: Granted, error: StorageError) -> None:
        """Tasks whose payloads are damaged can never run: dead, with the reason, for a person."""
        log.error("%s", error)
        failure = msgspec.msgpack.encode(Failure("refused", "StorageError", str(error)))
        block = batch.pack([failure] * g.count)
        outcome = Outcome(g.lease, g.job, g.first, g.count, "refused", time.time(), 0.0, block)
        plan = self._ledger.settle(g.boot, g.worker, "", [outcome], time.monotonic(), time.time(), 0.0)
        self._commits.in_background(plan, "refusing damaged tasks")
