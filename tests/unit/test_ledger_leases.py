"""The ledger's rules on leases, outcomes and turns, each as an example."""

from math import inf

import pytest
from ledger_yard import LEASE, Yard, block_of, spans, two_jobs

from taskyard import batch
from taskyard import messages as m
from taskyard_master.ledger import Pending


@pytest.fixture
def yard() -> Yard:
    """A ledger with an open job of 100 tasks."""
    found = Yard()
    found.open()
    found.submit(100)
    return found


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


def test_a_loss_that_fails_twice_is_looked_at_every_second(yard: Yard) -> None:
    yard.grant()
    yard.now += LEASE
    for _ in range(3):
        (ticket,) = yard.hold(yard.ledger.tick(yard.now, yard.wall))
        assert not yard.ledger.tick(yard.now, yard.wall).records  # it is on its way
        yard.ledger.abort(ticket)
        yard.now += 1
    yard.tick()
    assert yard.counts() == {"ready": 90, "suspect": 10}


def test_leases_of_a_job_that_is_being_cancelled_are_not_lost(yard: Yard) -> None:
    yard.grant()
    (ticket,) = yard.hold(yard.ledger.cancel("j", yard.wall))
    assert not yard.ledger.lost("w", yard.now).records
    assert not yard.tick(LEASE + 1).records
    yard.ledger.commit(ticket, yard.now)
    assert yard.counts() == {"cancelled": 100}


def test_a_hello_waits_for_what_is_queued_of_the_ranges_it_names(yard: Yard) -> None:
    (grant,) = yard.grant()
    yard.log.pop()
    again = yard.restarted()
    (ticket,) = again.hold(again.judge(again.outcome(grant, first=3, count=2)))
    held = [m.Held(grant.lease, "j", grant.first, grant.count)]
    with pytest.raises(Pending):
        again.ledger.hello("w", "w", held, again.now)
    again.ledger.commit(ticket, again.now)
    again.hello("w", held)
    assert again.ledger.held("w") == {grant.lease: 8}


def test_a_grant_that_is_read_again_takes_nothing_from_a_later_one(yard: Yard) -> None:
    (first,) = yard.grant()
    yard.settle(yard.outcome(first, "released", first=5, count=5))
    (second,) = yard.grant("x", want=5)
    yard.ledger.replay(first.record(), yard.now)
    assert yard.ledger.held("w") == {first.lease: 5} and yard.ledger.held("x") == {second.lease: 5}


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


def test_a_failure_counts_for_what_its_lease_still_holds(yard: Yard) -> None:
    """Half of a lease was given back and is another worker's now."""
    (grant,) = yard.grant()
    yard.settle(yard.outcome(grant, "released", first=5, count=5))
    assert spans(yard.grant("x", want=5)) == [(5, 5)]
    plan = yard.settle(yard.outcome(grant, "failed"))
    assert (plan.accepted, plan.duplicates) == (5, 5)
    assert yard.counts() == {"ready": 90, "leased": 5, "delayed": 5}


def test_what_ended_before_its_record_was_read_again_counts_once(yard: Yard) -> None:
    (grant,) = yard.grant()
    ((ending, _),) = yard.settle(yard.outcome(grant)).records
    yard.ledger.replay(ending, yard.now)
    assert yard.counts() == {"ready": 90, "completed": 10} and yard.ledger.untaken("j") == 10


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


def test_long_tasks_under_way_count_for_more() -> None:
    """Ten seconds were spent on either job: on one task of the first, on ten of the second."""
    yard = two_jobs()
    for _ in range(11):
        (grant,) = yard.grant(want=1)
        outcome = yard.outcome(grant)
        outcome.seconds = 10.0 if grant.job == "a" else 1.0
        yard.settle(outcome)
    seen = [yard.grant(f"w{at}", want=1)[0].job for at in range(22)]
    assert seen.count("a") == 2


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
    assert sizes[:4] == [25, 19, 14, 11] and sizes[-3:] == [2, 2, 2] and sum(sizes) == 100


def test_want_goes_by_function_where_its_pace_is_known(yard: Yard) -> None:
    assert yard.grant(want=1, wants={"t:f": 20})[0].count == 20
    assert yard.grant(want=3, wants={"t:g": 20})[0].count == 3


def test_what_comes_back_is_found_below_what_was_granted_last() -> None:
    yard = Yard()
    yard.open()
    yard.submit(70_000)
    (grant,) = yard.grant(want=35_000)
    (other,) = yard.grant(want=17_500)
    while yard.grant(want=20_000):
        pass
    yard.settle(yard.outcome(other, "released"), yard.outcome(grant, "released", first=7, count=3))
    assert spans(yard.grant(want=3)) == [(7, 3)]


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
