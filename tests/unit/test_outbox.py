"""Outcomes on their way: when they leave, how they are merged, and that none is lost or doubled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskyard import batch
from taskyard.messages import Outcome
from taskyard_worker import outbox
from taskyard_worker.outbox import Outbox


def done(
    first: int, count: int = 1, *, lease: int = 1, kind: str = "completed", each: float = 1e-6
) -> Outcome:
    block = batch.pack([b"%d" % index for index in range(first, first + count)])
    return Outcome(lease, "job", first, count, kind, 100.0 + first, each * count, block)  # type: ignore[arg-type]


def values(outcomes: list[Outcome]) -> dict[int, bytes]:
    return {
        outcome.first + place: value
        for outcome in outcomes
        for place, value in enumerate(batch.unpack(outcome.block, outcome.count))
    }


def test_the_first_leaves_at_once_the_second_gathers_the_third_waits() -> None:
    box = Outbox()
    assert box.delay(0.0) is None
    box.add([done(0)], 0.0)
    assert box.delay(0.0) == 0.0
    one, _ = box.take(0.0)
    box.add([done(1)], 1.0)
    assert box.delay(1.001) == pytest.approx(outbox.GATHER_SECONDS - 0.001)
    box.add([done(2)], 1.002)
    assert box.delay(1.004) == 0.0
    two, sent = box.take(1.004)
    assert [(o.first, o.count) for o in sent] == [(1, 2)], "runs that follow one another leave as one"
    box.add([done(3)], 2.0)
    assert box.delay(3.0) is None
    box.answered(one)
    assert box.delay(3.0) == 0.0
    box.answered(two)
    box.answered(box.take(3.0)[0])
    assert box.empty


def test_much_leaves_without_gathering() -> None:
    box = Outbox()
    box.add([done(0)], 0.0)
    box.take(0.0)
    box.add([done(n * 1000 + 1, 1000) for n in range(100)], 1.0)
    assert box.delay(1.0) == 0.0


def test_what_is_merged() -> None:
    """Quick runs of one kind under one lease; long tasks keep their own times."""
    box = Outbox()
    box.add(
        [done(2), done(0), done(1), done(3, lease=2), done(4, kind="failed"), done(5, kind="failed")], 0.0
    )
    _, sent = box.take(0.0)
    assert [(o.lease, o.first, o.count, o.kind) for o in sent] == [
        (1, 0, 3, "completed"), (1, 4, 2, "failed"), (2, 3, 1, "completed"),
    ]  # fmt: skip
    assert values(sent) == {n: b"%d" % n for n in range(6)}
    assert sent[0].started == 100.0
    box.add([done(0, each=0.5), done(1, each=0.5)], 0.0)
    assert len(box.take(1.0)[1]) == 2


def test_what_was_not_taken_goes_again_first() -> None:
    box = Outbox()
    box.add([done(0)], 0.0)
    ticket, _ = box.take(0.0)
    box.add([done(9)], 0.0)
    box.back(ticket)
    assert [held.first for held in box.held()] == [0, 9]
    assert values(box.take(0.0)[1]) == {0: b"0", 9: b"9"}
    box.back_all()
    assert values(box.take(0.0)[1]) == {0: b"0", 9: b"9"}


def test_a_large_outcome_is_split() -> None:
    block = batch.pack([bytes(1 << 20)] * 10)
    box = Outbox()
    box.add([Outcome(1, "job", 5, 10, "completed", 1.0, 10.0, block)], 0.0)
    firsts = []
    while not box.empty:
        ticket, sent = box.take(0.0)
        assert sum(len(o.block) for o in sent) <= outbox.MESSAGE_BYTES + 100
        firsts += [index for o in sent for index in range(o.first, o.first + o.count)]
        assert all(abs(o.seconds - o.count) < 1e-9 for o in sent)
        box.answered(ticket)
    assert firsts == list(range(5, 15))


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["add", "take", "answer", "fail", "drop"]), max_size=60), st.randoms())
def test_nothing_is_lost_or_doubled(steps: list[str], random: object) -> None:
    """Whatever the order of sending, answers, failures and broken connections: all held until answered."""
    box = Outbox()
    next_index = 0
    open_: set[int] = set()
    flying: dict[int, set[int]] = {}
    now = 0.0
    for step in steps:
        now += 0.001
        if step == "add":
            count = random.randint(1, 5)  # type: ignore[attr-defined]
            box.add([done(next_index, count)], now)
            open_ |= set(range(next_index, next_index + count))
            next_index += count
        elif step == "take" and box.delay(now) == 0.0:
            ticket, sent = box.take(now)
            flying[ticket] = set(values(sent))
        elif step in ("answer", "fail") and flying:
            ticket = random.choice(sorted(flying))  # type: ignore[attr-defined]
            indices = flying.pop(ticket)
            if step == "answer":
                box.answered(ticket)
                open_ -= indices
            else:
                box.back(ticket)
        elif step == "drop":
            box.back_all()
            flying.clear()
        held = [index for h in box.held() for index in range(h.first, h.first + h.count)]
        assert sorted(held) == sorted(open_)
    assert box.empty == (not open_)
