"""The ledger against a naive model, step by step, through everything that can happen to a master."""

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_model import CHARGING, Model, check_whole, events, narrow_ledger, view_of

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import TaskyardError
from taskyard_master.rows import Entry, arrange

pytestmark = pytest.mark.timeout(900)  # half a minute of work, on a machine that others may load

BITS = 6
WIDTH = 1 << BITS
LEASE = 30.0
OFFSET = 1_000_000.0
ours = narrow_ledger(BITS)

JOBS = ["a", "b", "plain"]
WORKERS = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7"]
PEERS = ["p0", "p1"]
FUNCTIONS = {"a": "t:f", "b": "t:g", "plain": ""}
KINDS = ["completed", "completed", *CHARGING, "refused", "suspect", "released"]

jobs = st.sampled_from(JOBS)
workers = st.sampled_from(WORKERS)
holders = st.sampled_from([*WORKERS, *WORKERS, *PEERS])
unit = st.sampled_from([0.0, 0.5])


def block_of(first: int, count: int, mark: str) -> bytes:
    return batch.pack([f"{mark}{index}".encode() for index in range(first, first + count)])


class LedgerMachine(RuleBasedStateMachine):
    """One master over several lives: requests, commits that come later or fail, workers that vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.boot = 1
        self.ledger: Any = ours.Ledger(self.boot, offset=OFFSET, lease=LEASE, abandon=600.0)
        self.model = Model(WIDTH, LEASE, OFFSET)
        self.queue: list[list[tuple[int, m.Record, bytes]]] = []  # plans whose commit is to come
        self.riding: dict[int, m.Granting] = {}
        self.log: list[m.Record] = []
        self.base: tuple[bytes, Model, int] | None = None  # snapshot, the model then, length of the log
        self.old: list[Any] = []  # grants of the past, settled or not
        self.soon = True  # what is queued is written before anything else happens

    @property
    def wall(self) -> float:
        return self.now + OFFSET

    # ------------------------------------------------------------ the way of a request

    def judge(self, ask: Callable[[], Any], waits: bool) -> Any:
        """Ask the ledger, and hold what it plans; None if the request was refused or has to wait."""
        try:
            plan = ask()
        except ours.Pending as pending:
            assert waits, "it waits for nothing"
            assert any(ticket == pending.ticket for plan in self.queue for ticket, _, _ in plan)
            return None
        except TaskyardError:
            return None
        assert not waits, "it did not wait for what is queued"
        self.hold(plan)
        return plan

    def hold(self, plan: Any) -> None:
        held = []
        for record, block in plan.records:
            held.append((self.ledger.hold(record), record, block))
            self.model.queue(record, True)
        if held:
            self.queue.append(held)

    def barred(self, job: str) -> bool:
        return any(isinstance(r, m.Opening) and r.job == job for plan in self.queue for _, r, _ in plan) or (
            job in self.model.jobs and self.model.jobs[job].barrier
        )

    @rule(soon=st.booleans())
    def pace(self, soon: bool) -> None:
        """The journal catches up; from now on it is fast, or slow."""
        self.write(len(self.queue))
        self.soon = soon

    @precondition(lambda self: self.queue)
    @rule(plans=st.integers(1, 6))
    def commit(self, plans: int) -> None:
        self.write(plans)

    def write(self, plans: int) -> None:
        """The journal writes the first of what is queued in one commit, with the grants that ride along."""
        done, self.queue = self.queue[:plans], self.queue[plans:]
        entries = [Entry(record, block) for plan in done for _, record, block in plan]
        rows, _ = arrange(entries, [Entry(grant, b"") for grant in self.riding.values()])
        self.riding = {}
        self.log += [row.record for row in rows]
        for plan in done:
            for ticket, record, _ in plan:
                self.ledger.commit(ticket, self.now)
                self.model.queue(record, False)
                self.model.apply(record, self.now)

    @precondition(lambda self: self.queue)
    @rule()
    def fail(self) -> None:
        """A commit fails, and all that is queued behind it."""
        for plan in self.queue:
            for ticket, record, _ in plan:
                self.ledger.abort(ticket)
                self.model.queue(record, False)
                if isinstance(record, m.Taking) and record.job in self.model.jobs:
                    self.model.jobs[record.job].taking = self.model.jobs[record.job].taken
        self.queue = []

    # ------------------------------------------------------------ submitting

    @initialize(soon=st.booleans(), attempts=st.integers(1, 3), losses=st.integers(1, 2))
    def begin_with_jobs(self, soon: bool, attempts: int, losses: int) -> None:
        for job, priority in (("a", 0), ("b", 1), ("plain", 0)):
            self.open(job, attempts, losses, priority, "s")
        self.write(3)
        self.chunk("a", 0, 70, True, 0)
        self.write(1)
        self.soon = soon

    def open(self, job: str, attempts: int, losses: int, priority: int, submitter: str) -> None:
        options = m.Options(max_attempts=attempts, max_losses=losses, priority=priority)
        request = m.Open(0, job, job, FUNCTIONS[job], options, submitter)
        known = self.model.jobs.get(job)
        plan = None
        try:
            plan = self.ledger.open(request, self.wall)
        except ours.Pending:
            assert self.barred(job) or (known is not None and known.queued)
            return
        except TaskyardError:
            if known is None:
                assert self.model.tombstones[job] > self.wall
            else:
                assert known.state == "cancelled" or known.opening.submitter != submitter
            return
        assert bool(plan.records) == (known is None or known.state == "incomplete")
        self.hold(plan)

    @rule(
        job=jobs,
        shift=st.sampled_from([0] * 8 + [-5, -40, 3]),
        count=st.integers(1, 8) | st.integers(1, 70),
        same=st.sampled_from([True, True, True, False]),
        limit=st.sampled_from([0, 0, 0, 60]),
    )
    def chunk(self, job: str, shift: int, count: int, same: bool, limit: int) -> None:
        known = self.model.jobs.get(job)
        tail = known.tail if known is not None else 0
        first = max(0, tail + shift)
        if known is not None and tail > 200 and first == tail:
            return
        block = block_of(first, count, "task" if same else "else")
        request = m.Chunk(0, job, first, count, batch.digest(block), block)
        if known is None or self.barred(job):
            self.judge(lambda: self.ledger.chunk(request, self.now, limit), self.barred(job))
            return
        repeats = first < tail and known.state != "cancelled"
        waits = repeats and first + count > len(known.tasks) and known.queued > 0
        plan = self.judge(lambda: self.ledger.chunk(request, self.now, limit), waits)
        if plan is None or not plan.records:
            if plan is not None:
                assert first + count <= tail and plan.duplicates == count
            elif first == tail:
                full = limit and known.unfinished + known.queued + count > limit
                assert full or known.state != "open"
            return
        assert first == tail and known.state == "open" and plan.accepted == count
        assert sum(record.count for record, _ in plan.records) == count
        values = [v for record, part in plan.records for v in batch.unpack(part, record.count)]
        assert values == batch.unpack(block, count)
        known.renewed = self.now

    def close(self, job: str, wrong: int, reason: str) -> None:
        known = self.model.jobs.get(job)
        tail = known.tail if known is not None else 0
        request = m.Close(0, job, tail + wrong, reason)
        plan = self.judge(lambda: self.ledger.close(request, self.wall), self.barred(job))
        if plan is not None and plan.records:
            assert known is not None and known.state in ("open", "incomplete")
            assert wrong == 0 or (wrong == -1 and reason)

    def free(self, job: str) -> None:
        """A result that no lease asked for."""
        known, block = self.model.jobs.get(job), batch.pack([b"free"])
        plan = self.judge(
            lambda: self.ledger.free(job, block, worker="w", host="h", seconds=1.0, wall=self.wall),
            self.barred(job),
        )
        if plan is not None:
            assert known is not None and known.state == "open"
            assert plan.records[1][0].first == known.tail - 1

    # ------------------------------------------------------------ leasing

    @rule(
        boot=holders,
        functions=st.sampled_from([("t:f", "t:g"), ("t:f", "t:g"), ("t:f",), ()]),
        want=st.integers(1, 40),
        wants=st.sampled_from([{}, {}, {"t:f": 5}]),
        share=st.sampled_from([1, 1, 3]),
        keep=st.sampled_from([None, None, None, 0, 1, 3]),
    )
    def grant(
        self,
        boot: str,
        functions: tuple[str, ...],
        want: int,
        wants: dict[str, int],
        share: int,
        keep: int | None,
    ) -> None:
        only = "plain" if boot in PEERS else ""
        want = 1 if only else want
        seconds = float("inf") if only else None
        grants = self.ledger.grant(
            boot, boot, functions, want, wants, share, self.now, seconds=seconds, only=only
        )
        self.model.check_grant(boot, functions, want, wants, share, self.now, only, grants)
        self.model.granted(grants, LEASE if seconds is None else seconds, self.now)
        for grant in grants:
            record = grant.record()
            # A peer's cut of a suspect range is not undone: in the log there would be nothing of it.
            if keep is not None and keep < grant.count and not (only and grant.suspect):
                self.ledger.shrink(grant.lease, keep)
                self.model.shrink(grant.lease, grant.first, keep)
                record.count = keep
            if record.count:
                self.riding[grant.lease] = record
            self.old.append(grant)
        self.old = self.old[-40:]

    @rule(
        boot=workers,
        asks=st.integers(1, 6),
        plans=st.integers(0, 9),
        begins=st.sampled_from([True, True, False]),
    )
    def perish(self, boot: str, asks: int, plans: int, begins: bool) -> None:
        """A task kills the workers that run it, one after the other."""
        for _ in range(asks):
            self.grant(boot, ("t:f", "t:g"), 8, {}, 1, None)
            for number in self.model.of(boot):
                if begins and self.model.leases[number].suspect and len(self.model.held(number)) == 1:
                    self.begin(number)
            self.write(plans)
            self.lost(boot)
            self.write(plans)

    @precondition(lambda self: any(lease.suspect for lease in self.model.leases.values()))
    @rule(data=st.data())
    def begin_one(self, data: st.DataObject) -> None:
        self.begin(data.draw(st.sampled_from([n for n, one in self.model.leases.items() if one.suspect])))

    def begin(self, number: int) -> None:
        lease = self.model.leases[number]
        held = self.model.held(number)
        job = self.model.jobs[lease.job]
        waits = len(held) == 1 and (job.barrier or job.tasks[held[0][1]].pending)
        plan = self.judge(lambda: self.ledger.begin(lease.boot, number), waits)
        if plan is not None:
            assert len(held) == 1
            assert bool(plan.records) != lease.begun

    @precondition(lambda self: self.old)
    @rule(data=st.data(), draw=unit)
    def settle(self, data: st.DataObject, draw: float) -> None:
        """Outcomes of current and former leases, whole or in part, in any order."""
        boot = ""
        outcomes = []
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, 3]))):
            grant = data.draw(st.sampled_from(self.old[::-1]))
            boot = boot or grant.boot
            start = data.draw(st.sampled_from([0, 0, grant.count // 2, grant.count - 1]))
            count = data.draw(st.sampled_from([grant.count - start, 1, max(1, (grant.count - start) // 2)]))
            outcomes.append(
                self.outcome(grant, grant.first + start, count, data.draw(st.sampled_from(KINDS)))
            )
        self.settled(boot, outcomes, draw)

    @rule(
        boot=holders,
        want=st.integers(1, 30),
        kind=st.sampled_from(KINDS),
        part=st.sampled_from([1, 1, 2]),
        plans=st.integers(0, 9),
        draw=unit,
    )
    def work(self, boot: str, want: int, kind: str, part: int, plans: int, draw: float) -> None:
        """A worker asks and reports all, or a part, of each range in one message."""
        self.grant(boot, ("t:f", "t:g"), want, {}, 1, None)
        self.write(plans)
        outcomes = []
        for number in self.model.of(boot):
            held = self.model.held(number)
            grant = next((old for old in self.old if old.lease == number), None)
            if grant is not None:
                count = max(1, (held[-1][1] - held[0][1] + 1) // part)
                outcomes.append(self.outcome(grant, held[0][1], count, kind))
        if outcomes:
            self.settled(boot, outcomes, draw)

    def outcome(self, grant: Any, first: int, count: int, kind: str) -> m.Outcome:
        block = b"" if kind in ("released", "suspect") else block_of(first, count, kind)
        void = kind == "completed" and first % 5 == 0
        return m.Outcome(grant.lease, grant.job, first, count, kind, self.wall, 0.5 * count, block, void)  # type: ignore[arg-type]

    def settled(self, boot: str, outcomes: list[m.Outcome], draw: float) -> None:
        waits, expected, duplicates = self.model.settle(boot, outcomes, self.wall, draw)
        plan = self.judge(
            lambda: self.ledger.settle(boot, boot, "h", outcomes, self.now, self.wall, draw), waits
        )
        if plan is not None:
            assert events(plan.records) == expected
            assert (plan.accepted, plan.duplicates) == (len(expected), duplicates)
            for record, _ in plan.records:
                assert record.first // WIDTH == (record.first + record.count - 1) // WIDTH

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(list(self.model.leases)))
        lease, held = self.model.leases[number], self.model.held(number)
        first = data.draw(st.sampled_from(held))[1]
        outcome = m.Outcome(number, lease.job, first, held[-1][1] - first + 1, "released", 0.0, 0.0, b"")
        waits, expected, duplicates = self.model.settle(lease.boot, [outcome], self.wall, 0.0)
        plan = self.judge(
            lambda: self.ledger.release(lease.boot, number, first, outcome.count, self.now, self.wall), waits
        )
        if plan is not None:
            assert events(plan.records) == expected
            assert (plan.accepted, plan.duplicates) == (len(expected), duplicates)

    @rule(boot=holders, data=st.data())
    def renew(self, boot: str, data: st.DataObject) -> None:
        named = [number for number in self.model.leases if data.draw(st.booleans())] + [77]
        drop = self.ledger.renew(boot, named, self.now)
        assert drop == [n for n in named if n not in self.model.leases or self.model.leases[n].boot != boot]
        for number in set(named) - set(drop):
            lease = self.model.leases[number]
            lease.deadline = self.now + lease.seconds

    # ------------------------------------------------------------ coming and going

    @rule(boot=workers, data=st.data())
    def hello(self, boot: str, data: st.DataObject) -> None:
        """A worker connects anew and names some of what it held, now or long ago."""
        held, kept = [], set()
        for grant in self.old:
            if grant.boot != boot or not data.draw(st.booleans()):
                continue
            cut = data.draw(st.sampled_from([0, 0, 1]))
            if cut < grant.count:
                held.append(m.Held(grant.lease, grant.job, grant.first + cut, grant.count - cut))
                lease = self.model.leases.get(grant.lease)
                if lease is not None and lease.boot == boot:
                    kept |= {(grant.lease, at) for at in range(grant.first + cut, grant.first + grant.count)}
        waits = any(
            self.touched(place) for number in self.model.of(boot) for place in self.model.held(number)
        )
        adopted, strangers = self.adoptable(boot, held)
        waits = waits or any(self.touched((part.job, at)) for part in strangers for at in _indices(part))
        self.model.present.add(boot)
        plan = self.judge(lambda: self.ledger.hello(boot, boot, held, self.now), waits)
        if plan is None:
            return
        expected = {
            place: ("returning", self.model.leases[number].suspect, number)
            for number in self.model.of(boot)
            for place in self.model.held(number)
            if (number, place[1]) not in kept
        }
        assert events(plan.records) == expected
        grants = [record for record, _ in plan.records if isinstance(record, m.Granting)]
        assert {(g.job, at): g.lease for g in grants for at in _indices(g)} == adopted
        known = {part.lease for part in held if self.model.leases.get(part.lease, _Nobody).boot == boot}
        assert set(plan.drop) == {part.lease for part in held} - known - set(adopted.values())
        for number in known:
            lease = self.model.leases[number]
            lease.deadline = self.now + lease.seconds

    def touched(self, place: tuple[str, int]) -> bool:
        job = self.model.jobs[place[0]]
        return job.barrier or (place[1] < len(job.tasks) and job.tasks[place[1]].pending)

    def adoptable(self, boot: str, held: list[m.Held]) -> tuple[dict[tuple[str, int], int], list[m.Held]]:
        """What of a hello has no record and is still ready; and the parts that were looked at for that."""
        found: dict[tuple[str, int], int] = {}
        strangers = []
        for part in held:
            job = self.model.jobs.get(part.job)
            if part.lease in self.model.leases or job is None or part.lease >> 40 >= self.boot:
                continue
            if part.first + part.count > len(job.tasks):
                continue
            strangers.append(part)
            for at in _indices(part):
                if job.tasks[at].state == "ready":
                    found.setdefault((part.job, at), part.lease)
        return found, strangers

    @rule(boot=holders)
    def lost(self, boot: str) -> None:
        places = {place for number in self.model.of(boot) for place in self.model.held(number)}
        free = {place for place in places if not self.touched(place)}
        for number in self.model.of(boot):
            self.model.leases[number].deadline = self.now
        self.model.present.discard(boot)
        self.model.reserved.pop(boot, None)
        plan = self.ledger.lost(boot, self.now)
        self.model.check_losses(plan.records, free, free)
        self.hold(plan)

    @rule(seconds=st.sampled_from([0.5, 0.5, 2.0, 10.0, 31.0, 700.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.model.wake(self.now)
        over = [n for n, lease in self.model.leases.items() if lease.deadline <= self.now]
        may = {place for number in over for place in self.model.held(number) if not self.touched(place)}
        fresh = [n for n in over if self.now - self.model.leases[n].looked >= 1.0]
        must = {place for number in fresh for place in self.model.held(number) if not self.touched(place)}
        due = self.ledger.next_due(self.now)
        assert due is not None or not must
        assert due is None or not must or due <= self.now
        plan = self.ledger.tick(self.now, self.wall)
        self.model.check_losses(plan.records, must, may)
        for record, _ in plan.records:
            if isinstance(record, m.Ending | m.Losing):
                lease = self.model.jobs[record.job].tasks[record.first].lease
                self.model.leases[lease].looked = self.now
        for number in fresh:
            self.model.leases[number].looked = self.now
        for closing in [record for record, _ in plan.records if isinstance(record, m.Closing)]:
            job = self.model.jobs[closing.job]
            assert job.state == "open" and job.renewed + 600 <= self.now and closing.job != "plain"
        self.hold(plan)

    # ------------------------------------------------------------ what people ask for

    @rule(
        job=jobs,
        what=st.sampled_from(
            ["requeue"] * 5
            + ["open", "close", "incomplete", "free", "take", "renew", "cancel", "delete", "wrong"]
        ),
        first=st.sampled_from([0, 0, 5, 60]),
        count=st.sampled_from([-1, -1, 10, 80]),
    )
    def manage(self, job: str, what: str, first: int, count: int) -> None:
        """What happens rarely to a job."""
        match what:
            case "open":
                self.open(job, 2, 2, first % 2, "s" if count else "other")
            case "close" | "incomplete" | "wrong":
                self.close(job, count if what == "wrong" else 0, "gone" if what == "incomplete" else "")
            case "free":
                self.free(job)
            case "take":
                self.take(job, max(0, count))
            case "renew":
                if job in self.model.jobs:
                    self.ledger.renew_job(job, self.now)
                    self.model.jobs[job].renewed = self.now
            case "cancel":
                self.cancel(job)
            case "delete":
                self.delete(job)
            case _:
                self.requeue(job, first, count)

    def cancel(self, job: str) -> None:
        known = self.model.jobs.get(job)
        plan = self.judge(lambda: self.ledger.cancel(job, self.wall), self.barred(job))
        if plan is not None and plan.records:
            assert known is not None and not known.over and plan.accepted == known.unfinished
            assert set(plan.drop) == {n for n, lease in self.model.leases.items() if lease.job == job}

    def requeue(self, job: str, first: int, count: int) -> None:
        known = self.model.jobs.get(job)
        plan = self.judge(lambda: self.ledger.requeue(job, first, count), self.barred(job))
        if plan is not None:
            assert known is not None
            part = known.tasks[first:] if count < 0 else known.tasks[first : first + count]
            assert plan.accepted == sum(task.state == "dead" for task in part)

    def delete(self, job: str) -> None:
        known = self.model.jobs.get(job)
        plan = self.judge(lambda: self.ledger.delete(job, self.wall), self.barred(job))
        if plan is not None:
            assert known is not None and known.over

    def take(self, job: str, step: int) -> None:
        known = self.model.jobs.get(job)
        if known is None:
            return
        at, offset, _ = known.taking
        plan = self.judge(lambda: self.ledger.take(job, at, offset + step, step), self.barred(job))
        if plan is not None:
            assert step > 0

    # ------------------------------------------------------------ other lives

    @rule()
    def snapshot(self) -> None:
        """A snapshot is taken; the next start begins with it."""
        self.base = (self.ledger.snapshot(), self.unqueued(), len(self.log))

    def unqueued(self) -> Model:
        """The model without what is queued."""
        model = copy.deepcopy(self.model)
        for plan in self.queue:
            for _, record, _ in plan:
                model.queue(record, False)
        for job in model.jobs.values():
            job.taking, job.queued = job.taken, 0
        return model

    def born_again(self) -> tuple[Any, Model]:
        """What a master that starts now reads from snapshot and log."""
        ledger = ours.Ledger(self.boot + 1, offset=OFFSET, lease=LEASE, abandon=600.0)
        model, begin = Model(WIDTH, LEASE, OFFSET), 0
        if self.base is not None:
            data, model, begin = self.base[0], copy.deepcopy(self.base[1]), self.base[2]
            ledger.restore(data, self.now)
            model.reserved, model.hoarders = {}, set()
            model.present = {lease.boot for lease in model.leases.values()}
            for job in model.jobs.values():
                job.renewed = self.now
        for record in self.log[begin:]:
            ledger.replay(record, self.now)
            model.apply(record, self.now)
            if isinstance(record, m.Granting) and record.suspect:
                model.hoarders.discard(record.boot)
        ledger.rearm(self.now)
        for lease in model.leases.values():
            lease.seconds, lease.deadline, lease.looked = LEASE, self.now + LEASE, float("-inf")
        return ledger, model

    @precondition(lambda self: not self.queue and not self.riding)
    @rule()
    def replay_equals_life(self) -> None:
        """With everything written, what a start would read is what there is."""
        ledger, _ = self.born_again()
        assert view_of(ledger, self.now) == view_of(self.ledger, self.now)

    @rule()
    def restart(self) -> None:
        """The master dies, with all that was queued, and starts anew from snapshot and log."""
        self.ledger, self.model = self.born_again()
        self.boot += 1
        self.queue, self.riding = [], {}
        check_whole(self.ledger)

    # ------------------------------------------------------------ always

    @invariant()
    def same_as_the_model(self) -> None:
        if self.soon:
            self.write(len(self.queue))
        assert view_of(self.ledger, self.now) == self.model.view(self.now)
        check_whole(self.ledger)


class _Nobody:
    boot = ""


def _indices(part: Any) -> range:
    return range(part.first, part.first + part.count)


LOCAL = settings(max_examples=15, stateful_step_count=60)
CI = settings(max_examples=400, stateful_step_count=80)
LedgerMachine.TestCase.settings = settings(
    CI if os.environ.get("CI") else LOCAL,
    deadline=None,
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
test_the_ledger_does_what_the_model_does = LedgerMachine.TestCase
