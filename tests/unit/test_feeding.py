"""How many inputs are taken at a time, by how they come."""

from collections.abc import Callable, Collection, Iterator

import pytest

from taskyard import batch, feeding, values
from taskyard.submitter import COUNT


class Sink:
    """Takes what a submitter would, and remembers by how many at a time it came."""

    def __init__(self, known: int = 0) -> None:
        self.next = known
        self.payloads: list[bytes] = []
        self.sizes: list[int] = []

    def put(self, payload: bytes) -> int:
        return self.extend([payload])

    def extend(self, payloads: list[bytes]) -> int:
        self.payloads += payloads
        self.sizes.append(len(payloads))
        return 0

    def inputs(self) -> list[object]:
        return [values.loads(payload) for payload in self.payloads]


class Made(Collection[int]):
    """A collection that makes each item when it is asked for."""

    def __init__(self, make: Callable[[int], int], count: int) -> None:
        self.make, self.count = make, count

    def __iter__(self) -> Iterator[int]:
        return map(self.make, range(self.count))

    def __len__(self) -> int:
        return self.count

    def __contains__(self, item: object) -> bool:
        raise NotImplementedError


def feed(sink: Sink, inputs: object, calls: bool = False) -> Sink:
    feeding.feed(sink, inputs, calls, values.LIMIT)  # type: ignore[arg-type]
    return sink


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that feeding sees: one number, to be changed."""
    now = [0.0]
    monkeypatch.setattr(feeding.time, "monotonic", lambda: now[0])
    return now


def test_a_list_is_taken_in_chunks_but_for_the_first_few(clock):
    sink = feed(Sink(), range(100_000))
    assert sink.inputs() == list(range(100_000))
    assert sink.sizes[0] == 64
    assert max(sink.sizes) <= COUNT
    assert len(sink.sizes) < 12


def test_large_values_are_taken_few_at_a_time(clock):
    sink = feed(Sink(), [b"x" * (batch.MAX_BYTES // 2)] * 100)
    assert set(sink.sizes[1:]) == {1}


def test_a_quick_collection_is_taken_as_a_list_is(clock):
    sink = feed(Sink(), Made(lambda n: n, 100_000))
    assert sink.inputs() == list(range(100_000))
    assert len(sink.sizes) < 110


def test_a_slow_collection_is_taken_one_by_one(clock):
    def make(n: int) -> int:
        clock[0] += 1.0 if n < 50 or n > 5000 else 0.0
        return n

    sink = feed(Sink(), Made(make, 8000))
    assert sink.inputs() == list(range(8000))
    assert set(sink.sizes[:50]) == {1}
    assert max(sink.sizes) > 500
    assert set(sink.sizes[-20:]) == {1}


def test_an_iterator_is_taken_one_by_one():
    assert set(feed(Sink(), iter(range(100))).sizes) == {1}


def test_what_the_job_has_is_left_out():
    for inputs in (range(10), iter(range(10))):
        assert feed(Sink(known=7), inputs).inputs() == [7, 8, 9]


def test_calls_are_one_by_one():
    sink = feed(Sink(), [((1,), {"a": 2}), ([3], {})], calls=True)
    assert [values.parse(payload) for payload in sink.payloads] == [(None, (1,), {"a": 2}), (None, (3,), {})]
