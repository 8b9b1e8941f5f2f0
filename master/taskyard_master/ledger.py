"""The state machine of all jobs: pure, over ranges, event-sourced.

A request is *judged* against what is committed, which changes nothing and gives a
`Plan`; each record of it is *held* (from then on its range is pending), and
*committed* or *aborted* in that order when the journal says so. Leases are the
exception: they are granted and renewed at once, and no disk is waited for.

Nothing here knows sockets, threads, disks or clocks: `now` is monotonic seconds,
`wall` Unix seconds, `draw` a random number in [0, 1). What records do is in
`state`; the larger rules are in `submitting`, `granting`, `settling`, `presence`.
"""

from collections.abc import Collection, Iterable, Mapping
from math import inf

from taskyard.errors import UnknownJobError, UsageError
from taskyard.messages import (
    Chunk,
    Close,
    Closing,
    Held,
    JobStatus,
    Open,
    Outcome,
    Record,
)
from taskyard_master import ending, granting, naming, presence, settling, snapshots, submitting
from taskyard_master.jobs import Job
from taskyard_master.leases import Lease
from taskyard_master.plans import Granted, Plan
from taskyard_master.queued import Queued
from taskyard_master.spans import Pending
from taskyard_master.state import State

__all__ = ["PLAIN", "Granted", "Ledger", "Pending", "Plan"]

PLAIN = "plain"  # the job of plain peers: open for ever, nobody abandons it


