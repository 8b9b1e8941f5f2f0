"""How a rate and a round trip are measured: the same for a yard and for what it is compared with."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from taskyard.client import Yard


class Side(Protocol):
    """Something that calls a function of one number on its workers."""

    def many(self, inputs: Sequence[int]) -> list[Any]:
        """All results, in any order."""

    def one(self, n: int) -> Any:
        """The result of one task, submitted when nothing else is under way."""


def rate(side: Side, inputs: Sequence[int]) -> tuple[float, list[Any]]:
    """(tasks a second from the first input to the last result in hand, all results)."""
    begun = time.perf_counter()
    results = side.many(inputs)
    return len(inputs) / (time.perf_counter() - begun), results


def singles(side: Side, rounds: int) -> list[float]:
    """Seconds that one task took from submission to result, one after another."""
    taken = []
    for n in range(rounds):
        begun = time.perf_counter()
        side.one(n)
        taken.append(time.perf_counter() - begun)
    return taken


class YardSide:
    """A yard that runs already; `clear` deletes the jobs that measuring has made."""

    def __init__(self, yard: "Yard", function: str) -> None:
        from taskyard.values import dumps

        self._yard = yard
        self._function = function
        self._dumps = dumps
        self._jobs: list[str] = []
        self._line = yard.open(function, name="bench")
        self._outcomes = yard.job(self._line.job).results(follow=True)

    def many(self, inputs: Sequence[int]) -> list[Any]:
        job = self._yard.submit(self._function, inputs, name="bench")
        self._jobs.append(job.id)
        return list(job.values())

    def one(self, n: int) -> Any:
        self._line.put(self._dumps(n))
        self._line.flush()
        return next(self._outcomes).value

    def clear(self) -> None:
        self._line.close()
        for job in (self._line.job, *self._jobs):
            self._yard.job(job).wait()
            self._yard.delete(job)
