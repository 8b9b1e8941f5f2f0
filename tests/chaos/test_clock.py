"""The wall clock jumps by up to a day, either way: no lease ends early or late, no retry waits a day."""

import random

from rig import note

from taskyard import batch
from taskyard import messages as m
from taskyard_ctl.chaos.oracle import Report
from taskyard_master.ledger import Ledger

LEASE = 30.0
JUMPS = 1000


def test_leases_and_retries_do_not_follow_the_wall_clock() -> None:
    draw = random.Random(3)
    now, wall = 1000.0, 1.8e9
    for _ in range(JUMPS):
        ledger = Ledger(1, offset=wall - now, lease=LEASE)
        apply(ledger, ledger.open(m.Open(0, "j", "", "f", m.Options(), "s"), wall), now)
        chunk = m.Chunk(0, "j", 0, 1, b"", batch.pack([b"x"]))
        apply(ledger, ledger.chunk(chunk, now, 0), now)
        (granted,) = ledger.grant("w", "w", ["f"], 1, {}, 1, now)
        wall += draw.choice([-1, 1]) * draw.choice([1.0, 60.0, 3600.0, 86400.0])
        assert not ledger.tick(now + LEASE - 1, wall).records, "early"
        if draw.random() < 0.5:
            assert ledger.tick(now + LEASE + 1, wall).records, "late"
        else:
            failed = m.Outcome(granted.lease, "j", 0, 1, "failed", wall, 0.1, batch.pack([m.encode(FAILURE)]))
            apply(ledger, ledger.settle("w", "w", "h", [failed], now + 1, wall, 0.5), now + 1)
            assert ledger.status("j").delayed == 1
            wall += draw.choice([-1, 1]) * 86400.0
            due = ledger.next_due(now + 1)
            assert due is not None
            assert due - now < 120, "a retry waits for seconds, whatever the wall clock says"
            ledger.tick(due + 1, wall)
            assert ledger.status("j").ready == 1
        now += 100
    note(Report(faults={"jumps": JUMPS}))


FAILURE = m.Failure("raised", "ValueError", "no")


def apply(ledger: Ledger, plan: object, now: float) -> None:
    for record, _ in plan.records:  # type: ignore[attr-defined]
        ledger.commit(ledger.hold(record), now)
