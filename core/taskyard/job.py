"""A job as its submitter sees it: progress, results, and what can be done about it."""

from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from taskyard import batch, messages
from taskyard.allow import Allow
from taskyard.clock import Deadline
from taskyard.connection import Connection
from taskyard.errors import PayloadError, ProtocolError, UnknownJobError
from taskyard.jsonable import name_of
from taskyard.messages import Failure, JobStatus, Results, Row, Rows
from taskyard.pending import Pending
from taskyard.values import dumps, load_exception, loads, loads_block

if TYPE_CHECKING:
    from taskyard.client import Yard

HOLD = 20.0  # seconds that the master may hold an answer while there is nothing new
SPACE = 1 << 20  # bytes of rows in one answer
_BEYOND = 1 << 62  # a cursor that no row reaches


class Outcome(msgspec.Struct):
    """What became of one task.

    index     its place in the job, from 0
    state     completed or dead
    result    what the function returned; None where there is an error
    error     why the task is dead, or why its result cannot be read here (its class is not allowed, say):
              reason, type, message, traceback; else None
    attempts  executions that the task answers for
    worker, host, started (Unix seconds), seconds
              where and when; of tasks that ran in one go it is their share of the whole
    """

    index: int
    state: Literal["completed", "dead"]
    result: Any
    error: Failure | None
    attempts: int
    worker: str
    host: str
    started: float
    seconds: float
    allow: Allow

    @property
    def value(self) -> Any:
        """The result; raises the task's exception where there is none."""
        if self.error is not None:
            raise load_exception(self.error, self.allow)
        return self.result

    @property
    def exception(self) -> Exception | None:
        """What `value` raises, or None."""
        return None if self.error is None else load_exception(self.error, self.allow)


class Job:
    """One job of a yard. Nothing is kept here: make one for any id, at any time."""

    def __init__(self, yard: "Yard", job: str, workers: int = -1) -> None:
        self.id = job
        self.workers = workers  # joined workers that could run it when it was submitted; -1: unknown
        self._yard = yard

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    # ------------------------------------------------------------ progress

    def status(self) -> JobStatus:
        """The job in counts; raises UnknownJobError if it is not there (any more)."""
        jobs = self._yard.status(self.id).jobs
        if not jobs:
            raise UnknownJobError(f"there is no job {self.id!r}: see 'taskyard status'")
        return jobs[0]

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Return the job's status once nothing is unfinished and nothing can be added.

        Raises TimeoutError after `timeout` seconds.
        """
        deadline = Deadline.after(timeout)
        while True:
            request = Results(0, self.id, _BEYOND, failed=True, wait=min(HOLD, deadline.left()))
            if self._yard.call(request, Rows).done:
                return self.status()
            if deadline.passed:
                raise TimeoutError(f"job {self.id} was not finished within {timeout:g} s")

    # ------------------------------------------------------------ results

    def results(
        self, follow: bool = False, ordered: bool = False, failed: bool = False, cursor: int = 0
    ) -> Iterator[Outcome]:
        """Outcomes as they were recorded, or by index with `ordered`; reading consumes nothing.

        follow   go on until the job is closed and nothing is unfinished; else end with what is there
        failed   dead tasks only
        cursor   start after this place, a `Row.at`; with `ordered`, at this index

        A requeued task has an outcome for each of its rounds; with `ordered` only the newest.
        """
        allow = self._yard.allow
        for row in self.rows(follow, ordered, failed, cursor):
            yield from outcomes(row, allow)

    def values(self, follow: bool = True, ordered: bool = True) -> Iterator[Any]:
        """Results alone, by index unless told otherwise, and quicker; a dead task raises its exception."""
        allow = self._yard.allow
        for row in self.rows(follow, ordered):
            if row.state == "completed":
                yield from loads_block(row.block, row.count, allow)
            else:
                for outcome in outcomes(row, allow):
                    yield outcome.value

    def rows(
        self, follow: bool = False, ordered: bool = False, failed: bool = False, cursor: int = 0
    ) -> Iterator[Row]:
        """The records themselves, runs of outcomes in one block each, as `results` selects them.

        The next ones are asked for while these are being used.
        """
        connection = self._yard.connection
        pending = self._ask(connection, follow, ordered, failed, cursor)
        try:
            while True:
                rows = pending.wait()
                if not isinstance(rows, Rows):
                    raise ProtocolError(f"the master answered Results with {type(rows).__name__}")
                if rows.done and not rows.rows:
                    return
                if not rows.rows and not follow:
                    return
                last = rows.done
                if not last:
                    pending = self._ask(connection, follow, ordered, failed, rows.cursor)
                yield from rows.rows
                if last:
                    return
        finally:
            if not pending.done:
                connection.forget(pending)

    def _ask(self, connection: Connection, follow: bool, ordered: bool, failed: bool, cursor: int) -> Pending:
        return connection.send(Results(0, self.id, cursor, ordered, failed, HOLD if follow else 0.0, SPACE))

    # ------------------------------------------------------------ verbs

    def cancel(self) -> None:
        """End everything unfinished, for good."""
        self._yard.cancel(self.id)

    def requeue(self, first: int = 0, count: int = -1) -> int:
        """Give dead tasks another round; returns how many."""
        return self._yard.requeue(self.id, first, count)

    def delete(self) -> None:
        """Forget the job, its tasks and its results."""
        self._yard.delete(self.id)


def outcomes(row: Row, allow: Allow) -> Iterator[Outcome]:
    """The outcomes of a row, one a task."""
    count = row.count
    indices = range(row.first, row.first + count)
    share = row.seconds / count
    started = [row.started + k * share for k in range(count)] if count > 1 else [row.started]
    results: Any = repeat(None)
    errors: Any = repeat(None)
    if row.state == "dead":
        errors = map(messages.decode_failure, batch.unpack(row.block, count))
    else:
        try:
            results = loads_block(row.block, count, allow)
        except PayloadError:
            results, errors = zip(*map(_readable, batch.unpack(row.block, count), repeat(allow)), strict=True)
    return map(
        Outcome, indices, repeat(row.state), results, errors, repeat(row.attempts),
        repeat(row.worker), repeat(row.host), started, repeat(share), repeat(allow),
    )  # fmt: skip


def _readable(data: bytes, allow: Allow) -> tuple[Any, Failure | None]:
    try:
        return loads(data, allow), None
    except PayloadError as error:
        return None, Failure("refused", name_of(type(error)), str(error), exception=dumps(error))
