"""Submitting: payloads in, chunks out, as large as the traffic makes them.

The first payload leaves at once, as a chunk of its own. While chunks are on their way, what is put
gathers into the next, which leaves when an answer comes or when it is full. So a slow source has
each task on its way at once, a fast one fills its chunks, and no clock decides which it is. At most
WINDOW chunks are unanswered; beyond that `put` waits, which is how the master holds back a submitter
whose job has a full backlog.
"""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate

import taskyard
from taskyard import batch
from taskyard.clock import Deadline
from taskyard.connection import Connection
from taskyard.errors import GapError, ProtocolError, TaskyardError, UsageError
from taskyard.faults import error_of
from taskyard.messages import Accepted, Chunk, Close, Fail, Ok, Open, Opened
from taskyard.pending import Pending

WINDOW = 12  # chunks without an answer
COUNT = 20_000  # tasks in a chunk
_MOST = batch.MAX_BYTES  # bytes in a chunk
_OFFSET = 4  # bytes that a value costs a block besides itself
_GOODBYE = 3.0  # seconds for telling the master that a submission breaks off


class _Sent:
    """A chunk that the master has not accepted yet, or that waits for one before it."""

    __slots__ = ("accepted", "block", "count", "first", "gap", "sure")

    def __init__(self, first: int, count: int, block: bytes) -> None:
        self.first = first
        self.count = count
        self.block = block
        self.accepted = False
        self.gap = False  # the master found that tasks before it are missing
        self.sure = False  # it was sent when all before it had been accepted