class Ledger:
    """All jobs of a master.

    `boot` is the number of this start of the master, one higher each time; `lease`
    and `abandon` are seconds; `offset` is Unix time minus monotonic time. Requests
    that cannot be done raise errors of `taskyard.errors`; those that touch what is
    queued raise `Pending`.
    """

    def __init__(self, boot: int, *, offset: float, lease: float = 30.0, abandon: float = 3600.0) -> None:
        self._state = State(boot, lease, offset)
        self._queued = Queued(self._state)
        self._abandon = abandon
        self._next_abandon = inf

    # ------------------------------------------------------------ records

    def hold(self, record: Record) -> int:
        """A planned record is queued: its range or job is pending until `commit` or `abort` of the ticket."""
        return self._queued.hold(record)

    def commit(self, ticket: int, now: float) -> None:
        """The record of a ticket is on disk: it counts from now on."""
        self._state.apply(self._queued.release(ticket, done=True), now)

    def abort(self, ticket: int) -> None:
        """The record of a ticket was not written; all that were held after it are aborted too."""
        self._queued.release(ticket, done=False)

    def replay(self, record: Record, now: float) -> None:
        """Apply a record that the journal read at start."""
        self._state.apply(record, now)

    def snapshot(self) -> bytes:
        """All that is committed, and every lease, for `restore`."""
        return snapshots.dump(self._state)

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot, before any replay; leases last their time from `now` on."""
        snapshots.load(self._state, data, now)

    def _job(self, name: str) -> Job:
        """A job by its id; raises Pending if it is queued as a whole, UnknownJobError if there is none."""
        return self._queued.job(name)

    def _known(self, name: str) -> Job:
        """A job by its id, whatever is queued; raises UnknownJobError if there is none."""
        job = self._state.jobs.get(name)
        if job is None:
            raise UnknownJobError(f"there is no job {name!r}: see 'taskyard status'")
        return job

    # ------------------------------------------------------------ submitting

    def open(self, request: Open, wall: float) -> Plan:
        """Create a job, or come back to it: then there is nothing to commit unless it was incomplete."""
        if self._queued.unknown(request.job):
            if self._state.tombstones.get(request.job, 0.0) > wall:
                raise UsageError(f"job {request.job!r} was deleted: choose another id")
            return submitting.create(request, wall)
        return submitting.reopen(self._job(request.job), request, wall)

    def next_index(self, job: str) -> int:
        """The index that the next chunk of a job starts at, queued chunks included."""
        return self._job(job).tail

    def chunk(self, request: Chunk, now: float, limit: int) -> Plan:
        """Tasks of a job; `limit` is how many of it may be unfinished (0: no limit).

        A chunk that goes on where a queued one ends does not wait for that. Raises
        GapError, ConflictError (other tasks were accepted there), BacklogFullError,
        and UsageError if the job takes no more. The block was checked before.
        """
        job = self._job(request.job)
        plan = submitting.chunk(job, request, limit)
        job.renewed = now
        return plan

    def free(self, job: str, block: bytes, *, worker: str, host: str, seconds: float, wall: float) -> Plan:
        """A result that no lease asked for: a task of its own that is completed at once."""
        return submitting.free(self._job(job), block, worker, host, seconds, wall)

    def close(self, request: Close, wall: float) -> Plan:
        """No more chunks; the total must be what was accepted, else GapError or ConflictError."""
        return submitting.close(self._job(request.job), request, wall)

    def renew_job(self, job: str, now: float) -> None:
        """The submitter of a job is alive; at once."""
        self._known(job).renewed = now

    # ------------------------------------------------------------ leasing

    def grant(
        self,
        boot: str,
        worker: str,
        functions: Collection[str],
        want: int,
        wants: Mapping[str, int],
        share: int,
        now: float,
        *,
        seconds: float | None = None,
        only: str = "",
    ) -> list[Granted]:
        """Lease tasks at once to the holder `boot`; empty if there is nothing for it now.

        `functions` is what it can run, `want` how many tasks it wants, `wants` the same
        by function, `share` how many slots have joined. The lease lasts `seconds` (None:
        the usual; inf: no end). `only` names the one job that a plain peer serves.
        """
        state = self._state
        holder = state.leases.holder(boot, worker)
        last = state.lease if seconds is None else seconds
        ask = granting.Ask(holder, functions, max(1, want), wants, share, now, last, only)
        return granting.grant(state, ask)

    def leasable(self) -> bool:
        """Whether there is anything to lease, for whoever can run it."""
        return bool(self._state.suspects) or self._state.turns.any()

    def ready_for(self, functions: Collection[str]) -> bool:
        """Whether there is something to lease for a worker that has these functions."""
        return self._state.turns.priority(functions) is not None or any(
            job.suits(functions) for job in self._state.suspects.values()
        )

    def shrink(self, lease: int, keep: int) -> None:
        """Give back all but the first `keep` tasks of a grant that nobody was told of, at once."""
        found = self._state.leases.table.get(lease)
        if found is not None:
            granting.shrink(self._state, found, keep)

    def begin(self, boot: str, lease: int) -> Plan:
        """A suspect that stands alone is about to run; ConflictError if it is not this holder's."""
        return presence.begin(self._state.leases.table.get(lease), boot, lease)

    def settle(
        self,
        boot: str,
        worker: str,
        host: str,
        outcomes: list[Outcome],
        now: float,
        wall: float,
        draw: float,
    ) -> Plan:
        """What became of tasks; `draw` spreads the retries. The blocks were checked before."""
        self._state.offset = wall - now
        sender = settling.Sender(boot, worker, host, wall, draw)
        return settling.settle(self._state, outcomes, sender)

    def release(self, boot: str, lease: int, first: int, count: int, now: float, wall: float) -> Plan:
        """A range of a lease comes back, not begun and free."""
        found = self._state.leases.table.get(lease)
        if found is None:
            return Plan(duplicates=count)
        outcome = Outcome(lease, found.job.id, first, count, "released", 0.0, 0.0, b"")
        return self.settle(boot, found.holder.worker, "", [outcome], now, wall, 0.0)

    def renew(self, boot: str, leases: Iterable[int], now: float) -> list[int]:
        """Renew leases at once; returns those that are not this holder's (any more)."""
        drop = []
        for number in leases:
            lease = self._state.leases.table.get(number)
            if lease is None or lease.boot != boot:
                drop.append(number)
            else:
                self._state.leases.arm(lease, now)
        return drop

    def hello(self, boot: str, worker: str, held: Iterable[Held], now: float) -> Plan:
        """A worker says all that it holds; `drop` of the plan is what it holds no more."""
        return presence.hello(self._state, self._state.leases.holder(boot, worker), held, now)

    def lost(self, boot: str, now: float) -> Plan:
        """A holder is gone for good. What is queued of its leases is seen to by `tick`."""
        leases = self._state.leases.leave(boot, now)
        return presence.lose(leases, now + self._state.offset)

    def held(self, boot: str) -> dict[int, int]:
        """The leases of a holder: id -> how many tasks of it are held."""
        holder = self._state.leases.holders.get(boot)
        return {lease.id: lease.left for lease in holder.leases.values()} if holder is not None else {}

    def holding(self, boot: str) -> int:
        """How many tasks a holder holds."""
        holder = self._state.leases.holders.get(boot)
        return holder.left if holder is not None else 0

    def connections(self) -> list[str]:
        """Holders that are connections of plain peers: these name themselves, workers have a name."""
        return [boot for boot, holder in self._state.leases.holders.items() if holder.worker == boot]

    def lease(self, number: int) -> Lease | None:
        """A lease, if it is held."""
        return self._state.leases.table.get(number)

    # ------------------------------------------------------------ time

    def tick(self, now: float, wall: float) -> Plan:
        """Delays that are over end at once; the plan has the leases that ran out and the abandoned jobs."""
        self._state.offset = wall - now
        self._state.wake(now)
        plan = presence.lose(self._state.leases.expired(now), wall)
        if now >= self._next_abandon:
            plan.records += [(record, b"") for record in self._abandoned(now, wall)]
        return plan

    def _watched(self) -> list[Job]:
        return [job for job in self._state.jobs.values() if job.state == "open" and job.id != PLAIN]

    def _abandoned(self, now: float, wall: float) -> list[Closing]:
        self._next_abandon = inf
        reason = f"its submitter was silent for {self._abandon:g} seconds"
        return [
            Closing(job.id, job.next, reason, wall)
            for job in self._watched()
            if job.renewed + self._abandon <= now and not job.barrier and not job.chunks
        ]

    def next_due(self, now: float) -> float | None:
        """Monotonic seconds at which `tick` has something to do at the earliest; None if never."""
        if self._next_abandon == inf and self._watched():
            self._next_abandon = now + self._abandon / 60
        due = min(self._state.alarms.next(), self._state.leases.next_deadline(), self._next_abandon)
        return due if due < inf else None

    def rearm(self, now: float) -> None:
        """Every lease lasts its whole time from now on: to be called when the master begins to listen."""
        for lease in self._state.leases.table.values():
            self._state.leases.arm(lease, now)

    # ------------------------------------------------------------ what people ask for

    def cancel(self, job: str, wall: float) -> Plan:
        """Final for all that is unfinished; `drop` of the plan is the leases of it."""
        return ending.cancel(self._state, self._job(job), wall)

    def requeue(self, job: str, first: int = 0, count: int = -1) -> Plan:
        """Dead tasks of a range (count -1: to the end) begin their next round; `accepted` says how many."""
        return ending.requeue(self._job(job), first, count)

    def delete(self, job: str, wall: float) -> Plan:
        """Forget a job that is over; UsageError if it is not."""
        return ending.delete(self._job(job), wall)

    def expired_jobs(self, wall: float) -> list[str]:
        """Ids of the jobs whose retention is over, for `delete`; forgets ids that were deleted long ago."""
        return ending.expired(self._state, wall)

    # ------------------------------------------------------------ consumed results

    def take(self, job: str, at: int, offset: int, count: int) -> Plan:
        """Results up to the `offset`-th of row `at` are handed over; does not wait for takes before it."""
        return ending.take(self._job(job), at, offset, count)

    def taken(self, job: str) -> tuple[int, int, int]:
        """(seq of the row, results of it, results in all) taken so far, those queued included."""
        return self._known(job).taking

    def untaken(self, job: str) -> int:
        """How many results are not taken yet."""
        found = self._known(job)
        return found.results - found.taking[2]

    def consuming(self) -> list[ending.Consuming]:
        """The jobs whose results are consumed and may go in time."""
        return ending.consuming(self._state)

    def consumer(self, job: str) -> str:
        """Whose reading of a job's results takes them: the process that submits it; "" if nobody's does."""
        found = self._known(job)
        return found.submitter if found.options.consume else ""

    def settled(self, job: str, first: int, count: int) -> bool:
        """Whether tasks are completed or cancelled, all of them; of a job that is gone none is."""
        found = self._state.jobs.get(job)
        return found is not None and found.settled(first, count)

    # ------------------------------------------------------------ what there is

    def find(self, name: str) -> str:
        """The id of a job, from its id, its name or the start of its id; see naming.py."""
        return naming.find(self._state.jobs, name)

    def jobs(self) -> list[str]:
        """All jobs, the oldest first."""
        return list(self._state.jobs)

    def status(self, job: str) -> JobStatus:
        """One job in counts; UnknownJobError if there is none of that id."""
        return self._known(job).status()

    def done(self, job: str) -> bool:
        """Whether a job is closed and nothing of it is unfinished; true for one that does not exist."""
        found = self._state.jobs.get(job)
        return found is None or found.over

    def ended_run(self, job: str, index: int) -> tuple[int, str]:
        """(count, state) of the tasks from `index` on that ended alike; (0, "") if it is unfinished."""
        return self._known(job).ended_run(index)

    def idle(self) -> bool:
        """Whether nothing at all is unfinished."""
        return not any(job.unfinished for job in self._state.jobs.values())
