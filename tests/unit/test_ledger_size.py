"""What ten million tasks cost the ledger, whatever pattern their states make (rule 18)."""

import time
import tracemalloc
from collections.abc import Callable, Iterator

import msgspec
import pytest

from taskyard import messages as m
from taskyard_master import snapshots
from taskyard_master.ledger import Ledger
from taskyard_master.segments import WIDTH

TASKS = 10_000_000
SEGMENTS = TASKS // WIDTH + 1
BOUND = 200 << 20  # of the 250 MB that a master may have, interpreter and journal aside
SLOW = 10.0  # seconds that an operation on ten million tasks in shreds may take at most
OFFSET = 1e9
NOW = 100.0

EVERY_SECOND = range(0, WIDTH, 2)
LEASE = 1 << 40 | 1


def granting(ledger: Ledger) -> None:
    ledger.replay(m.Granting("j", 0, WIDTH, LEASE, "w", "boot", False), NOW)


def ending(index: int, state: str = "completed") -> m.Ending:
    return m.Ending("j", index, 1, state, 0, 1, "w", "h", 0.0, 0.1, OFFSET)  # type: ignore[arg-type]


def retrying(index: int, attempts: int) -> m.Retrying:
    due = OFFSET + NOW + 1 + index * 7919 % 3000 / 10  # any of 3000 times
    return m.Retrying("j", index, 1, attempts, due, "w", 0.1)


def singles() -> Iterator[m.Record]:
    for index in range(WIDTH):
        yield m.Chunked("j", index, 1, index.to_bytes(16, "little"))


def every_second_delayed() -> Iterator[m.Record]:
    for index in EVERY_SECOND:
        yield retrying(index, 1)


def every_second_dead() -> Iterator[m.Record]:
    for index in EVERY_SECOND:
        yield ending(index, "dead")


def every_second_suspect() -> Iterator[m.Record]:
    for index in EVERY_SECOND:
        yield m.Losing("j", index, 1, 0, True)


def every_second_completed_of_a_lease() -> Iterator[m.Record]:
    for index in EVERY_SECOND:
        yield ending(index)


def all_at_once() -> Iterator[m.Record]:
    """Delayed, dead, suspect and done, one after the other, some of them requeued before."""
    for index in range(0, WIDTH, 8):
        yield ending(index + 7, "dead")
    yield m.Requeuing("j", [(0, WIDTH)])
    for index in range(0, WIDTH, 8):
        yield retrying(index, 1)
        yield retrying(index + 1, 2)
        yield ending(index + 2, "dead")
        yield m.Losing("j", index + 3, 1, 0, True)
        yield m.Returning("j", index + 4, 1, 0, False)


PATTERNS: list[Callable[[], Iterator[m.Record]]] = [
    singles,
    every_second_delayed,
    every_second_dead,
    every_second_suspect,
    every_second_completed_of_a_lease,
    all_at_once,
]


def ten_million(pattern: Callable[[], Iterator[m.Record]]) -> bytes:
    """A snapshot of ten million tasks that repeat a pattern, made of one segment by copying it."""
    ledger = Ledger(1, offset=OFFSET)
    ledger.replay(m.Opening("j", "j", "f", m.Options(), "me", OFFSET), NOW)
    if pattern is not singles:
        ledger.replay(m.Chunked("j", 0, WIDTH, b""), NOW)
        granting(ledger)
    for record in pattern():
        ledger.replay(record, NOW)
    shot = msgspec.msgpack.decode(ledger.snapshot(), type=snapshots.Shot)
    (job,) = shot.jobs
    job.segments *= SEGMENTS
    job.next *= SEGMENTS
    for lease in shot.leases:
        lease.count, lease.left = job.next, lease.left * SEGMENTS
    return msgspec.msgpack.encode(shot)


def timed(operation: Callable[[], object]) -> None:
    begin = time.perf_counter()
    operation()
    assert time.perf_counter() - begin < SLOW


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_ten_million_tasks_fit_and_move(pattern: Callable[[], Iterator[m.Record]]) -> None:
    data = ten_million(pattern)
    tracemalloc.start()
    try:
        ledger = Ledger(2, offset=OFFSET)
        ledger.restore(data, NOW)
        del data
        assert tracemalloc.get_traced_memory()[0] < BOUND
    finally:
        tracemalloc.stop()
    assert ledger.status("j").total >= TASKS
    timed(lambda: ledger.tick(NOW + 1000, OFFSET + NOW + 1000))
    timed(lambda: ledger.grant("x", "x", {"f"}, 5000, {}, 1, NOW))
    timed(lambda: ledger.replay(m.Requeuing("j", [(0, TASKS)]), NOW))
    timed(ledger.snapshot)
    timed(lambda: ledger.replay(m.Cancelling("j", OFFSET), NOW))
    assert ledger.done("j")
