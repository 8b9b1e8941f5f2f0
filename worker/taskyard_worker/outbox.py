"""Outcomes on their way to the master: gathered, sent, and kept until they are answered.

The first outcome leaves at once, for somebody may wait for it. While it is on its way
others gather, and leave after a few milliseconds as a second message, so that the
master's commits overlap with the work; a third waits for an answer. What has no answer
when the connection ends goes out again on the next one.
"""

from collections.abc import Iterable, Iterator

from taskyard import batch
from taskyard.messages import Held, Outcome

FLIGHTS = 2  # messages without an answer
GATHER_SECONDS = 0.003  # before the second of them leaves
GATHER_BYTES = 256 << 10  # or so much waits
MESSAGE_BYTES = 4 << 20  # in one message, unless one value alone is larger
_EACH = 64  # bytes that an outcome costs beside its block
_MERGED_SECONDS = 0.01  # longer tasks keep a row of their own, with their own start and duration


class Outbox:
    """All outcomes that the master has not answered for."""

    def __init__(self) -> None:
        self._waiting: list[Outcome] = []
        self._bytes = 0
        self._since = 0.0  # when the first of those began to wait
        self._flying: dict[int, list[Outcome]] = {}
        self._ticket = 0

    def add(self, outcomes: Iterable[Outcome], now: float) -> None:
        """Take outcomes in; `now` is monotonic."""
        if not self._waiting:
            self._since = now
        for outcome in outcomes:
            for part in _split(outcome):
                self._waiting.append(part)
                self._bytes += len(part.block) + _EACH

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._flying

    def delay(self, now: float) -> float | None:
        """Seconds until something may be sent; None while it depends on an answer, or nothing waits."""
        if not self._waiting or len(self._flying) >= FLIGHTS:
            return None
        if not self._flying or self._bytes >= GATHER_BYTES:
            return 0.0
        return max(0.0, self._since + GATHER_SECONDS - now)

    def take(self, now: float) -> tuple[int, list[Outcome]]:
        """A ticket, and the outcomes to send; once `delay` is 0."""
        taken: list[Outcome] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].block) <= MESSAGE_BYTES):
            outcome = self._waiting.pop(0)
            size += len(outcome.block) + _EACH
            taken.append(outcome)
        self._bytes -= size
        self._since = now
        self._ticket += 1
        merged = _merged(taken)
        self._flying[self._ticket] = merged
        return self._ticket, merged

    def answered(self, ticket: int) -> None:
        self._flying.pop(ticket, None)

    def back(self, ticket: int) -> None:
        """It was not taken: it goes out again, before all others."""
        outcomes = self._flying.pop(ticket, [])
        self._waiting[:0] = outcomes
        self._bytes += sum(len(outcome.block) + _EACH for outcome in outcomes)

    def back_all(self) -> None:
        """The connection has ended."""
        for ticket in sorted(self._flying, reverse=True):
            self.back(ticket)

    def held(self) -> Iterator[Held]:
        """The ranges of all of them: until they are answered, they are held."""
        for outcomes in (self._waiting, *self._flying.values()):
            for outcome in outcomes:
                yield Held(outcome.lease, outcome.job, outcome.first, outcome.count)


def _split(outcome: Outcome) -> Iterator[Outcome]:
    """The outcome in parts that fit into a message."""
    while len(outcome.block) > MESSAGE_BYTES and outcome.count > 1:
        count = min(outcome.count - 1, batch.take(outcome.block, outcome.count, MESSAGE_BYTES))
        yield _part(outcome, 0, count)
        outcome = _part(outcome, count, outcome.count)
    yield outcome


def _part(outcome: Outcome, start: int, stop: int) -> Outcome:
    each = outcome.seconds / outcome.count
    return Outcome(
        outcome.lease, outcome.job, outcome.first + start, stop - start, outcome.kind,
        outcome.started + each * start, each * (stop - start),
        batch.cut(outcome.block, outcome.count, start, stop),
    )  # fmt: skip


def _merged(outcomes: list[Outcome]) -> list[Outcome]:
    """Runs that follow one another under one lease as one, in fewer and larger rows."""
    if len(outcomes) < 2:
        return outcomes
    runs: list[list[Outcome]] = []
    size = 0
    for outcome in sorted(outcomes, key=lambda o: (o.lease, o.first)):
        size += len(outcome.block)
        if runs and size <= GATHER_BYTES and _follows(runs[-1][-1], outcome):
            runs[-1].append(outcome)
        else:
            runs.append([outcome])
            size = len(outcome.block)
    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _follows(one: Outcome, other: Outcome) -> bool:
    quick = max(one.seconds / one.count, other.seconds / other.count) < _MERGED_SECONDS
    return (
        quick
        and (one.lease, one.job, one.kind) == (other.lease, other.job, other.kind)
        and one.first + one.count == other.first
    )


def _joined(run: list[Outcome]) -> Outcome:
    first = run[0]
    block = batch.join((outcome.block, outcome.count) for outcome in run) if first.block else b""
    return Outcome(
        first.lease, first.job, first.first, sum(outcome.count for outcome in run), first.kind,
        min(outcome.started for outcome in run), sum(outcome.seconds for outcome in run), block,
    )  # fmt: skip
