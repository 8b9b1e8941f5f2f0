"""The two queues of plain peers: `queue.Queue`, as stdlib clients know it, on top of the service.

All names of one kind are aliases of one queue. A get on the task queue is a lease bound to its connection;
a put on the result queue settles the oldest lease of that connection that has no result yet; a connection
that ends gives the rest back. `Queues` is one for the server, `Holder` and its two queues are one for each
connection. Values are pickles here, made by our own encoder from what our own decoder took.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any

from taskyard import plain
from taskyard.errors import PayloadError
from taskyard.settings import Settings
from taskyard_master.limits import Complaints
from taskyard_master.peers import Peer, Verbs

log = logging.getLogger(__name__)

METHODS = ("empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "task_done")
MANY = 100  # leases of a connection that never puts: a warning names it
CAP = 1000  # leases of one connection
CAP_SECONDS = 30.0  # a get beyond the cap does not wait longer, because nothing can come of it

KNOWN = 256  # requests without arguments, and of less bytes, that are remembered

Request = tuple[Any, str, tuple[Any, ...], dict[str, Any]]  # queue, method, args, kwds
Answer = bytes | Coroutine[Any, Any, bytes]  # a pickled value, at once or after waiting

_NONE = plain.dumps(None)
_TRUE = plain.dumps(True)
_FALSE = plain.dumps(False)


def _patience(block: Any, timeout: Any) -> float | None:
    """How long to wait, None for ever: what `queue.Queue` makes of these two, its errors included."""
    if not block:
        return 0.0
    if timeout is None:
        return None
    if timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    if timeout != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    return None if timeout > threading.TIMEOUT_MAX else float(timeout)


class Queues:
    """What the queues of all connections share."""

    def __init__(self, service: Verbs, settings: Settings) -> None:
        self.service = service
        self.tasks = frozenset(settings.plain_tasks)
        self.names = self.tasks | frozenset(settings.plain_results)
        self.allow = frozenset(settings.allow)
        self.maxsize: int = settings.plain_maxsize
        self.payload: int = settings.payload
        self.delivered_is_done = settings.plain_ack == "get"
        self.known: dict[bytes, Request] = {}  # by the bytes of the request
        self.complaints = Complaints(log)
        self._empty = asyncio.Event()

    def too_large(self, size: int) -> PayloadError:
        return PayloadError(
            f"a value of {size} bytes is more than the {self.payload} of TASKYARD_PAYLOAD:"
            " put the data on shared storage and send its path"
        )

    async def results_taken(self) -> None:
        """Return when no result waits."""
        while self.service.plain_counts()[2]:
            await self._empty.wait()

    def took(self) -> None:
        """A result was taken."""
        if not self.service.plain_counts()[2]:
            self._empty.set()  # wakes all who wait now
            self._empty.clear()


class Holder:
    """What one connection holds: its leases in the order of their gets.

    `task_done` counts gets in order, whether their results were put by then or not, so it needs no list of
    its own: the n-th call is about the n-th get.
    """

    __slots__ = ("_delivered", "_results", "_tasks", "dones", "gets", "leases", "peer", "puts", "queues")

    def __init__(self, queues: Queues, peer: Peer) -> None:
        self.peer = peer
        self.queues = queues
        self.leases: deque[tuple[int, int]] = deque()  # (which get, lease) of those with no result yet
        self.gets = 0
        self.dones = 0
        self.puts = 0
        self._tasks = TaskQueue(self)
        self._results = ResultQueue(self)
        self._delivered: list[int] = []

    def call(self, name: str, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Answer:
        """Begin a method of a queue; raises as it would, TypeError for wrong arguments included."""
        target = self._tasks if name in self.queues.tasks else self._results
        answer: Answer = getattr(target, method)(*args, **kwds)
        return answer

    def got(self, lease: int) -> None:
        """A lease is about to be delivered."""
        if self.queues.delivered_is_done:
            self._delivered.append(lease)
            return
        self.leases.append((self.gets, lease))
        self.gets += 1
        if len(self.leases) == MANY and not self.puts:
            self.queues.complaints.say(
                "plain-hoard",
                f"{self.peer.address} holds {MANY} tasks and never put a result on the connection that got"
                " them: if it puts from another thread, set TASKYARD_PLAIN_ACK=get",
            )

    async def delivered(self) -> None:
        """The reply is on its way: with TASKYARD_PLAIN_ACK=get that ends what it carried."""
        while self._delivered:
            await self.queues.service.plain_done(self.peer, self._delivered.pop())


class _Queue:
    """The methods of `queue.Queue` with its arguments; those that may wait return a coroutine."""

    __slots__ = ("_holder", "_queues", "_service")

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._queues = holder.queues
        self._service = holder.queues.service

    def put(self, item: Any, block: Any = True, timeout: Any = None) -> Answer:
        value = plain.dumps(item)
        if len(value) > self._queues.payload:
            raise self._queues.too_large(len(value))
        if block and not self._queues.maxsize:
            timeout = None  # an unbounded queue does not look at it
        return self._put(value, _patience(block, timeout))

    def put_nowait(self, item: Any) -> Answer:
        return self.put(item, block=False)

    def get(self, block: Any = True, timeout: Any = None) -> Answer:
        return self._get(_patience(block, timeout))

    def get_nowait(self) -> Answer:
        return self._get(0.0)

    def qsize(self) -> Answer:
        return plain.dumps(self._size())

    def empty(self) -> Answer:
        return _FALSE if self._size() else _TRUE

    def full(self) -> Answer:
        return _TRUE if 0 < self._queues.maxsize <= self._size() else _FALSE

    def _size(self) -> int:
        raise NotImplementedError

    async def _put(self, value: bytes, timeout: float | None) -> bytes:
        raise NotImplementedError

    async def _get(self, timeout: float | None) -> bytes:
        raise NotImplementedError


class TaskQueue(_Queue):
    """Where tasks are put and leased."""

    __slots__ = ()

    def task_done(self) -> Answer:
        """Settle the oldest lease not yet marked done, or do nothing where its result was put."""
        return self._task_done() if self._holder.dones < self._holder.gets else _NONE

    def join(self) -> Answer:
        return self._join()

    def _size(self) -> int:
        return self._service.plain_counts()[0]

    async def _put(self, value: bytes, timeout: float | None) -> bytes:
        if not await self._service.plain_put(value, timeout):
            raise queue.Full
        return _NONE

    async def _get(self, timeout: float | None) -> bytes:
        if len(self._holder.leases) >= CAP:
            self._queues.complaints.say(
                "plain-hoard", f"{self._holder.peer.address} holds {CAP} tasks: it gets no more"
            )
            await asyncio.sleep(CAP_SECONDS if timeout is None else min(timeout, CAP_SECONDS))
            raise queue.Empty
        found = await self._service.plain_get(self._holder.peer, timeout)
        if found is None:
            raise queue.Empty
        lease, _, value = found
        self._holder.got(lease)
        return value

    async def _task_done(self) -> bytes:
        holder = self._holder
        if holder.leases and holder.leases[0][0] == holder.dones:
            await self._service.plain_done(holder.peer, holder.leases[0][1])
            holder.leases.popleft()
        holder.dones += 1
        return _NONE

    async def _join(self) -> bytes:
        await self._service.plain_join()
        return _NONE


class ResultQueue(_Queue):
    """Where results are put, which settles leases, and taken."""

    __slots__ = ()

    def task_done(self) -> Answer:
        return _NONE  # a result is done when it was taken

    def join(self) -> Answer:
        return self._join()

    def _size(self) -> int:
        return self._service.plain_counts()[2]

    async def _put(self, value: bytes, timeout: float | None) -> bytes:
        holder = self._holder
        holder.puts += 1
        if not holder.leases:
            put = await self._service.plain_free(value, timeout)
        else:
            put = await self._service.plain_settle(holder.peer, holder.leases[0][1], value, timeout)
            if put:  # if not, or if it raised, the next put is again about this lease
                holder.leases.popleft()
        if not put:
            raise queue.Full
        return _NONE

    async def _get(self, timeout: float | None) -> bytes:
        value = await self._service.plain_take(timeout)
        if value is None:
            raise queue.Empty
        self._queues.took()
        return value

    async def _join(self) -> bytes:
        await self._queues.results_taken()
        return _NONE
