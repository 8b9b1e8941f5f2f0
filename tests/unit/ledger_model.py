"""A naive ledger: one object a task, every rule spelled out index by index.

It is fed with what the real one was asked and with what it decided: where a rule
leaves no choice the model says what must come out, where there is one (which of
several jobs is served) it says whether the choice is allowed.
"""

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf
from types import ModuleType
from typing import Any

from taskyard import backoff, batch
from taskyard import messages as m
from taskyard.messages import decode_failure

AGAIN = 1.0
RANGES = 64
ENDED = ("completed", "dead", "cancelled")
CHARGING = ("failed", "timeout", "killed")


def narrow_ledger(bits: int) -> ModuleType:
    """The ledger's module with segments of 2**bits indices, so that few tasks cross many bounds."""
    ours = {name: module for name, module in sys.modules.items() if name.startswith("taskyard_master")}
    before = batch.SEGMENT_BITS
    try:
        for name in ours:
            del sys.modules[name]
        batch.SEGMENT_BITS = bits
        return importlib.import_module("taskyard_master.ledger")
    finally:
        batch.SEGMENT_BITS = before
        for name in [name for name in sys.modules if name.startswith("taskyard_master")]:
            del sys.modules[name]
        sys.modules.update(ours)


@dataclass
class Task:
    state: str = "ready"
    attempts: int = 0
    round: int = 0
    losses: int = 0
    lease: int = 0
    due: float = 0.0  # monotonic
    piece: int = 0  # suspects with the same number side by side stand together
    pending: bool = False


@dataclass
class Held:
    """A lease."""

    job: str
    boot: str
    worker: str
    suspect: bool
    seconds: float
    deadline: float
    begun: bool = False
    looked: float = -inf


@dataclass
class Job:
    opening: m.Opening
    renewed: float
    state: str = "open"
    reason: str = ""
    ended: float = 0.0
    tasks: list[Task] = field(default_factory=list)
    queued: int = 0  # tasks of chunks that are queued
    barrier: bool = False
    stopping: bool = False
    results: int = 0
    taken: tuple[int, int, int] = (0, 0, 0)
    taking: tuple[int, int, int] = (0, 0, 0)
    retries: int = 0

    @property
    def unfinished(self) -> int:
        return sum(task.state not in ENDED for task in self.tasks)

    @property
    def over(self) -> bool:
        return self.state != "open" and not self.unfinished

    @property
    def tail(self) -> int:
        return len(self.tasks) + self.queued

    def count(self, state: str) -> int:
        return sum(task.state == state for task in self.tasks)


Event = tuple[Any, ...]
Place = tuple[str, int]


def events(records: Iterable[tuple[m.Record, bytes]]) -> dict[Place, Event]:
    """Records of ranges index by index: what happens to it, with its own value of the block."""
    found: dict[Place, Event] = {}
    for record, block in records:
        if not isinstance(record, m.Ending | m.Retrying | m.Returning | m.Losing):
            continue
        values = batch.unpack(block, record.count) if block else [b""] * record.count
        for at in range(record.count):
            place = (record.job, record.first + at)
            assert place not in found, f"two records for {place}"
            found[place] = _event(record, values[at])
    return found


def _event(record: m.Record, value: bytes) -> Event:
    match record:
        case m.Ending():
            return ("ending", record.state, record.round, record.attempts, record.void, value)
        case m.Retrying():
            return ("retrying", record.attempts, record.due, value)
        case m.Returning():
            return ("returning", record.suspect, record.lease)
        case m.Losing():
            return ("losing", record.charged, record.lease)
    raise AssertionError(record)


