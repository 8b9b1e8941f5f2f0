"""The ledger's rules on attempts and losses, each as an example."""

from math import inf

import pytest
from ledger_yard import LEASE, OFFSET, Yard, spans, two_jobs

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import ConflictError
from taskyard.messages import decode_failure
from taskyard_master.ledger import Granted, Pending


@pytest.fixture
def yard() -> Yard:
    """A ledger with an open job of 100 tasks."""
    found = Yard()
    found.open()
    found.submit(100)
    return found


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


def test_results_of_different_rounds_are_told_apart(yard: Yard) -> None:
    (grant,) = yard.grant(want=4)
    yard.settle(
        yard.outcome(grant, "refused", first=0, count=2), yard.outcome(grant, "released", first=2, count=2)
    )
    yard.do(yard.ledger.requeue("j"))
    (grant,) = yard.grant(want=4)
    plan = yard.settle(yard.outcome(grant))
    assert [(r.first, r.count, r.round) for r, _ in plan.records] == [(0, 2, 1), (2, 2, 0)]  # type: ignore[union-attr]


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


def test_begun_is_remembered_by_a_snapshot(yard: Yard) -> None:
    yard.grant(want=1)
    yard.lose()
    (grant,) = yard.grant("a")
    yard.do(yard.ledger.begin("a", grant.lease))
    again = Yard(2)
    again.ledger.restore(yard.ledger.snapshot(), again.now)
    (record, _), *_ = again.tick(LEASE + 1).records
    assert isinstance(record, m.Losing) and record.charged


def test_a_suspect_with_an_outcome_on_its_way_is_not_granted(yard: Yard) -> None:
    (grant,) = yard.grant(want=8)
    yard.lose()
    yard.hold(yard.judge(yard.outcome(grant, first=1, count=1)))
    assert spans(yard.grant("a")) == [(4, 4)]


def test_what_is_left_of_a_suspect_range_stands_by_itself(yard: Yard) -> None:
    (grant,) = yard.grant(want=16)
    yard.lose()
    yard.settle(yard.outcome(grant, first=3, count=2))
    assert spans(yard.grant("a")) == [(0, 3)]
    yard.lose("a")
    assert yard.counts() == {"ready": 84, "suspect": 14, "completed": 2}
    assert spans(yard.grant("b")) == [(0, 2)]


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


def test_a_chosen_worker_that_is_lost_makes_room_for_another(yard: Yard) -> None:
    yard.grant("busy")
    yard.grant("second")
    yard.grant("x", want=8)
    yard.lose("x")
    assert yard.grant("busy") == []
    assert yard.grant("second")
    for ticket in yard.hold(yard.ledger.lost("busy", yard.now)):
        yard.ledger.abort(ticket)
    assert yard.grant("second") == []  # now it is the one


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
