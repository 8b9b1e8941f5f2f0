"""The load of a chaos run: one thread submits and notes what is accepted, one reads what is recorded."""

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskyard.errors import StorageError, TaskyardError
from taskyard.messages import Options, Row
from taskyard.values import call, loads_block
from taskyard_ctl.chaos.oracle import Log
from taskyard_ctl.chaos.probe import Tasks

if TYPE_CHECKING:
    from taskyard.client import Yard

AHEAD = 600  # tasks submitted and not read yet, at most
TICK_S = 0.02


class Load:
    """Submits tasks until `stop`, or until there are `most`; everything goes on through a lost master."""

    def __init__(
        self, yard: "Yard", function: str, log: Path, tasks: Tasks, seed: int, most: int = 0,
        seconds: float = 0.0, options: Options | None = None,
    ) -> None:  # fmt: skip
        self.job = ""
        self.submitted = 0
        self.read = 0
        self._yard = yard
        self._log = Log(log)
        self._tasks = tasks
        self._random = random.Random(f"load {seed}")
        self._most = most
        self._pace = most / seconds if most and seconds else 0.0  # tasks a second, to spread them out
        self._ahead = AHEAD if not self._pace else 1 << 60
        self._error: BaseException | None = None
        self.refused = 0  # how often the master could not take tasks, as on a full disk
        self._open = partial(
            yard.open,
            function,
            name="chaos",
            job=secrets.token_hex(6),
            options=options or Options(retention=3600.0),
        )
        self._stop = threading.Event()
        self._again()
        self.job = self._submitter.job
        self._feeding = threading.Thread(target=self._guard, args=(self._feed,), name="chaos load")
        self._reading = threading.Thread(target=self._guard, args=(self._read,), name="chaos results")
        self._reading.daemon = self._feeding.daemon = True  # a master that stays away must not keep us

    def start(self) -> None:
        self._feeding.start()
        self._reading.start()

    def finish(self, seconds: float) -> bool:
        """Wait for the end of everything; false if that took longer than `seconds`.

        Without a number to be submitted, no more is.
        """
        if not self._most:
            self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in (self._feeding, self._reading):
            thread.join(max(0.1, deadline - time.monotonic()))
        ended = not (self._feeding.is_alive() or self._reading.is_alive())
        self._log.close()  # a thread that is left may go on: what it hears is no part of the run
        if self._error is not None:
            raise self._error
        return ended

    @property
    def failed(self) -> bool:
        return self._error is not None

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised by finish
            self._error = self._error or error

    def _feed(self) -> None:
        begun = time.monotonic()
        while not self._stop.is_set() and not (self._most and self.submitted >= self._most):
            room = self._ahead - (self.submitted - self.read)
            if self._pace:
                room = min(room, int((time.monotonic() - begun) * self._pace) + 1 - self.submitted)
            count = min(self._random.randint(1, 60), room, (self._most or 1 << 60) - self.submitted)
            if count < 1:
                self._stop.wait(TICK_S)
                continue
            first = self.submitted
            self._log.tried(first, count)
            try:
                for n in range(first, first + count):
                    self._submitter.put(call((self._tasks.argument(n),), {}))
                self._submitter.flush()
                self.submitted = first + count
            except StorageError:
                self.refused += 1
                self.submitted = self._again()
            self._log.accepted(self.submitted)
        self._closed()

    def _again(self) -> int:
        """Come back to the job once that is possible; returns how many tasks it has by then."""
        while True:
            try:
                self._submitter = self._open()
                return self._submitter.next
            except StorageError:
                self.refused += 1
                self._stop.wait(TICK_S)

    def _closed(self) -> None:
        while True:
            try:
                self._submitter.close()
                return
            except StorageError:
                self.refused += 1
                self._again()

    def _read(self) -> None:
        for row in self._yard.job(self.job).rows(follow=True):
            self._log.read(row)
            self.read += row.count


def values_of(row: Row) -> Iterable[Any]:
    """The results in a row of completed tasks."""
    return loads_block(row.block, row.count)


def rest(yard: "Yard", job: str, seconds: float) -> bool:
    """Wait until a job has come to rest; false if it has not within `seconds`."""
    try:
        yard.job(job).wait(seconds)
    except (TimeoutError, TaskyardError):
        return False
    return True
