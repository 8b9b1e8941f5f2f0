"""The ledger's rules on commits, submitting and ending; `test_ledger_model` has the combinations."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from ledger_yard import LEASE, Yard, block_of, spans

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import BacklogFullError, ConflictError, GapError, UnknownJobError, UsageError
from taskyard_master.ledger import Pending


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


def test_what_failed_is_no_repeat(yard: Yard) -> None:
    """Its digest is forgotten with it: a shorter chunk in its place is new, not another."""
    for ticket in yard.hold(yard.chunk(100, 10)):
        yard.ledger.abort(ticket)
    yard.do(yard.chunk(100, 10, text="else"))
    assert yard.chunk(100, 10, text="else").duplicates == 10


def test_coming_back_waits_for_chunks_that_are_queued(yard: Yard) -> None:
    (ticket,) = yard.hold(yard.chunk(100, 10))
    with pytest.raises(Pending) as waiting:
        yard.open()
    assert waiting.value.ticket == ticket


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
    said = r"^2 jobs have an id that begins with 'abc': give the id, one of abc2 \(name of abc2\), abc1 \("
    with pytest.raises(UsageError, match=said):
        yard.ledger.find("abc")
    for nothing in ("q", ""):
        with pytest.raises(UnknownJobError, match=f"^there is no job '{nothing}': see 'taskyard status'$"):
            yard.ledger.find(nothing)
    with pytest.raises(UnknownJobError, match=r"'name of xzy'; did you mean name of xyz or .*\?$"):
        yard.ledger.find("name of xzy")
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


def test_a_snapshot_knows_what_was_taken(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant))
    yard.do(yard.ledger.take("j", 3, 4, 4))
    yard.hold(yard.ledger.take("j", 3, 6, 2))
    again = Yard(2)
    again.ledger.restore(yard.ledger.snapshot(), again.now)
    assert again.ledger.taken("j") == (3, 4, 4) and again.ledger.untaken("j") == 6


def test_a_snapshot_leaves_out_what_is_queued(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.hold(yard.chunk(100, 5))
    yard.hold(yard.judge(yard.outcome(grant)))
    again = Yard(2)
    again.ledger.restore(yard.ledger.snapshot(), again.now)
    assert again.counts() == {"ready": 90, "leased": 10} and again.ledger.next_index("j") == 100
    assert again.do(again.chunk(100, 5, text="else")).accepted == 5
    assert again.chunk(100, 5, text="else").duplicates == 5


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
