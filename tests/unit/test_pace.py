"""Lease and batch sizes: from the first task of an unknown function to what suits its pace."""

from hypothesis import given
from hypothesis import strategies as st

from taskyard_worker.pace import BATCH_TASKS, KEEP_SECONDS, SURE_TASKS, Pace, Paces

CAP = 10_000


def paces(seconds: float, slots: int = 2, tasks: int = 1000) -> Paces:
    """After many tasks that took so long each."""
    result = Paces(slots, CAP)
    for _ in range(100):
        result.observe("f", max(1, tasks // 100), seconds * max(1, tasks // 100))
    return result


def test_an_unknown_function_starts_with_one_task_a_slot() -> None:
    fresh = Paces(3, CAP)
    assert fresh.lease("f") == 3
    assert fresh.batch("f", 3) == 1
    assert not fresh.lies_ready("f")
    wish = fresh.wish({}, 3)
    assert wish is not None
    assert (wish.want, wish.wants) == (3, {})
    assert fresh.wish({"f": 3}, 3) is None
    assert fresh.wish({}, 0) is None


def test_tiny_tasks_reach_the_cap_within_a_few_leases() -> None:
    growing = Paces(2, CAP)
    sizes = []
    while not sizes or sizes[-1] < CAP:
        sizes.append(growing.lease("f"))
        growing.observe("f", sizes[-1], sizes[-1] * 1e-6)
        assert len(sizes) < 10, sizes
    assert sizes[:3] == [2, 10, 50]
    assert growing.batch("f", CAP) == BATCH_TASKS


def test_sizes_follow_the_pace() -> None:
    assert 90 <= paces(0.001).lease("f") <= 200
    assert 40 <= paces(0.001).batch("f", 200) <= 80
    assert 5 <= paces(0.01).lease("f") <= 20
    assert 4 <= paces(0.01).batch("f", 20) <= 6
    assert paces(0.01).lies_ready("f")
    assert not paces(0.03).lies_ready("f")
    assert paces(0.6).lease("f") == 2


def test_slow_tasks_are_asked_for_only_when_a_slot_is_free() -> None:
    slow = paces(1.0)
    assert slow.wish({}, 0) is None
    wish = slow.wish({}, 1)
    assert wish is not None
    assert (wish.want, wish.wants) == (1, {"f": 1})
    quick = paces(0.01)
    wish = quick.wish({}, 0)
    assert wish is not None
    assert wish.want == 0
    assert wish.wants["f"] >= 5
    assert quick.wish({"f": 15}, 0) is None, "enough for now"


def test_few_tasks_are_shared_among_the_slots() -> None:
    assert paces(1e-6, slots=4).batch("f", 100) == 25


def test_one_long_task_does_not_decide_for_long() -> None:
    """The first call is slow, for what it imports; the pace recovers."""
    pace = Pace()
    pace.observe(1, 2.0)
    for _ in range(70):
        pace.observe(1, 0.001)
    assert pace.estimate < 0.01


def test_a_moment_without_a_processor_does_not_make_leases_tiny() -> None:
    pace = Pace()
    for _ in range(5):
        pace.observe(3000, 0.003)
    pace.observe(300, 0.013)  # of which ten milliseconds somebody else had the processor
    assert pace.estimate < 5e-6
    for _ in range(20):
        pace.observe(100, 0.1)  # now they do take a thousand times longer
    assert pace.estimate > 0.0009


def test_uneven_tasks_count_as_long() -> None:
    """One in ten takes a hundred times longer: the estimate is above the mean."""
    pace = Pace()
    for n in range(200):
        pace.observe(1, 0.1 if n % 10 == 0 else 0.001)
    assert pace.estimate > 0.012


def test_what_turns_out_to_take_long_goes_back() -> None:
    """Ten thousand tasks were leased as tiny ones, and now one has been running for seconds."""
    tiny = paces(1e-6)
    assert tiny.excess("f", CAP, 0.0) == 0
    assert tiny.excess("f", CAP, 0.9) == 0, "one uneven task is no reason"
    assert tiny.excess("f", CAP, 5.0) == CAP - 2
    assert tiny.excess("f", 2, 5.0) == 0
    assert paces(0.01).excess("f", 1000, 0.0) > 900


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1e4)), max_size=30),
    st.integers(1, 64),
    st.integers(1, 100_000),
    st.integers(0, 100_000),
    st.integers(0, 64),
    st.floats(0, 1e4),
)
def test_sizes_are_always_sane(
    seen: list[tuple[int, float]], slots: int, cap: int, queued: int, idle: int, running: float
) -> None:
    """Whatever was measured: within the cap, something for an idle slot, no more back than there is."""
    any_ = Paces(slots, cap)
    for count, seconds in seen:
        any_.observe("f", count, seconds)
    assert 1 <= any_.lease("f") <= cap
    assert 1 <= any_.batch("f", max(1, queued)) <= min(BATCH_TASKS, max(1, queued))
    assert 0 <= any_.excess("f", queued, running) <= queued
    kept = queued - any_.excess("f", queued, running)
    pace = any_.of.get("f", Pace())
    assert kept <= slots or pace.seen < SURE_TASKS or kept * pace.mean <= 2 * KEEP_SECONDS * slots
    wish = any_.wish({"f": queued} if queued else {}, idle)
    if wish is None:
        assert queued >= idle
    else:
        assert all(want > 0 for want in wish.wants.values())
        assert wish.want >= 0
        if idle > queued:
            assert wish.want > 0


def test_where_the_cap_keeps_leases_short_nothing_is_asked_for_before_half_of_one_is_used_up() -> None:
    """Else every reply would be followed by a request for the few hundred tasks that have begun meanwhile."""
    it = paces(1e-6, tasks=100_000)
    assert it.lease("f") == CAP
    assert it.wish({"f": CAP * 6 // 10}, 0) is None
    wish = it.wish({"f": CAP * 4 // 10}, 0)
    assert wish is not None and wish.wants == {"f": CAP * 6 // 10}
    assert it.wish({}, 1) is not None
