"""A request to the master that is on its way, to wait for."""

import threading
from collections.abc import Callable

from taskyard.errors import TaskyardError
from taskyard.faults import error_of
from taskyard.messages import Fail, Reply


class Pending:
    """A request on its way. `reply` is None until there is an answer or `error` says why there is none."""

    __slots__ = ("_callback", "_waiting", "error", "frame", "reply", "sent", "seq")

    def __init__(self, seq: int, frame: bytes, callback: "Callable[[Pending], None] | None") -> None:
        self.seq = seq
        self.frame = frame
        self.sent = 0  # how often; after the first time the master may have done it already
        self.reply: Reply | None = None
        self.error: TaskyardError | None = None
        self._callback = callback
        self._waiting = threading.Lock()
        self._waiting.acquire()

    @property
    def done(self) -> bool:
        return not self._waiting.locked()

    def settle(self, reply: Reply | None, error: TaskyardError | None = None) -> None:
        """Give the answer; its callback runs first, in this thread."""
        self.reply, self.error = reply, error
        self.frame = b""
        try:
            if self._callback is not None:
                self._callback(self)
        finally:
            self._waiting.release()

    def wait(self, timeout: float | None = None) -> Reply | None:
        """Return the reply; raise the error that the master named, or why there will be none.

        None means that `timeout` seconds have passed.
        """
        if not self._waiting.acquire(timeout=-1 if timeout is None else timeout):
            return None
        self._waiting.release()
        if self.error is not None:
            raise type(self.error)(*self.error.args) from self.error
        if isinstance(self.reply, Fail):
            raise error_of(self.reply)
        return self.reply
