"""The maps of `taskyard.ranges`, against plain lists."""

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskyard.ranges import RangeMap, Runs, replacing

WIDTH = 256

ranges = st.tuples(st.integers(0, WIDTH - 1), st.integers(1, WIDTH)).map(
    lambda pair: (pair[0], min(pair[1], WIDTH - pair[0]))
)
short = st.tuples(st.integers(0, WIDTH - 1), st.just(1))
sets = st.tuples(ranges | short, st.integers(0, 4))


def runs_of(plain: list[int], first: int = 0, count: int = WIDTH) -> list[tuple[int, int, int]]:
    """The runs of a list as `runs` gives them."""
    found, at = [], first
    for value, group in groupby(plain[first : first + count]):
        length = len(list(group))
        found.append((at, length, value))
        at += length
    return found


def counts_of(plain: list[int]) -> dict[int, int]:
    return {value: plain.count(value) for value in set(plain)}


def check(found: RangeMap, plain: list[int]) -> None:
    assert list(found.runs(0, WIDTH)) == runs_of(plain)
    assert found.counts == counts_of(plain)
    assert found.image() == bytes(plain)
    if not found.dense:
        assert len(runs_of(plain)) <= WIDTH // 32


@settings(deadline=None)
@given(st.lists(sets, max_size=60), ranges)
def test_a_range_map_equals_a_list(steps: list[tuple[tuple[int, int], int]], window: tuple[int, int]) -> None:
    """Runs or bytes, every question has the answer of a plain list."""
    found, plain = RangeMap(WIDTH), [0] * WIDTH
    for (first, count), value in steps:
        old = found.set(first, count, value)
        assert dict(old) == counts_of(plain[first : first + count])
        plain[first : first + count] = [value] * count
        check(found, plain)
    first, count = window
    assert list(found.runs(first, count)) == runs_of(plain, first, count)
    for value in range(6):
        expected = plain.index(value, first) if value in plain[first:] else -1
        assert found.find(value, first) == expected


@settings(deadline=None)
@given(st.lists(sets, max_size=60), st.sets(st.integers(0, 4)), st.integers(0, 6))
def test_translate_changes_every_index(
    steps: list[tuple[tuple[int, int], int]], values: set[int], new: int
) -> None:
    found, plain = RangeMap(WIDTH), [0] * WIDTH
    for (first, count), value in steps:
        found.set(first, count, value)
        plain[first : first + count] = [value] * count
    expected = {value: many for value, many in counts_of(plain).items() if value in values and value != new}
    assert dict(found.translate(replacing(values, new))) == expected
    check(found, [new if value in values else value for value in plain])


@settings(deadline=None)
@given(st.lists(sets, max_size=60))
def test_what_was_dumped_comes_back(steps: list[tuple[tuple[int, int], int]]) -> None:
    found = RangeMap(WIDTH)
    for (first, count), value in steps:
        found.set(first, count, value)
    again, loaded = RangeMap(WIDTH), RangeMap(WIDTH)
    again.set(0, 9, 3)
    again.restore(*found.dump())
    loaded.load(found.image())
    check(again, list(found.image()))
    check(loaded, list(found.image()))


@settings(deadline=None)
@given(st.lists(st.tuples(ranges, st.sampled_from([0, 1, 2**40 + 1, 2**63])), max_size=40))
def test_wide_runs_equal_a_list(steps: list[tuple[tuple[int, int], int]]) -> None:
    found, plain = Runs(WIDTH, wide=True), [0] * WIDTH
    for (first, count), value in steps:
        found.set(first, count, value)
        plain[first : first + count] = [value] * count
        assert list(found.runs(0, WIDTH)) == runs_of(plain)
        assert len(found) == len(runs_of(plain))
    again = Runs(WIDTH, wide=True)
    again.load(*found.dump())
    assert list(again.runs(0, WIDTH)) == runs_of(plain)


def test_many_runs_become_bytes_and_few_become_runs_again() -> None:
    found = RangeMap(65536)
    for index in range(0, 4096, 2):
        found.set(index, 1, 1)
    assert found.dense
    found.set(0, 65536, 2)
    assert not found.dense
    assert found.counts == {2: 65536}


def test_setting_while_iterating_is_seen_from_the_next_run_on() -> None:
    found = RangeMap(64)
    found.set(10, 10, 1)
    seen = []
    for first, count, value in found.runs(0, 64):
        seen.append((first, count, value))
        found.set(first, count, 2)
    assert seen == [(0, 10, 0), (10, 10, 1), (20, 44, 0)]


@pytest.mark.parametrize("index", [0, 1, 65535])
def test_the_ends_of_the_width(index: int) -> None:
    found = RangeMap(65536)
    found.set(index, 1, 7)
    assert found.run(index) == (7, index + 1)
    assert found.find(7) == index
