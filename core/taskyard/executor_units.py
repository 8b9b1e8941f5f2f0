"""What waits in an executor's line: calls and pieces of maps, as the engine sees them."""

from concurrent.futures import BrokenExecutor, Future
from typing import Any, Protocol

from taskyard.errors import TaskyardError


class BrokenYardError(TaskyardError, BrokenExecutor):
    """The yard is gone for good, or its job was ended by somebody else: nothing more will come."""


class Unit(Protocol):
    """Neighbouring tasks in line. They get neighbouring indices; `base` is that of the first, or -1."""

    base: int
    cost: int  # bytes of one of them
    left: int  # of them in line

    def take(self, count: int) -> list[bytes]:
        """The payloads of the next `count` tasks, which run from now on; [] if they were cancelled."""

    def fill(self, at: int, values: list[Any]) -> None:
        """Results of some of them, from the at-th on."""

    def fail(self, at: int, error: BaseException) -> None:
        """The at-th raised."""

    def cancel(self) -> None:
        """What is still in line will not run."""

    def abort(self, error: BaseException) -> None:
        """What is still in line will not run, because of this."""


class Source(Protocol):
    """A map whose inputs are not all read yet."""

    def read_rest(self, wait: bool) -> None:
        """Read them and put them in line; with `wait`, no faster than the line gets shorter."""


class Call:
    """One call with its future."""

    __slots__ = ("base", "cost", "future", "left", "payload")

    def __init__(self, payload: bytes) -> None:
        self.base = -1
        self.payload = payload
        self.cost = len(payload)
        self.left = 1
        self.future: Future[Any] = Future()

    def take(self, count: int) -> list[bytes]:
        self.left = 0
        payload, self.payload = self.payload, b""
        return [payload] if self.future.set_running_or_notify_cancel() else []

    def fill(self, at: int, values: list[Any]) -> None:
        self.future.set_result(values.pop())

    def fail(self, at: int, error: BaseException) -> None:
        self.future.set_exception(error)

    def cancel(self) -> None:
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()  # tells those who wait

    def abort(self, error: BaseException) -> None:
        if self.take(1):
            self.fail(0, error)


def breakage(error: TaskyardError) -> BrokenYardError:
    broken = BrokenYardError(str(error))
    broken.__cause__ = error
    return broken
