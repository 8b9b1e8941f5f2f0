"""The rules of the ledger, each as an example; `test_ledger_model` has the combinations."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import pytest

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import BacklogFullError, ConflictError, GapError, UnknownJobError, UsageError
from taskyard.messages import decode_failure
from taskyard_master.ledger import Granted, Ledger, Pending, Plan

OFFSET = 1_700_000_000.0
LEASE = 30.0
CAN = frozenset(["t:f", "t:g"])


def block_of(count: int, text: str = "v") -> bytes:
    return batch.pack([f"{text}{at}".encode() for at in range(count)])


def failures(count: int) -> bytes:
    return batch.pack([m.encode(m.Failure("raised", "ValueError", f"bad {at}")) for at in range(count)])


class Yard:
    """A ledger whose commits come at once, and its log."""

    def __init__(self, boot: int = 1, **settings: float) -> None:
        self.now = 1000.0
        self.ledger = Ledger(boot, offset=OFFSET, lease=LEASE, **settings)
        self.log: list[tuple[m.Record, bytes]] = []

    @property
    def wall(self) -> float:
        return self.now + OFFSET

    def do(self, plan: Plan) -> Plan:
        for ticket in self.hold(plan):
            self.ledger.commit(ticket, self.now)
        self.log += plan.records
        return plan

    def hold(self, plan: Plan) -> list[int]:
        return [self.ledger.hold(record) for record, _ in plan.records]

    def open(self, job: str = "j", function: str = "t:f", submitter: str = "me", **options: Any) -> Plan:
        request = m.Open(0, job, f"name of {job}", function, m.Options(**options), submitter)
        return self.do(self.ledger.open(request, self.wall))

    def chunk(self, first: int, count: int, job: str = "j", text: str = "v", limit: int = 0) -> Plan:
        return self.ledger.chunk(chunk_of(first, count, job, text), self.now, limit)

    def submit(self, count: int, job: str = "j") -> None:
        self.do(self.chunk(self.ledger.next_index(job), count, job))

    def close(self, total: int, job: str = "j", reason: str = "") -> Plan:
        return self.do(self.ledger.close(m.Close(0, job, total, reason), self.wall))

    def hello(self, boot: str, held: Iterable[m.Held] = ()) -> Plan:
        return self.do(self.ledger.hello(boot, f"worker {boot}", held, self.now))

    def grant(
        self, boot: str = "w", want: int = 10, functions: Iterable[str] = CAN, **more: Any
    ) -> list[Granted]:
        """Grants as one worker with all the slots would get them, unless `share` says otherwise."""
        wants, share = more.pop("wants", {}), more.pop("share", 1)
        grants = self.ledger.grant(
            boot, f"worker {boot}", list(functions), want, wants, share, self.now, **more
        )
        self.log += [(grant.record(), b"") for grant in grants]
        return grants

    def outcome(self, grant: Granted, kind: str = "completed", first: int = -1, count: int = 0) -> m.Outcome:
        first = grant.first if first < 0 else first
        count = count or grant.first + grant.count - first
        block = b"" if kind in ("released", "suspect") else failures(count)
        block = block_of(count, "result") if kind == "completed" else block
        return m.Outcome(grant.lease, grant.job, first, count, kind, self.wall, float(count), block)  # type: ignore[arg-type]

    def judge(self, *outcomes: m.Outcome, boot: str = "w", draw: float = 0.0) -> Plan:
        return self.ledger.settle(boot, f"worker {boot}", "host", list(outcomes), self.now, self.wall, draw)

    def settle(self, *outcomes: m.Outcome, boot: str = "w", draw: float = 0.0) -> Plan:
        return self.do(self.judge(*outcomes, boot=boot, draw=draw))

    def tick(self, seconds: float = 0.0) -> Plan:
        self.now += seconds
        return self.do(self.ledger.tick(self.now, self.wall))

    def lose(self, boot: str = "w") -> Plan:
        return self.do(self.ledger.lost(boot, self.now))

    def counts(self, job: str = "j") -> dict[str, int]:
        status = self.ledger.status(job)
        names = ("ready", "leased", "delayed", "suspect", "completed", "dead", "cancelled")
        return {name: getattr(status, name) for name in names if getattr(status, name)}

    def restarted(self, boot: int = 2) -> "Yard":
        """What a new start makes of the log."""
        fresh = Yard(boot)
        fresh.now = self.now
        for record, _ in self.log:
            fresh.ledger.replay(record, fresh.now)
        return fresh


def chunk_of(first: int, count: int, job: str = "j", text: str = "v") -> m.Chunk:
    block = block_of(count, text)
    return m.Chunk(0, job, first, count, batch.digest(block), block)


def spans(grants: list[Granted]) -> list[tuple[int, int]]:
    return [(grant.first, grant.count) for grant in grants]


@pytest.fixture
def yard() -> Yard:
    """A ledger with an open job of 100 tasks."""
    found = Yard()
    found.open()
    found.submit(100)
    return found


# ---------------------------------------------------------------- rule 2: what is queued


def test_a_queued_outcome_shows_nowhere_until_it_is_committed(yard: Yard) -> None:
    (grant,) = yard.grant()
    tickets = yard.hold(yard.judge(yard.outcome(grant)))
    assert yard.counts() == {"ready": 90, "leased": 10}
    for ticket in tickets:
        yard.ledger.commit(ticket, yard.now)
    assert yard.counts() == {"ready": 90, "completed": 10}


def test_a_repeat_waits_for_the_commit_and_is_a_duplicate_then(yard: Yard) -> None:
    (grant,) = yard.grant()
    (ticket,) = yard.hold(yard.judge(yard.outcome(grant)))
    with pytest.raises(Pending) as waiting:
        yard.judge(yard.outcome(grant, first=grant.first + 3, count=1))
    assert waiting.value.ticket == ticket
    yard.ledger.commit(ticket, yard.now)
    assert yard.judge(yard.outcome(grant)).duplicates == 10


def test_a_failed_commit_leaves_everything_as_it_was(yard: Yard) -> None:
    (grant,) = yard.grant()
    (ticket,) = yard.hold(yard.judge(yard.outcome(grant)))
    yard.ledger.abort(ticket)
    assert yard.counts() == {"ready": 90, "leased": 10}
    assert yard.settle(yard.outcome(grant)).accepted == 10


def test_what_is_queued_is_not_granted_anew(yard: Yard) -> None:
    """A late success for a task that is ready again: nobody gets it while that is on its way to disk."""
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant, "released"))
    yard.hold(yard.judge(yard.outcome(grant, first=2, count=3)))
    assert spans(yard.grant(want=6)) == [(0, 2), (5, 4)]


def test_a_job_waits_as_a_whole_while_its_cancel_is_queued(yard: Yard) -> None:
    (grant,) = yard.grant()
    (ticket,) = yard.hold(yard.ledger.cancel("j", yard.wall))
    requests: list[Callable[[], Any]] = [
        lambda: yard.chunk(100, 1),
        lambda: yard.judge(yard.outcome(grant)),
        lambda: yard.ledger.close(m.Close(0, "j", 100), yard.wall),
        lambda: yard.ledger.requeue("j"),
        lambda: yard.ledger.delete("j", yard.wall),
        lambda: yard.ledger.cancel("j", yard.wall),
    ]
    for request in requests:
        with pytest.raises(Pending):
            request()
    assert not yard.grant() and not yard.ledger.leasable()
    yard.ledger.abort(ticket)
    assert yard.ledger.leasable() and yard.grant()


def test_an_opening_that_is_queued_is_waited_for() -> None:
    yard = Yard()
    request = m.Open(0, "j", "n", "t:f", m.Options(), "me")
    (ticket,) = yard.hold(yard.ledger.open(request, yard.wall))
    for again in (lambda: yard.ledger.open(request, yard.wall), lambda: yard.chunk(0, 1)):
        with pytest.raises(Pending):
            again()
    yard.ledger.abort(ticket)
    with pytest.raises(UnknownJobError):
        yard.chunk(0, 1)


# ---------------------------------------------------------------- rules 4 to 6: submitting


def test_a_chunk_has_to_start_where_the_job_ends(yard: Yard) -> None:
    with pytest.raises(GapError) as gap:
        yard.chunk(101, 5)
    assert gap.value.expected == 100
    assert yard.do(yard.chunk(100, 5)).accepted == 5
    assert yard.ledger.next_index("j") == 105


def test_a_repeated_chunk_adds_nothing_and_another_is_refused(yard: Yard) -> None:
    yard.do(yard.chunk(100, 5))
    again = yard.chunk(100, 5)
    assert not again.records and again.duplicates == 5
    with pytest.raises(ConflictError):
        yard.chunk(100, 5, text="else")
    with pytest.raises(ConflictError):
        yard.chunk(100, 6)


def test_a_chunk_of_long_ago_is_taken_for_the_same(yard: Yard) -> None:
    for first in range(100, 170):
        yard.do(yard.chunk(first, 1))
    assert yard.chunk(100, 1, text="else").duplicates == 1
    with pytest.raises(ConflictError):
        yard.chunk(169, 1, text="else")


def test_a_large_chunk_is_stored_in_rows_and_its_repeat_is_known() -> None:
    yard = Yard()
    yard.open()
    values = [b"x" * 60_000] * 12
    request = m.Chunk(0, "j", 0, 12, batch.digest(batch.pack(values)), batch.pack(values))
    plan = yard.do(yard.ledger.chunk(request, yard.now, 0))
    assert all(len(block) <= batch.MAX_BYTES for _, block in plan.records) and len(plan.records) > 1
    assert [v for record, block in plan.records for v in batch.unpack(block, record.count)] == values  # type: ignore[union-attr]
    assert yard.ledger.chunk(request, yard.now, 0).duplicates == 12
    other = batch.pack([*values[:-1], b"y" * 60_000])
    with pytest.raises(ConflictError):
        yard.ledger.chunk(m.Chunk(0, "j", 0, 12, batch.digest(other), other), yard.now, 0)


def test_no_row_crosses_a_segment() -> None:
    yard = Yard()
    yard.open()
    yard.submit(65530)
    plan = yard.do(yard.chunk(65530, 10))
    assert [(r.first, r.count) for r, _ in plan.records] == [(65530, 6), (65536, 4)]  # type: ignore[union-attr]
    assert yard.chunk(65530, 10).duplicates == 10
    grants = yard.grant(want=70000)
    grants += yard.grant(want=70000)
    assert all(grant.first >> 16 == (grant.first + grant.count - 1) >> 16 for grant in grants)


def test_many_chunks_share_a_commit(yard: Yard) -> None:
    tickets = [t for first in range(100, 150, 10) for t in yard.hold(yard.chunk(first, 10))]
    assert yard.ledger.next_index("j") == 150 and yard.ledger.status("j").total == 100
    with pytest.raises(Pending) as waiting:
        yard.chunk(120, 10)
    assert waiting.value.ticket == tickets[2]
    assert yard.chunk(0, 100).duplicates == 100  # nothing of it is queued
    for ticket in tickets:
        yard.ledger.commit(ticket, yard.now)
    assert yard.ledger.status("j").total == 150


def test_when_a_chunk_fails_so_do_those_behind_it(yard: Yard) -> None:
    first, second, third = (yard.hold(yard.chunk(at, 10))[0] for at in (100, 110, 120))
    yard.ledger.commit(first, yard.now)
    yard.ledger.abort(second)
    yard.ledger.abort(third)
    assert yard.ledger.next_index("j") == 110
    assert yard.do(yard.chunk(110, 3, text="else")).accepted == 3


def test_the_backlog_limit_counts_what_is_unfinished_and_queued(yard: Yard) -> None:
    tickets = yard.hold(yard.chunk(100, 10, limit=110))
    with pytest.raises(BacklogFullError):
        yard.chunk(110, 1, limit=110)
    yard.ledger.commit(tickets[0], yard.now)
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant))
    assert yard.chunk(110, 10, limit=110).accepted == 10


def test_a_chunk_larger_than_the_limit_is_taken_when_nothing_is_unfinished() -> None:
    yard = Yard()
    yard.open()
    assert yard.do(yard.chunk(0, 50, limit=10)).accepted == 50


def test_close_carries_the_total(yard: Yard) -> None:
    with pytest.raises(GapError) as gap:
        yard.close(101)
    assert gap.value.expected == 100
    with pytest.raises(ConflictError):
        yard.close(99)
    assert yard.close(100).records
    assert not yard.close(100).records  # a repeat
    with pytest.raises(UsageError, match="closed"):
        yard.chunk(100, 1)
    assert yard.chunk(0, 100).duplicates == 100


def test_an_empty_job_ends_when_it_is_closed() -> None:
    yard = Yard()
    yard.open()
    assert not yard.ledger.done("j")
    yard.close(0)
    assert yard.ledger.done("j") and yard.ledger.status("j").ended == yard.wall


def test_opening_again_is_coming_back(yard: Yard) -> None:
    assert not yard.open().records
    with pytest.raises(ConflictError):
        yard.open(submitter="other")
    with pytest.raises(ConflictError):
        yard.open(function="t:g")


@pytest.mark.parametrize(
    "options",
    [{"max_attempts": 0}, {"max_attempts": 256}, {"max_losses": 0}, {"timeout": -1.0}, {"retention": inf}],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Yard().open(**options)


def test_a_deleted_id_stays_known_for_seven_days(yard: Yard) -> None:
    with pytest.raises(UsageError, match="cancel"):
        yard.ledger.delete("j", yard.wall)
    yard.do(yard.ledger.cancel("j", yard.wall))
    yard.do(yard.ledger.delete("j", yard.wall))
    with pytest.raises(UsageError, match="deleted"):
        yard.open()
    with pytest.raises(UnknownJobError):
        yard.ledger.status("j")
    again = yard.restarted()
    with pytest.raises(UsageError, match="deleted"):
        again.open()
    again.now += 7 * 86400 + 1
    again.ledger.expired_jobs(again.wall)
    assert again.open().records


def test_a_silent_submitter_leaves_an_incomplete_job_that_it_may_reopen() -> None:
    yard = Yard(abandon=600.0)
    yard.open()
    yard.submit(5)
    due = yard.ledger.next_due(yard.now)
    assert due is not None and due <= yard.now + 600
    yard.now += 400
    yard.ledger.renew_job("j", yard.now)
    assert not yard.tick(400).records
    yard.ledger.next_due(yard.now)
    yard.tick(300)
    status = yard.ledger.status("j")
    assert status.state == "incomplete" and "silent" in status.note
    with pytest.raises(UsageError):
        yard.chunk(5, 1)
    assert yard.open().records
    assert yard.ledger.status("j").state == "open" and yard.chunk(5, 1).records


def test_nobody_abandons_plain() -> None:
    yard = Yard(abandon=60.0)
    yard.open("plain", function="")
    yard.ledger.next_due(yard.now)
    assert not yard.tick(1e6).records


# ---------------------------------------------------------------- rules 7 and 8: leases and hello


def test_lease_ids_are_never_reused(yard: Yard) -> None:
    first, second = yard.grant()[0].lease, yard.grant()[0].lease
    assert first >> 40 == second >> 40 == 1 and second > first
    assert yard.restarted().grant()[0].lease >> 40 == 2


def test_after_a_restart_ranges_are_held_for_their_worker_for_one_lease(yard: Yard) -> None:
    (mine,) = yard.grant("w")
    (other,) = yard.grant("x")
    again = yard.restarted()
    again.now += 20
    again.ledger.rearm(again.now)
    assert again.counts() == {"ready": 80, "leased": 20}
    plan = again.hello("w", [m.Held(mine.lease, "j", mine.first, mine.count)])
    assert not plan.drop and not plan.records
    again.now += 25
    assert again.ledger.renew("w", [mine.lease], again.now) == []
    again.tick(10)
    assert again.counts() == {"ready": 80, "leased": 10, "suspect": 10}
    assert again.ledger.lease(other.lease) is None
    assert again.settle(again.outcome(mine)).accepted == 10


def test_a_range_without_a_record_is_adopted_if_it_is_still_ready(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.log.pop()  # the grant was not written when the master died
    again = yard.restarted()
    plan = again.hello("w", [m.Held(grant.lease, "j", grant.first, grant.count)])
    assert plan.drop == [] and again.ledger.held("w") == {grant.lease: 10}
    assert again.settle(again.outcome(grant, "failed")).accepted == 10


def test_what_was_granted_anew_is_dropped(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.log.pop()
    again = yard.restarted()
    again.grant("x")
    plan = again.hello("w", [m.Held(grant.lease, "j", grant.first, grant.count)])
    assert plan.drop == [grant.lease] and not plan.records


def test_a_lease_id_of_this_life_is_not_adopted(yard: Yard) -> None:
    """Only what a master before this one granted can be without a record."""
    assert yard.hello("w", [m.Held(1 << 40 | 7, "j", 0, 5)]).drop == [1 << 40 | 7]
    assert yard.hello("w", [m.Held(3, "j", 0, 5), m.Held(4, "none", 0, 5)]).drop == [3, 4]


def test_one_lease_of_an_earlier_master_is_adopted_by_one_holder(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.log.pop()
    yard.open("other")
    yard.submit(10, "other")
    again = yard.restarted()
    plans = [
        again.ledger.hello(boot, boot, [m.Held(grant.lease, job, first, 5)], again.now)
        for boot, job, first in (("w", "j", 0), ("x", "j", 5), ("y", "other", 0))
    ]
    for plan in plans:
        again.do(plan)
    assert again.ledger.held("w") == {grant.lease: 5}
    assert not again.ledger.held("x") and not again.ledger.held("y")
    assert again.ledger.renew("x", [grant.lease], again.now) == [grant.lease]


def test_what_a_hello_leaves_out_comes_back_free(yard: Yard) -> None:
    kept, gone = yard.grant()[0], yard.grant()[0]
    plan = yard.hello("w", [m.Held(kept.lease, "j", kept.first + 2, 4)])
    assert plan.accepted == 16
    assert yard.counts() == {"ready": 96, "leased": 4}
    assert yard.ledger.held("w") == {kept.lease: 4}
    assert not yard.settle(yard.outcome(gone, "failed")).accepted


def test_heartbeats_renew_and_name_what_is_not_held(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.now += 25
    assert yard.ledger.renew("w", [grant.lease, 99], yard.now) == [99]
    assert yard.ledger.renew("x", [grant.lease], yard.now) == [grant.lease]
    yard.tick(25)
    assert yard.counts() == {"ready": 90, "leased": 10}
    yard.tick(6)
    assert yard.counts() == {"ready": 90, "suspect": 10}


def test_next_due_is_when_a_lease_runs_out(yard: Yard) -> None:
    yard.do(yard.ledger.close(m.Close(0, "j", 100), yard.wall))
    assert yard.ledger.next_due(yard.now) is None
    (grant,) = yard.grant()
    assert yard.ledger.next_due(yard.now) == yard.now + LEASE
    yard.settle(yard.outcome(grant))
    assert yard.ledger.next_due(yard.now) is None


def test_a_lease_without_end_lasts_until_its_holder_is_lost(yard: Yard) -> None:
    yard.grant("p", want=1, seconds=inf, only="j")
    yard.tick(1e6)
    assert yard.counts()["leased"] == 1
    yard.lose("p")
    assert yard.counts() == {"ready": 99, "suspect": 1}


def test_a_loss_that_could_not_be_written_is_seen_to_later(yard: Yard) -> None:
    yard.grant("p", want=1, seconds=inf, only="j")
    for ticket in yard.hold(yard.ledger.lost("p", yard.now)):
        yard.ledger.abort(ticket)
    assert yard.counts()["leased"] == 1
    due = yard.ledger.next_due(yard.now)
    assert due is not None and due <= yard.now + 1
    yard.tick(1)
    assert yard.counts() == {"ready": 99, "suspect": 1}


def test_outcomes_on_their_way_are_not_lost_with_their_worker(yard: Yard) -> None:
    (grant,) = yard.grant()
    tickets = yard.hold(yard.judge(yard.outcome(grant, count=4)))
    plan = yard.ledger.lost("w", yard.now)
    assert [(r.first, r.count) for r, _ in plan.records] == [(4, 6)]  # type: ignore[union-attr]
    yard.do(plan)
    for ticket in tickets:
        yard.ledger.commit(ticket, yard.now)
    assert yard.counts() == {"ready": 90, "completed": 4, "suspect": 6}


def test_the_tail_of_a_grant_that_nobody_was_told_of_is_given_back(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.ledger.shrink(grant.lease, 3)
    assert yard.counts() == {"ready": 97, "leased": 3}
    yard.ledger.shrink(grant.lease, 0)
    assert yard.counts() == {"ready": 100} and yard.ledger.lease(grant.lease) is None
    yard.ledger.shrink(grant.lease, 0)


# ---------------------------------------------------------------- rule 9: what counts


def test_outcomes_may_settle_parts_of_a_lease_in_any_order(yard: Yard) -> None:
    (grant,) = yard.grant()
    plan = yard.settle(
        yard.outcome(grant, first=7, count=3),
        yard.outcome(grant, "failed", first=0, count=2),
        yard.outcome(grant, "released", first=2, count=1),
    )
    assert (plan.accepted, plan.duplicates) == (6, 0)
    assert yard.counts() == {"ready": 91, "leased": 4, "delayed": 2, "completed": 3}
    assert yard.ledger.held("w") == {grant.lease: 4}


@pytest.mark.parametrize("kind", ["ready", "leased", "delayed", "suspect"])
def test_a_late_success_wins_while_its_task_is_unfinished(yard: Yard, kind: str) -> None:
    (grant,) = yard.grant()
    if kind == "leased":
        yard.settle(yard.outcome(grant, "released"))
        yard.grant("x")
    elif kind == "suspect":
        yard.lose("w")
    else:
        yard.settle(yard.outcome(grant, "released" if kind == "ready" else "failed"))
    assert yard.settle(yard.outcome(grant, first=2, count=3)).accepted == 3
    assert yard.counts()["completed"] == 3
    if kind == "leased":
        assert list(yard.ledger.held("x").values()) == [7]


@pytest.mark.parametrize("kind", ["failed", "timeout", "killed", "refused", "suspect", "released"])
def test_anything_but_a_success_counts_only_under_the_current_lease(yard: Yard, kind: str) -> None:
    (grant,) = yard.grant()
    assert yard.settle(yard.outcome(grant, kind), boot="x").duplicates == 10
    yard.settle(yard.outcome(grant, "released"))
    assert yard.settle(yard.outcome(grant, kind)).duplicates == 10
    yard.grant("w")
    assert yard.settle(yard.outcome(grant, kind)).duplicates == 10


def test_what_is_finished_or_unknown_is_a_duplicate(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant))
    unknown = m.Outcome(grant.lease, "none", 0, 7, "completed", 0.0, 0.0, block_of(7))
    beyond = m.Outcome(grant.lease, "j", 95, 20, "completed", 0.0, 0.0, block_of(20))
    plan = yard.settle(yard.outcome(grant, "failed"), unknown, beyond)
    assert (plan.accepted, plan.duplicates) == (5, 10 + 7 + 15)


def test_two_outcomes_of_one_message_for_one_task_count_once(yard: Yard) -> None:
    (grant,) = yard.grant()
    plan = yard.settle(yard.outcome(grant, first=0, count=6), yard.outcome(grant, "failed", first=4, count=6))
    assert (plan.accepted, plan.duplicates) == (10, 2)
    assert yard.counts() == {"ready": 90, "completed": 6, "delayed": 4}


def test_a_result_keeps_its_place_when_its_outcome_counts_in_part(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant, first=3, count=2))
    plan = yard.settle(yard.outcome(grant))
    found = {r.first: batch.unpack(block, r.count) for r, block in plan.records}  # type: ignore[union-attr]
    assert found == {0: [b"result0", b"result1", b"result2"], 5: [b"result%d" % at for at in range(5, 10)]}
    assert [r.seconds for r, _ in plan.records] == [3.0, 5.0]  # type: ignore[union-attr]


# ---------------------------------------------------------------- rule 10: turns


def two_jobs(first: int = 0, second: int = 0) -> Yard:
    yard = Yard()
    yard.open("a", "t:f", priority=first)
    yard.open("b", "t:g", priority=second)
    yard.submit(1000, "a")
    yard.submit(1000, "b")
    return yard


def test_priority_is_strict() -> None:
    yard = two_jobs(second=1)
    seen = [yard.grant(f"w{at}", want=100)[0].job for at in range(12)]
    assert "a" not in seen
    while yard.ledger.status("b").ready:
        assert yard.grant("w", want=500)[0].job == "b"
    assert yard.grant("x")[0].job == "a"


def test_jobs_of_one_priority_take_turns_before_anything_is_measured() -> None:
    yard = two_jobs()
    seen = [yard.grant(f"w{at}", want=10)[0].job for at in range(6)]
    assert sorted(seen[:2]) == sorted(seen[2:4]) == sorted(seen[4:]) == ["a", "b"]


def test_turns_go_by_measured_worker_seconds() -> None:
    """A job whose tasks take ten times as long gets a tenth of the tasks."""
    yard = two_jobs()
    got = {"a": 0, "b": 0}
    for _ in range(300):
        (grant,) = yard.grant(want=1)
        got[grant.job] += 1
        outcome = yard.outcome(grant)
        outcome.seconds = 10.0 if grant.job == "a" else 1.0
        yard.settle(outcome)
    assert got["b"] > 8 * got["a"] > 0


def test_what_is_under_way_counts_as_if_it_were_measured() -> None:
    yard = two_jobs()
    for _ in range(2):
        (grant,) = yard.grant(want=1)
        yard.settle(yard.outcome(grant))
    seen = [yard.grant(f"w{at}", want=1)[0].job for at in range(10)]
    assert seen.count("a") == seen.count("b") == 5


def test_a_new_job_has_no_credit_for_the_time_before_it() -> None:
    yard = Yard()
    yard.open("a", "t:f")
    yard.submit(1000, "a")
    for _ in range(50):
        (grant,) = yard.grant(want=1)
        yard.settle(yard.outcome(grant))
    yard.open("b", "t:g")
    yard.submit(1000, "b")
    got = {"a": 0, "b": 0}
    for _ in range(20):
        (grant,) = yard.grant(want=1)
        got[grant.job] += 1
        yard.settle(yard.outcome(grant))
    assert abs(got["a"] - got["b"]) <= 2


def test_a_worker_gets_what_it_can_run() -> None:
    yard = two_jobs()
    assert yard.grant("w", functions=["t:g"])[0].job == "b"
    assert not yard.grant("w", functions=["t:other"]) and not yard.grant("w", functions=[])
    assert yard.ledger.ready_for({"t:g"}) and not yard.ledger.ready_for({"t:other"})
    yard.open("c", "")
    yard.submit(5, "c")
    assert yard.grant("w", functions=["t:other"])[0].job == "c"
    assert not yard.ledger.ready_for(set())


def test_the_last_tasks_go_out_in_ever_smaller_ranges(yard: Yard) -> None:
    sizes = []
    while grants := yard.grant(want=40, share=2):
        sizes.append(sum(grant.count for grant in grants))
    assert sizes[:4] == [25, 19, 14, 11] and sizes[-3:] == [1, 1, 1] and sum(sizes) == 100


def test_want_goes_by_function_where_its_pace_is_known(yard: Yard) -> None:
    assert yard.grant(want=1, wants={"t:f": 20})[0].count == 20
    assert yard.grant(want=3, wants={"t:g": 20})[0].count == 3


def test_small_jobs_fill_one_grant_together() -> None:
    yard = Yard()
    for name in "abc":
        yard.open(name)
        yard.submit(1, name)
    grants = yard.grant(want=10)
    assert sorted(grant.job for grant in grants) == ["a", "b", "c"]


def test_scattered_ranges_fill_one_grant_up_to_a_bound() -> None:
    yard = Yard()
    yard.open()
    yard.submit(1000)
    (grant,) = yard.grant(want=500)
    for index in range(0, 300, 2):
        yard.settle(yard.outcome(grant, "released", first=index, count=1))
    assert spans(yard.grant(want=200))[:3] == [(0, 1), (2, 1), (4, 1)]
    assert len(yard.grant(want=400)) == 64


# ---------------------------------------------------------------- rule 11: attempts


@pytest.mark.parametrize("kind", ["failed", "timeout", "killed"])
def test_a_failure_waits_out_its_backoff_and_is_dead_in_the_end(yard: Yard, kind: str) -> None:
    for attempt in (1, 2):
        (grant,) = yard.grant(want=4)
        assert spans([grant]) == [(0, 4)]
        plan = yard.settle(yard.outcome(grant, kind))
        (record, block), *_ = plan.records
        assert isinstance(record, m.Retrying) and record.attempts == attempt
        assert record.due == yard.wall + 2 ** (attempt - 1) / 2
        assert decode_failure(batch.unpack(block, 4)[3]).message == "bad 3"
        assert yard.counts() == {"ready": 96, "delayed": 4}
        assert yard.ledger.next_due(yard.now) == pytest.approx(record.due - OFFSET, abs=0.11)
        yard.tick(3)
        assert yard.counts() == {"ready": 100}
    (grant,) = yard.grant(want=4)
    (record, block), *_ = yard.settle(yard.outcome(grant, kind)).records
    assert isinstance(record, m.Ending) and (record.state, record.attempts) == ("dead", 3)
    assert decode_failure(batch.unpack(block, 4)[0]).type == "ValueError"
    assert yard.counts() == {"ready": 96, "dead": 4}
    assert yard.ledger.status("j").retries == 8
    assert yard.ledger.status("j").error == "ValueError: bad 0"


def test_tasks_with_different_attempts_are_told_apart(yard: Yard) -> None:
    (grant,) = yard.grant(want=4)
    yard.settle(yard.outcome(grant, "failed"))
    yard.tick(2)
    (grant,) = yard.grant(want=8)
    plan = yard.settle(yard.outcome(grant, "failed"))
    assert [(r.first, r.count, r.attempts) for r, _ in plan.records] == [(0, 4, 2), (4, 4, 1)]  # type: ignore[union-attr]
    assert [len(batch.unpack(block, 4)) for _, block in plan.records] == [4, 4]
    yard.tick(5)
    (grant,) = yard.grant(want=8)
    plan = yard.settle(yard.outcome(grant))
    assert [(r.first, r.attempts) for r, _ in plan.records] == [(0, 3), (4, 2)]  # type: ignore[union-attr]


def test_what_can_never_succeed_is_dead_at_once(yard: Yard) -> None:
    (grant,) = yard.grant(want=2)
    (record, _), *_ = yard.settle(yard.outcome(grant, "refused")).records
    assert isinstance(record, m.Ending) and record.state == "dead" and record.attempts == 1


def test_a_release_costs_nothing(yard: Yard) -> None:
    for _ in range(5):
        (grant,) = yard.grant(want=3)
        plan = yard.do(yard.ledger.release("w", grant.lease, grant.first, 3, yard.now, yard.wall))
        assert plan.accepted == 3
    assert yard.counts() == {"ready": 100}
    assert yard.ledger.release("w", grant.lease, 0, 3, yard.now, yard.wall).duplicates == 3
    (grant,) = yard.grant(want=3)
    (record, _), *_ = yard.settle(yard.outcome(grant)).records
    assert isinstance(record, m.Ending) and record.attempts == 1


def test_delays_do_not_follow_the_wall_clock(yard: Yard) -> None:
    (grant,) = yard.grant(want=1)
    yard.settle(yard.outcome(grant, "failed"), draw=0.0)  # due in half a second
    yard.do(yard.ledger.tick(yard.now + 0.1, yard.wall + 86400))
    assert yard.counts()["delayed"] == 1
    yard.do(yard.ledger.tick(yard.now + 0.2, yard.wall - 86400))
    assert yard.counts()["delayed"] == 1
    yard.do(yard.ledger.tick(yard.now + 0.7, yard.wall - 86400))
    assert yard.counts() == {"ready": 100}


def test_more_due_times_than_bytes_are_rounded_up_a_little() -> None:
    yard = Yard()
    yard.open()
    yard.submit(3000)
    for index in range(3000):
        yard.ledger.replay(m.Retrying("j", index, 1, 1, yard.wall + 1 + index * 0.1, "w", 0.0), yard.now)
    assert yard.counts() == {"delayed": 3000}
    yard.now = round(yard.now)
    for seconds in range(1, 310):
        yard.do(yard.ledger.tick(yard.now + seconds, yard.wall + seconds))
        ready = yard.counts().get("ready", 0)
        due = min(3000, max(0, seconds - 1) * 10 + 1)
        assert due - 20 <= ready <= due, seconds
    assert yard.counts() == {"ready": 3000}


# ---------------------------------------------------------------- rules 12 and 13: losses


def test_a_lost_range_comes_back_as_halves_that_never_merge(yard: Yard) -> None:
    yard.grant(want=16)
    yard.lose()
    assert yard.counts() == {"ready": 84, "suspect": 16}
    assert spans(yard.grant("a", want=1)) == [(0, 8)]
    yard.lose("a")
    assert spans(yard.grant("b", want=100)) == [(0, 4)]
    yard.settle(yard.outcome(Granted(0, "j", "", 0, 4, 0.0, True, "", "")), boot="b")
    assert spans(yard.grant("c", want=100)) == [(4, 4)]
    yard.do(
        yard.ledger.release(
            "c", yard.ledger.lease(next(iter(yard.ledger.held("c")))).id, 4, 4, yard.now, yard.wall
        )
    )  # type: ignore[union-attr]
    assert spans(yard.grant("d", want=100)) == [(4, 4)]


def test_the_killer_stands_alone_and_its_neighbours_go_on(yard: Yard) -> None:
    """Task 5 kills every worker that runs it; it ends dead, nobody else does."""
    yard.close(100)
    dead_workers = 0
    for life in range(1000):
        boot = f"w{life}"
        yard.hello(boot)
        while grants := yard.grant(boot, want=16):
            for grant in grants:
                if grant.suspect and grant.count == 1:
                    yard.do(yard.ledger.begin(boot, grant.lease))
            if any(grant.first <= 5 < grant.first + grant.count for grant in grants):
                dead_workers += 1
                break
            yard.settle(*(yard.outcome(grant) for grant in grants), boot=boot)
        yard.lose(boot)
        yard.tick(1)
        if yard.ledger.done("j"):
            break
    assert yard.counts() == {"completed": 99, "dead": 1}
    assert yard.ledger.ended_run("j", 5) == (1, "dead")
    assert dead_workers == 4 + 10  # as one of 16, 8, 4 and 2; then alone until max_losses
    record, block = next((r, b) for r, b in yard.log if isinstance(r, m.Ending) and r.state == "dead")
    assert decode_failure(batch.unpack(block, 1)[0]).reason == "lost" and record.attempts == 0


def test_a_loss_is_charged_only_where_it_had_begun_alone(yard: Yard) -> None:
    yard.grant(want=1)
    yard.lose()
    for life in range(30):
        (grant,) = yard.grant(f"a{life}", want=5)
        assert grant.suspect and grant.count == 1
        yard.lose(f"a{life}")
    assert yard.counts() == {"ready": 99, "suspect": 1}
    for life in range(9):
        (grant,) = yard.grant(f"b{life}")
        yard.do(yard.ledger.begin(f"b{life}", grant.lease))
        assert not yard.ledger.begin(f"b{life}", grant.lease).records
        plan = yard.lose(f"b{life}")
        assert isinstance(plan.records[0][0], m.Losing) and plan.records[0][0].charged
    (grant,) = yard.grant("z")
    yard.do(yard.ledger.begin("z", grant.lease))
    yard.lose("z")
    assert yard.counts() == {"ready": 99, "dead": 1}


def test_begin_is_for_the_holder_of_a_lone_suspect(yard: Yard) -> None:
    (grant,) = yard.grant(want=2)
    with pytest.raises(ConflictError):
        yard.ledger.begin("w", grant.lease)
    yard.lose()
    (grant,) = yard.grant("a")
    for boot, lease in (("b", grant.lease), ("a", 12345)):
        with pytest.raises(ConflictError):
            yard.ledger.begin(boot, lease)
    tickets = yard.hold(yard.ledger.begin("a", grant.lease))
    with pytest.raises(Pending):
        yard.judge(yard.outcome(grant), boot="a")
    assert not yard.ledger.lost("a", yard.now).records
    yard.ledger.commit(tickets[0], yard.now)


def test_begun_is_remembered_over_a_restart(yard: Yard) -> None:
    yard.grant(want=1)
    yard.lose()
    (grant,) = yard.grant("a")
    yard.do(yard.ledger.begin("a", grant.lease))
    again = yard.restarted()
    (record, _), *_ = again.tick(LEASE + 1).records
    assert isinstance(record, m.Losing) and record.charged


def test_a_worker_with_a_suspect_gets_nothing_else(yard: Yard) -> None:
    yard.grant(want=8)
    yard.lose()
    (grant,) = yard.grant("a")
    assert grant.suspect
    assert not yard.grant("a")
    yard.settle(yard.outcome(grant, first=grant.first, count=2), boot="a")
    assert not yard.grant("a")
    yard.settle(yard.outcome(grant, first=grant.first + 2, count=2), boot="a")
    assert yard.grant("a")


def test_at_most_a_quarter_of_the_workers_serve_suspects(yard: Yard) -> None:
    for at in range(9):
        yard.hello(f"w{at}")
    yard.grant("x", want=40)
    yard.lose("x")
    for _ in range(3):  # make the pieces small
        for boot in ("w7", "w8"):
            yard.grant(boot)
            yard.lose(boot)
            yard.hello(boot)
    kinds = [yard.grant(f"w{at}", want=2)[0].suspect for at in range(8)]
    assert kinds.count(True) == 2


def test_a_chosen_worker_gets_nothing_new_until_it_is_empty(yard: Yard) -> None:
    (grant,) = yard.grant("busy")
    yard.grant("x", want=8)
    yard.lose("x")
    assert yard.grant("busy") == []
    yard.settle(yard.outcome(grant), boot="busy")
    assert yard.grant("busy")[0].suspect


def test_a_chosen_worker_does_not_keep_an_idle_one_from_serving(yard: Yard) -> None:
    yard.grant("busy")
    yard.grant("x", want=8)
    yard.lose("x")
    assert yard.grant("busy") == []
    assert yard.grant("idle")[0].suspect
    assert yard.grant("other")[0].suspect is False
    assert yard.grant("busy")[0].suspect is False  # others serve: it goes on


def test_suspects_go_first_but_not_before_a_higher_priority() -> None:
    yard = two_jobs()
    yard.grant("x", want=8)
    yard.lose("x")
    assert yard.grant("a")[0].suspect
    yard = two_jobs(second=5)
    yard.grant("x", want=8, functions=["t:f"])
    yard.lose("x")
    assert [grant.job for grant in yard.grant("a")] == ["b"]


def test_a_slot_that_was_killed_from_outside_makes_lone_suspects_without_a_charge(yard: Yard) -> None:
    (grant,) = yard.grant(want=4)
    plan = yard.settle(yard.outcome(grant, "suspect", first=0, count=3))
    assert plan.accepted == 3 and yard.counts() == {"ready": 96, "leased": 1, "suspect": 3}
    assert spans(yard.grant("a")) == [(0, 1)]


def test_a_plain_peer_gets_suspects_one_by_one_and_is_never_held_up(yard: Yard) -> None:
    yard.grant("x", want=8)
    yard.lose("x")
    (grant,) = yard.grant("p", want=1, only="j", seconds=inf)
    assert grant.suspect and grant.count == 1
    (grant,) = yard.grant("p", want=1, only="j", seconds=inf)
    assert not grant.suspect
    assert yard.grant("q", want=1, only="j")[
        0
    ].suspect  # the first does not run it alone, so it does not count


# ---------------------------------------------------------------- rules 15 to 17: ending


def test_requeue_starts_the_next_round_of_dead_tasks(yard: Yard) -> None:
    (grant,) = yard.grant(want=6)
    yard.settle(yard.outcome(grant, "refused", first=1, count=3))
    plan = yard.do(yard.ledger.requeue("j", 2))
    assert plan.accepted == 2
    assert yard.counts() == {"ready": 96, "leased": 3, "dead": 1}
    assert not yard.ledger.requeue("j", 2).records
    grants = yard.grant(want=2)
    assert spans(grants) == [(2, 2)]
    (record, _), *_ = yard.settle(*(yard.outcome(grant) for grant in grants)).records
    assert isinstance(record, m.Ending) and (record.round, record.attempts) == (1, 1)


def test_a_requeue_takes_attempts_and_losses_away(yard: Yard) -> None:
    (grant,) = yard.grant(want=1)
    yard.settle(yard.outcome(grant, "failed"))
    yard.tick(2)
    (grant,) = yard.grant(want=1)
    yard.settle(yard.outcome(grant, "refused"))
    yard.do(yard.ledger.requeue("j"))
    (grant,) = yard.grant(want=1)
    (record, _), *_ = yard.settle(yard.outcome(grant, "failed")).records
    assert isinstance(record, m.Retrying) and record.attempts == 1


def test_a_job_ends_when_it_is_closed_and_nothing_is_unfinished(yard: Yard) -> None:
    yard.close(100)
    while grants := yard.grant(want=100):
        yard.tick(1)
        yard.settle(
            *(yard.outcome(grant, "refused" if grant.first == 0 else "completed") for grant in grants)
        )
    status = yard.ledger.status("j")
    assert yard.ledger.done("j") and status.ended == yard.wall and yard.ledger.idle()
    yard.do(yard.ledger.requeue("j"))
    assert yard.ledger.status("j").ended == 0 and not yard.ledger.done("j")


def test_cancel_is_final_for_all_that_is_unfinished(yard: Yard) -> None:
    (done,) = yard.grant()
    yard.settle(yard.outcome(done))
    (grant,) = yard.grant()
    plan = yard.do(yard.ledger.cancel("j", yard.wall))
    assert plan.accepted == 90 and plan.drop == [grant.lease]
    assert yard.counts() == {"completed": 10, "cancelled": 90}
    assert yard.settle(yard.outcome(grant)).duplicates == 10
    assert not yard.grant() and yard.ledger.done("j") and yard.ledger.held("w") == {}
    for refused in (lambda: yard.chunk(100, 1), yard.open, lambda: yard.ledger.requeue("j")):
        with pytest.raises(UsageError, match="cancelled"):
            refused()
    assert not yard.ledger.cancel("j", yard.wall).records


def test_ended_runs_are_what_an_ordered_reader_walks(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant, first=0, count=4), yard.outcome(grant, "refused", first=4, count=2))
    assert yard.ledger.ended_run("j", 1) == (3, "completed")
    assert yard.ledger.ended_run("j", 4) == (2, "dead")
    assert yard.ledger.ended_run("j", 6) == (0, "") == yard.ledger.ended_run("j", 1000)


def test_retention_counts_from_the_end_of_a_job() -> None:
    yard = Yard()
    yard.open("short", retention=60.0)
    yard.open("ever", retention=0.0)
    for job in ("short", "ever"):
        yard.submit(1, job)
        yard.close(1, job)
    yard.now += 1000
    assert yard.ledger.expired_jobs(yard.wall) == []
    for grant in yard.grant(want=10):
        yard.settle(yard.outcome(grant))
    assert yard.ledger.expired_jobs(yard.wall + 59) == []
    assert yard.ledger.expired_jobs(yard.wall + 61) == ["short"]


# ---------------------------------------------------------------- plain peers


def test_a_free_result_is_a_task_of_its_own(yard: Yard) -> None:
    plan = yard.do(yard.ledger.free("j", block_of(1), worker="p", host="h", seconds=2.0, wall=yard.wall))
    assert [type(record) for record, _ in plan.records] == [m.Chunked, m.Ending]
    assert yard.counts() == {"ready": 100, "completed": 1} and yard.ledger.untaken("j") == 1


def test_results_are_taken_in_order_and_without_waiting(yard: Yard) -> None:
    (grant,) = yard.grant()
    void = yard.outcome(grant, first=8, count=2)
    void.void = True
    yard.settle(yard.outcome(grant, first=0, count=8), void)
    assert yard.ledger.untaken("j") == 8
    tickets = [yard.hold(yard.ledger.take("j", 5, offset, 1))[0] for offset in (1, 2, 3)]
    assert yard.ledger.taken("j") == (5, 3, 3) and yard.ledger.untaken("j") == 5
    with pytest.raises(ConflictError):
        yard.ledger.take("j", 5, 3, 1)
    yard.ledger.commit(tickets[0], yard.now)
    yard.ledger.abort(tickets[1])
    yard.ledger.abort(tickets[2])
    assert yard.ledger.taken("j") == (5, 1, 1) and yard.ledger.untaken("j") == 7


# ---------------------------------------------------------------- finding, snapshots


def test_jobs_are_found_by_id_name_and_prefix() -> None:
    yard = Yard()
    for job in ("abc1", "abc2", "xyz"):
        yard.open(job)
    assert yard.ledger.find("abc1") == "abc1"
    assert yard.ledger.find("name of xyz") == "xyz"
    assert yard.ledger.find("x") == "xyz"
    with pytest.raises(UsageError, match="abc1, abc2"):
        yard.ledger.find("abc")
    for nothing in ("q", ""):
        with pytest.raises(UnknownJobError):
            yard.ledger.find(nothing)
    assert yard.ledger.jobs() == ["abc1", "abc2", "xyz"]


def test_a_snapshot_is_the_whole_state(yard: Yard) -> None:
    yard.open("gone")
    yard.close(0, "gone")
    yard.do(yard.ledger.delete("gone", yard.wall))
    kinds = ["completed", "failed", "refused", "suspect", "released"]
    (grant,) = yard.grant(want=20)
    yard.settle(*(yard.outcome(grant, kind, first=at, count=1) for at, kind in enumerate(kinds)))
    yard.grant("lost", want=9)
    yard.lose("lost")
    (lone,) = yard.grant("x")
    again = Yard(2)
    again.now = yard.now
    data = yard.ledger.snapshot()
    again.ledger.restore(data, again.now)
    assert again.ledger.snapshot() == data
    assert again.ledger.status("j") == yard.ledger.status("j")
    assert again.chunk(0, 100).duplicates == 100
    with pytest.raises(UsageError, match="deleted"):
        again.open("gone")
    assert again.ledger.held("w") == {grant.lease: 15} and again.ledger.held("x") == {lone.lease: lone.count}
    again.tick(1)
    assert again.counts()["ready"] == yard.counts()["ready"] + 1
    again.tick(LEASE)
    assert "leased" not in again.counts()


def test_a_snapshot_leaves_out_what_is_queued(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.hold(yard.chunk(100, 5))
    yard.hold(yard.judge(yard.outcome(grant)))
    again = Yard(2)
    again.ledger.restore(yard.ledger.snapshot(), again.now)
    assert again.counts() == {"ready": 90, "leased": 10} and again.ledger.next_index("j") == 100
    assert again.chunk(100, 5, text="else").accepted == 5


def test_rows_that_the_journal_merged_replay_alike() -> None:
    yard = Yard()
    yard.open()
    for index in range(20):
        yard.do(yard.chunk(index, 1))
    for _ in range(20):
        (grant,) = yard.grant(want=1)
        yard.settle(yard.outcome(grant))
    again = Yard(2)
    again.ledger.replay(yard.log[0][0], again.now)
    again.ledger.replay(m.Chunked("j", 0, 20, b""), again.now)
    again.ledger.replay(m.Ending("j", 0, 20, "completed", 0, 1, "w", "h", 0.0, 20.0, yard.wall), again.now)
    assert again.ledger.status("j") == yard.ledger.status("j")
    assert again.chunk(3, 1, text="else").duplicates == 1


def test_a_grant_that_comes_after_its_outcome_changes_nothing(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant))
    yard.log.append((grant.record(), b""))
    again = yard.restarted()
    assert again.counts() == {"ready": 90, "completed": 10} and again.ledger.held("w") == {}