class Submitter:
    """Feeds one open job; safe for use by many threads.

    `fresh` says that the job's id was never used: nothing waits for the answer to Open then.
    `failed` is called once, in the reading thread, when the submission has failed for good: for those
    who have put all they had and wait for results.
    """

    def __init__(
        self,
        connection: Connection,
        request: Open,
        *,
        fresh: bool = False,
        ended: "Callable[[Submitter], None] | None" = None,
    ) -> None:
        self.failed: Callable[[TaskyardError], None] | None = None
        self.job = request.job
        self.workers = -1  # joined workers that can run the function, once that is known
        self._connection = connection
        self._ended = ended
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # callers in a wait: they send what is to be sent when they wake
        self._buffer: list[bytes] = []
        self._bytes = _OFFSET  # of the block that the buffer would make
        self._sent: deque[_Sent] = deque()  # in order of index
        self._asked = 0  # chunks whose answer is out
        self._next = 0  # index of the next task that is put
        self._accepted = 0  # tasks that the master has answered for
        self._error: TaskyardError | None = None
        self._closed = False
        self._opening = connection.send(request, self._opened)
        if not fresh:
            self._next = self._accepted = self.opened().next

    def opened(self) -> Opened:
        """Return the master's answer to Open, once it is there; raises the error if there is one."""
        reply = self._opening.wait()
        if not isinstance(reply, Opened):
            raise ProtocolError(f"the master answered Open with {type(reply).__name__}")
        return reply

    @property
    def next(self) -> int:
        """Index of the task that is put next; at first, how many the job had already."""
        return self._next

    def put(self, payload: bytes) -> int:
        """Submit one task and return its index; it is accepted once `flush` has returned.

        Waits while the master holds us back. Raises the error of the submission, for instance
        StorageError; no more is taken then.
        """
        with self._lock:
            index = self._next
            taken = not self._closed
            if taken:
                self._next = index + 1
                buffer = self._buffer
                buffer.append(payload)
                self._bytes += len(payload) + _OFFSET
                if not self._sent or self._bytes > _MOST or len(buffer) >= COUNT:
                    self._relieve()
        if self._error is not None or not taken:
            self._refuse()
        return index

    def extend(self, payloads: Sequence[bytes]) -> int:
        """Submit many tasks, as `put`; return the index of the first."""
        with self._lock:
            index = self._next
            taken = not self._closed
            if taken:
                self._next = index + len(payloads)
                self._buffer += payloads
                self._bytes += sum(map(len, payloads)) + _OFFSET * len(payloads)
                self._relieve()
        if self._error is not None or not taken:
            self._refuse()
        return index

    def flush(self) -> None:
        """Return once everything that was put is accepted; raises the error of the submission."""
        with self._lock:
            self._wait_for(lambda: not self._buffer and not self._sent)
        if self._error is not None:
            self._refuse()
        self.opened()

    def close(self, reason: str = "") -> int:
        """End the job and return its total, once everything is accepted.

        With a `reason` it is closed as incomplete. Raises the error of the submission.
        """
        with self._lock:
            self._wait_for(lambda: not self._buffer)
            self._closed = True
            total = self._next
        if self._error is not None:
            self._refuse()
        request = Close(0, self.job, total, reason)
        try:  # on the heels of the last chunks, so that one commit does for all
            self._connection.ask(request, Ok)
        except TaskyardError:
            self.flush()  # if one of them failed, that is the error
            self._connection.ask(request, Ok)
        self.flush()
        self._leave()
        return total

    def abandon(self, reason: str, keep: bool = True) -> None:
        """Close the job as incomplete as far as that works now; never raises, and takes seconds at most.

        `keep`: what was put is still submitted.
        """
        deadline = Deadline.after(_GOODBYE)
        with self._lock:
            if self._closed and self._error is None and not self._sent:
                return
            self._closed = True
            if not keep:
                self._unput()
            self._wait_for(lambda: not self._buffer and not self._asked, deadline)
            self._unput()
            total = self._accepted
        with suppress(TaskyardError):
            self._connection.ask(Close(0, self.job, total, reason), Ok, max(0.1, deadline.left()))
        self._leave()

    # ------------------------------------------------------------ with the lock held

    def _relieve(self) -> None:
        """Send what should leave, and wait while there is more than may be on its way."""
        self._pump()
        if self._full:
            self._wait_for(lambda: not self._full, all_of_it=False)

    @property
    def _full(self) -> bool:
        return self._bytes > _MOST or len(self._buffer) >= COUNT

    def _wait_for(
        self, reached: Callable[[], bool], deadline: Deadline | None = None, all_of_it: bool = True
    ) -> None:
        """Send and wait until that is reached, there is an error, or the deadline has passed."""
        self._waiting += 1
        try:
            while True:
                self._pump(all_of_it)
                if reached() or (self._error is not None and not (deadline and self._asked)):
                    return
                if deadline and deadline.passed:
                    return
                self._changed.wait(deadline.timeout() if deadline else None)
        finally:
            self._waiting -= 1

    def _pump(self, all_of_it: bool = False) -> None:
        """Send chunks: the first at once, full ones while the window is open, the rest if asked to."""
        while self._buffer and self._error is None:
            if self._sent and (len(self._sent) >= WINDOW or not (all_of_it or self._full)):
                return
            values = self._cut()
            chunk = _Sent(self._next - len(self._buffer) - len(values), len(values), batch.pack(values))
            chunk.sure = not self._sent
            self._sent.append(chunk)
            self._ask(chunk)

    def _cut(self) -> list[bytes]:
        """Take from the buffer what makes one chunk: at most COUNT values and batch.MAX_BYTES, or one."""
        values = self._buffer
        if self._bytes <= _MOST and len(values) <= COUNT:
            self._buffer, self._bytes = [], _OFFSET
            return values
        ends = list(accumulate((len(value) + _OFFSET for value in values[:COUNT]), initial=_OFFSET))
        count = max(1, bisect_right(ends, _MOST) - 1)
        self._bytes -= ends[count] - _OFFSET
        self._buffer = values[count:]
        return values[:count]

    def _unput(self) -> None:
        """Forget what was put and not sent."""
        self._next -= len(self._buffer)
        self._buffer, self._bytes = [], _OFFSET

    def _ask(self, chunk: _Sent) -> None:
        request = Chunk(
            0, self.job, chunk.first, chunk.count, batch.digest(chunk.block), chunk.block,
            taskyard.inside_task,
        )  # fmt: skip
        self._asked += 1
        try:
            self._connection.send(request, partial(self._answered, chunk))
        except TaskyardError as error:
            self._asked -= 1
            self._error = error

    # ------------------------------------------------------------ in the reading thread

    def _opened(self, pending: Pending) -> None:
        reply = pending.reply
        with self._lock:
            if isinstance(reply, Opened):
                self.workers = reply.workers
            elif self._error is None:
                self._error = _error_in(pending)
            self._changed.notify_all()
        self._report()

    def _answered(self, chunk: _Sent, pending: Pending) -> None:
        with self._lock:
            self._asked -= 1
            reply = pending.reply
            if isinstance(reply, Accepted):
                chunk.accepted = True
                chunk.block = b""
            elif isinstance(reply, Fail) and reply.error == GapError.__name__ and not chunk.sure:
                chunk.gap = True
            elif self._error is None:
                self._error = _error_in(pending)
            while self._sent and self._sent[0].accepted:
                first = self._sent.popleft()
                self._accepted = first.first + first.count
            if self._sent and self._sent[0].gap and self._error is None:
                # It was judged while one before it had no place yet; now all of those have.
                self._sent[0].sure = True
                for gap in [one for one in self._sent if one.gap]:
                    gap.gap = False
                    self._ask(gap)
            if self._waiting:
                self._changed.notify_all()
            else:
                self._pump()
        self._report()

    def _report(self) -> None:
        if self._error is not None and self.failed is not None:
            failed, self.failed = self.failed, None
            failed(self._error)

    # ------------------------------------------------------------ without the lock

    def _refuse(self) -> None:
        """Raise why no more is taken: a refused Open before what followed from it."""
        if self._error is None:
            raise UsageError(f"the submission of job {self.job} is closed: submit a new job")
        self.opened()
        raise type(self._error)(*self._error.args) from self._error

    def _leave(self) -> None:
        if self._ended is not None:
            self._ended(self)


def _error_in(pending: Pending) -> TaskyardError:
    if pending.error is not None:
        return pending.error
    if isinstance(pending.reply, Fail):
        return error_of(pending.reply)
    return ProtocolError(f"the master answered a submission with {type(pending.reply).__name__}")