class Model:
    """What the rules say. `lease` is how long a lease lasts, `width` a segment."""

    def __init__(self, width: int, lease: float, offset: float) -> None:
        self.width, self.lease, self.offset = width, lease, offset
        self.jobs: dict[str, Job] = {}
        self.tombstones: dict[str, float] = {}
        self.leases: dict[int, Held] = {}
        self.present: set[str] = set()
        self.reserved: dict[str, float] = {}
        self.hoarders: set[str] = set()  # plain peers that asked for more while they held a suspect
        self.pieces = 0
        self.recorded: set[tuple[str, float, int, int]] = set()

    # ------------------------------------------------------------ what is queued

    def queue(self, record: m.Record, pending: bool) -> None:
        """A record is queued (or, with pending False, no more)."""
        job = self.jobs.get(record.job)
        if job is None:
            return
        if isinstance(record, m.Chunked):
            job.queued += record.count if pending else -record.count
        elif isinstance(record, m.Taking):
            if pending:
                job.taking = (record.at, record.offset, job.taking[2] + record.count)
        elif isinstance(record, m.Beginning):
            job.tasks[record.first].pending = pending
        elif isinstance(record, m.Granting | m.Ending | m.Retrying | m.Returning | m.Losing):
            for task in job.tasks[record.first : record.first + record.count]:
                task.pending = pending
        else:
            job.barrier = pending
            job.stopping = pending and isinstance(record, m.Cancelling | m.Deleting)

    def held(self, number: int) -> list[Place]:
        """What a lease holds."""
        lease = self.leases.get(number)
        if lease is None:
            return []
        tasks = self.jobs[lease.job].tasks
        return [(lease.job, at) for at, task in enumerate(tasks) if task.lease == number]

    def of(self, boot: str) -> list[int]:
        return [number for number, lease in self.leases.items() if lease.boot == boot]

    def tidy(self) -> None:
        """A lease that holds nothing is none."""
        used = {task.lease for job in self.jobs.values() for task in job.tasks}
        self.leases = {number: lease for number, lease in self.leases.items() if number in used}

    # ------------------------------------------------------------ records

    def apply(self, record: m.Record, now: float) -> None:
        if isinstance(record, m.Opening):
            self._open(record, now)
            return
        job = self.jobs.get(record.job)
        if job is None:
            return
        getattr(self, "_" + type(record).__name__.lower())(job, record, now)
        self.tidy()

    def _open(self, record: m.Opening, now: float) -> None:
        job = self.jobs.get(record.job)
        if job is None:
            self.jobs[record.job] = Job(record, now)
            self.tombstones.pop(record.job, None)
        else:
            job.state, job.reason, job.ended, job.renewed = "open", "", 0.0, now

    def _chunked(self, job: Job, record: m.Chunked, now: float) -> None:
        assert record.first == len(job.tasks)
        job.tasks += [Task() for _ in range(record.count)]
        job.renewed = now

    def _unfinished(self, job: Job, record: Any) -> list[tuple[int, Task]]:
        part = list(enumerate(job.tasks))[record.first : record.first + record.count]
        return [(at, task) for at, task in part if task.state not in ENDED]

    def _end(self, job: Job, at: float) -> None:
        if job.over and not job.ended:
            job.ended = at

    def _closing(self, job: Job, record: m.Closing, now: float) -> None:
        assert record.total == len(job.tasks)
        job.state = "incomplete" if record.reason else "closed"
        job.reason = record.reason
        self._end(job, record.at)

    def _granting(self, job: Job, record: m.Granting, now: float) -> None:
        lease = self.leases.get(record.lease)
        if lease is None:
            lease = Held(record.job, record.boot, record.worker, record.suspect, self.lease, now + self.lease)
            self.leases[record.lease] = lease
            self.present.add(record.boot)
        lease.deadline = now + lease.seconds
        for _, task in self._unfinished(job, record):
            if task.state != "leased":
                task.state, task.lease = "leased", record.lease

    def _beginning(self, job: Job, record: m.Beginning, now: float) -> None:
        if record.lease in self.leases:
            self.leases[record.lease].begun = True

    def _ending(self, job: Job, record: m.Ending, now: float) -> None:
        for at, task in self._unfinished(job, record):
            mark = (record.job, job.opening.at, at, task.round)
            assert mark not in self.recorded, f"{mark} ended twice"
            self.recorded.add(mark)
            task.state, task.lease = record.state, 0
            job.results += record.state == "completed" and not record.void
        self._end(job, record.at)

    def _retrying(self, job: Job, record: m.Retrying, now: float) -> None:
        for _, task in self._unfinished(job, record):
            task.state, task.lease, task.attempts = "delayed", 0, record.attempts
            due = min(max(record.due - self.offset, now), now + 600.0)
            task.due = ceil(due * 10) / 10
        job.retries += record.count

    def _suspect(self, tasks: list[Task]) -> None:
        self.pieces += 1
        for task in tasks:
            task.state, task.lease, task.piece = "suspect", 0, self.pieces

    def _returning(self, job: Job, record: m.Returning, now: float) -> None:
        tasks = [task for _, task in self._unfinished(job, record)]
        if record.suspect:
            self._suspect(tasks)
        for task in tasks:
            if not record.suspect:
                task.state, task.lease = "ready", 0

    def _losing(self, job: Job, record: m.Losing, now: float) -> None:
        tasks = [task for _, task in self._unfinished(job, record)]
        half = (len(tasks) + 1) // 2
        self._suspect(tasks[:half])
        if len(tasks) > 1:
            self._suspect(tasks[half:])
        elif record.charged:
            tasks[0].losses += 1

    def _cancelling(self, job: Job, record: m.Cancelling, now: float) -> None:
        job.state, job.reason = "cancelled", ""
        for task in job.tasks:
            if task.state not in ENDED:
                task.state, task.lease = "cancelled", 0
        self._end(job, record.at)

    def _requeuing(self, job: Job, record: m.Requeuing, now: float) -> None:
        for first, count in record.ranges:
            for task in job.tasks[first : first + count]:
                if task.state == "dead":
                    task.state, task.attempts, task.losses = "ready", 0, 0
                    task.round += 1
                    job.ended = 0.0

    def _taking(self, job: Job, record: m.Taking, now: float) -> None:
        job.taken = (record.at, record.offset, job.taken[2] + record.count)
        job.taking = max(job.taking, job.taken)

    def _deleting(self, job: Job, record: m.Deleting, now: float) -> None:
        del self.jobs[record.job]
        self.tombstones[record.job] = record.at + 7 * 86400

    # ------------------------------------------------------------ outcomes

    def settle(
        self, boot: str, outcomes: list[m.Outcome], wall: float, draw: float
    ) -> tuple[bool, dict[Place, Event], int]:
        """(whether it has to wait, what happens index by index, how many are duplicates)."""
        found: dict[Place, Event] = {}
        claimed: set[Place] = set()
        duplicates = 0
        waits = False
        for outcome in outcomes:
            job = self.jobs.get(outcome.job)
            if job is None:
                duplicates += outcome.count
                continue
            waits = waits or job.barrier
            for at in range(outcome.count):
                index, place = outcome.first + at, (outcome.job, outcome.first + at)
                if index >= len(job.tasks) or place in claimed:
                    duplicates += 1
                    continue
                claimed.add(place)
                waits = waits or job.tasks[index].pending
                event = self._verdict(job, job.tasks[index], boot, outcome, at, wall, draw)
                if event is None:
                    duplicates += 1
                else:
                    found[place] = event
        return waits, found, duplicates

    def _verdict(
        self, job: Job, task: Task, boot: str, outcome: m.Outcome, at: int, wall: float, draw: float
    ) -> Event | None:
        if task.state in ENDED:
            return None
        value = batch.unpack(outcome.block, outcome.count)[at] if outcome.block else b""
        attempts = task.attempts + 1
        if outcome.kind == "completed":
            return ("ending", "completed", task.round, attempts, outcome.void, value)
        if task.lease != outcome.lease or self.leases[task.lease].boot != boot:
            return None
        if outcome.kind in CHARGING and attempts < job.opening.options.max_attempts:
            return ("retrying", attempts, wall + backoff.delay(attempts, draw), value)
        if outcome.kind in CHARGING or outcome.kind == "refused":
            return ("ending", "dead", task.round, attempts, outcome.void, value)
        if outcome.kind == "released":
            return ("returning", self.leases[task.lease].suspect, task.lease)
        return ("returning", True, task.lease)

    def loss(self, place: Place, number: int, alone: bool) -> Event:
        """What the loss of a lease does to a task; `alone` if the lease holds nothing else in one piece."""
        job, task = self.jobs[place[0]], self.jobs[place[0]].tasks[place[1]]
        charged = alone and self.leases[number].begun
        if charged and task.losses + 1 >= job.opening.options.max_losses:
            return ("ending", "dead", task.round, task.attempts, False, b"lost")
        return ("losing", charged, number)

    def check_losses(self, records: list[tuple[m.Record, bytes]], must: set[Place], may: set[Place]) -> None:
        """Records of lost leases: all of `must`, nothing but `may`, each as the rules say."""
        found = events(records)
        assert must <= set(found) <= may
        for record, _ in records:
            if not isinstance(record, m.Ending | m.Losing):
                continue
            for index in range(record.first, record.first + record.count):
                place = (record.job, index)
                number = self.jobs[record.job].tasks[index].lease
                event = found[place]
                if isinstance(record, m.Ending):
                    assert decode_failure(event[-1]).reason == "lost"
                    event = (*event[:-1], b"lost")
                assert event == self.loss(place, number, record.count == 1)

    # ------------------------------------------------------------ grants

    def suits(self, job: Job, functions: Iterable[str], only: str) -> bool:
        if only:
            return job.opening.job == only
        return job.opening.function in functions or (not job.opening.function and bool(functions))

    def suspects(self, job: Job) -> list[list[int]]:
        """The suspect ranges of a job, each to be run by itself."""
        found: list[list[int]] = []
        for at, task in enumerate(job.tasks):
            if task.state != "suspect":
                continue
            tasks = job.tasks
            if found and found[-1][-1] == at - 1 and tasks[at - 1].piece == task.piece and at % self.width:
                found[-1].append(at)
            else:
                found.append([at])
        return found

    def serving(self) -> set[str]:
        return {lease.boot for lease in self.leases.values() if lease.suspect} - self.hoarders

    def check_grant(
        self,
        boot: str,
        functions: Iterable[str],
        want: int,
        wants: dict[str, int],
        share: int,
        now: float,
        only: str,
        grants: list[Any],
    ) -> None:
        """Whether a grant keeps to the rules; with none, whether there was nothing to give."""
        self.present.add(boot)
        if boot in self.serving():
            if not only:
                assert not grants
                return
            self.hoarders.add(boot)
        if self._check_suspects(boot, functions, now, only, grants):
            return
        self.reserved.pop(boot, None)
        self._check_ready(functions, want, wants, share, only, grants)

    def _check_suspects(
        self, boot: str, functions: Iterable[str], now: float, only: str, grants: list[Any]
    ) -> bool:
        """Whether the answer has to do with suspects."""
        jobs = [job for job in self.jobs.values() if not job.stopping and self.suits(job, functions, only)]
        free = [
            (job, piece)
            for job in jobs
            for piece in self.suspects(job)
            if not any(job.tasks[at].pending for at in piece)
        ]
        ready = [job.opening.options.priority for job in jobs if job.count("ready")] if not only else []
        rank = max((job.opening.options.priority for job, _ in free), default=-inf)
        if not free or max(ready, default=-inf) > rank:
            assert not any(grant.suspect for grant in grants)
            return False
        serving, limit = self.serving(), max(1, len(self.present) // 4)
        if self.of(boot):
            chosen = {other for other, until in self.reserved.items() if until > now and other != boot}
            if only or len(chosen) + len(serving) >= limit:
                assert not any(grant.suspect for grant in grants)
                return False
            self.reserved[boot] = now + self.lease
            assert not grants
            return True
        if len(serving) >= limit:
            assert not any(grant.suspect for grant in grants)
            return False
        self.reserved.pop(boot, None)
        (grant,) = grants
        assert grant.suspect
        job = self.jobs[grant.job]
        assert job.opening.options.priority == rank
        given = list(range(grant.first, grant.first + grant.count))
        pieces = [piece for other, piece in free if other is job]
        assert any(given == (piece[:1] if only else piece) for piece in pieces)
        return True

    def _check_ready(
        self,
        functions: Iterable[str],
        want: int,
        wants: dict[str, int],
        share: int,
        only: str,
        grants: list[Any],
    ) -> None:
        left: dict[str, list[int]] = {}
        for name, job in self.jobs.items():
            free = [at for at, task in enumerate(job.tasks) if task.state == "ready" and not task.pending]
            if free and not job.stopping and self.suits(job, functions, only):
                left[name] = free
        if not grants:
            assert not left
            return
        assert len(grants) <= RANGES
        ready = {name: self.jobs[name].count("ready") for name in left}
        took = dict.fromkeys(left, 0)
        for grant in grants:
            assert not grant.suspect
            best = max(self.jobs[name].opening.options.priority for name in left)
            assert self.jobs[grant.job].opening.options.priority == best
            given = list(range(grant.first, grant.first + grant.count))
            assert left[grant.job][: grant.count] == given  # the lowest that are ready
            assert grant.first // self.width == given[-1] // self.width
            took[grant.job] += grant.count
            left[grant.job] = left[grant.job][grant.count :]
            if not left[grant.job]:
                del left[grant.job]
        first = grants[0].job
        size = max(1, wants.get(self.jobs[first].opening.function, want))
        quota = min(size, max(ceil(ready[first] / (2 * max(1, share))), size // 16))
        assert took[first] <= quota
        assert took[first] == quota or first not in left or len(grants) == RANGES

    def granted(self, grants: list[Any], seconds: float, now: float) -> None:
        """Grants count at once."""
        for grant in grants:
            self.hoarders -= {grant.boot} if grant.suspect else set()
            self.leases[grant.lease] = Held(
                grant.job, grant.boot, grant.worker, grant.suspect, seconds, now + seconds
            )
            for task in self.jobs[grant.job].tasks[grant.first : grant.first + grant.count]:
                task.state, task.lease = "leased", grant.lease

    def shrink(self, number: int, first: int, keep: int) -> None:
        """All but the first `keep` tasks of a grant from `first` on come back."""
        lease = self.leases[number]
        tasks = [
            t for at, t in enumerate(self.jobs[lease.job].tasks) if t.lease == number and at >= first + keep
        ]
        if lease.suspect:
            self._suspect(tasks)
        for task in tasks:
            if not lease.suspect:
                task.state, task.lease = "ready", 0
        self.tidy()

    def wake(self, now: float) -> None:
        for job in self.jobs.values():
            for task in job.tasks:
                if task.state == "delayed" and task.due <= int(now * 10) / 10:
                    task.state = "ready"

    # ------------------------------------------------------------ looking

    def view(self, now: float) -> dict[str, Any]:
        """Everything durable, task by task, as `view_of` gives it of the real one."""
        found: dict[str, Any] = {"tombstones": self.tombstones}
        for name, job in self.jobs.items():
            starts = {piece[0] for piece in self.suspects(job)}
            tasks = []
            for at, task in enumerate(job.tasks):
                state, due = task.state, 0.0
                if state == "delayed":
                    state, due = ("ready", 0.0) if task.due <= int(now * 10) / 10 else (state, task.due)
                rest = (task.attempts, task.losses) if state not in ENDED else ()
                tasks.append((state, at in starts, task.lease, due, task.round, *rest))
            about = (job.state, job.reason, job.ended, job.results, job.taken, job.retries, job.opening)
            found[name] = (about, tasks)
        for number, lease in self.leases.items():
            found[str(number)] = (lease.job, lease.boot, lease.suspect, lease.begun, len(self.held(number)))
        return found


def view_of(ledger: Any, now: float) -> dict[str, Any]:
    """Everything durable of a real ledger, task by task."""
    state = ledger._state
    found: dict[str, Any] = {"tombstones": state.tombstones}
    for name, job in state.jobs.items():
        tasks: list[Any] = []
        for segment in job.segments:
            tasks += _segment_view(segment, now)
        about = (job.state, job.reason, job.ended, job.results, job.taken, job.retries)
        opening = m.Opening(job.id, job.name, job.function, job.options, job.submitter, job.created)
        found[name] = ((*about, opening), tasks)
    for number, lease in state.leases.table.items():
        found[str(number)] = (lease.job.id, lease.boot, lease.suspect, lease.begun, lease.left)
    return found


NAMES = ["none", "ready", "leased", "completed", "dead", "cancelled", "suspect", "suspect"]


def _segment_view(segment: Any, now: float) -> list[Any]:
    due_of = {code: tick / 10 for tick, code in segment.codes.items()}
    losses = segment.losses.image() if segment.losses is not None else bytes(segment.state.width)
    tasks = []
    for first, count, byte, owner, attempts, round_ in segment.pieces(0, segment.state.width):
        name, due = ("delayed", due_of[byte]) if byte >= 16 else (NAMES[byte], 0.0)
        if name == "delayed" and due <= int(now * 10) / 10:
            name, due = "ready", 0.0
        for at in range(first, first + count):
            rest = (attempts, losses[at]) if name not in ENDED else ()
            if name != "none":
                tasks.append((name, byte == 6, owner, due, round_, *rest))
    return tasks


def check_whole(ledger: Any) -> None:
    """What must hold at any moment, whatever happened: counts, holders and turns agree with the tasks."""
    state = ledger._state
    held: dict[int, int] = {}
    for job in state.jobs.values():
        counts: dict[str, int] = {}
        for segment in job.segments:
            image = segment.state.image()
            assert dict(segment.state.counts) == {value: image.count(value) for value in set(image)}
            for first, count, byte, owner, _, _ in segment.pieces(0, segment.state.width):
                name = "delayed" if byte >= 16 else NAMES[byte]
                counts[name] = counts.get(name, 0) + count
                assert (name == "leased") == bool(owner), (first, name, owner)
                if owner:
                    held[owner] = held.get(owner, 0) + count
            if segment.owner is not None:  # nobody holds what is not leased
                owners = sum(count for _, count, owner in segment.owner.runs(0, segment.state.width) if owner)
                assert owners == segment.state.counts.get(2, 0)
        status = job.status()
        for name in ("ready", "leased", "delayed", "suspect", "completed", "dead", "cancelled"):
            assert getattr(status, name) == counts.get(name, 0), name
        assert status.total == sum(counts.values()) - counts.get("none", 0)
        assert (job.entry is not None) == (bool(status.ready) and not job.stopping)
        assert (job.id in state.suspects) == (bool(status.suspect) and not job.stopping)
    assert held == {number: lease.left for number, lease in state.leases.table.items()}
    for holder in state.leases.holders.values():
        assert holder.left == sum(lease.left for lease in holder.leases.values())
        assert all(state.leases.table[number] is lease for number, lease in holder.leases.items())
    assert len(state.leases.table) == sum(len(h.leases) for h in state.leases.holders.values())
