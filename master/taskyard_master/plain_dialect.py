"""The plain dialect: requests of `multiprocessing.managers`, from unmodified stdlib clients.

A connection's first request is `(ignored, function, args, kwds)`. All but one function are answered and
the connection closed; after `accept_connection` come calls, `(id, method, args, kwds)`, one at a time. A
reply is `(kind, value)`. The id of a queue is its name, so that a proxy made before the master restarted
is valid after it.
"""

import logging
import queue
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Any

from taskyard import plain
from taskyard.errors import BacklogFullError, PayloadError, ProtocolError, TaskyardError
from taskyard_master.inflight import InFlight
from taskyard_master.peers import OWN_CERTIFICATE, Link, Peer
from taskyard_master.plain_queues import KNOWN, METHODS, Holder, Queues, Request

log = logging.getLogger(__name__)

FIRST_LIMIT = 1 << 16  # bytes in a first request, which carries names only
_PUTS, _GETS = ("put", "put_nowait"), ("get", "get_nowait")


class PlainDialect:
    """One stdlib client's connection; strictly one request after the other."""

    __slots__ = ("_calls", "_in_flight", "_link", "_queues", "_works", "peer")

    def __init__(self, link: Link, queues: Queues, peer: Peer, loop: AbstractEventLoop) -> None:
        self.peer = peer
        self._link = link
        self._queues = queues
        self._in_flight = InFlight(loop, link.proceed)
        self._calls: Holder | None = None  # once the connection is one for calls
        # With a worker's certificate it gets tasks and puts results, and not the other way round.
        self._works = link.identity is not None and link.identity.role == "worker"

    @property
    def busy(self) -> bool:
        return len(self._in_flight) > 0

    def receive(self, frame: bytes) -> None:
        if self._calls:
            self._call(self._calls, frame)
        elif len(frame) > FIRST_LIMIT:
            raise ProtocolError(f"its first request has {len(frame)} bytes, {FIRST_LIMIT} is the most")
        else:
            self._first(frame)

    def ended(self, then: Callable[[], None]) -> None:
        def last() -> None:
            if self._calls:
                self._queues.service.gone(self.peer)
            then()

        self.peer.unlink()
        self._in_flight.cancel(last)

    # ------------------------------------------------------------ first requests

    def _first(self, frame: bytes) -> None:
        try:
            _, function, args, kwds = self._request(frame)
        except PayloadError as error:
            raise ProtocolError(f"its first request is more than names: {error}") from None
        if function == "accept_connection":
            self._link.introduced(delays_acks=True)
            self._calls = Holder(self._queues, self.peer)
            self._link.send(plain.returned(plain.dumps(None)))
        else:
            self._link.send(self._answer(function, args, kwds))
            self._link.finish()

    def _answer(self, function: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> bytes:
        """The reply to a first request after which the connection is closed."""
        name = args[0] if args and isinstance(args[0], str) else ""
        if function == "dummy":
            return plain.returned(plain.dumps(None))
        if function not in ("create", "incref", "decref"):
            cure = ": stop it where it runs" if function == "shutdown" else ""
            return _refused(f"{function[:80]!r} is not for clients of this master{cure}")
        if name not in self._queues.names:
            known = ", ".join(sorted(self._queues.names))
            return _refused(
                f"this master has no {name[:80]!r}: register one of {known}, or add the name there to"
                " TASKYARD_PLAIN_TASKS or TASKYARD_PLAIN_RESULTS"
            )
        if function != "create":
            return plain.returned(plain.dumps(None))  # queues live as long as the master
        if len(args) > 1 or kwds:
            return _refused(f"{name}() takes no arguments: TASKYARD_PLAIN_MAXSIZE bounds the queues")
        return plain.returned(plain.dumps((name, METHODS)))

    # ------------------------------------------------------------ calls

    def _call(self, calls: Holder, frame: bytes) -> None:
        try:
            # Looked at before it costs anything; twice, as old protocols write bytes longer than ours.
            if len(frame) > 2 * self._queues.payload + FIRST_LIMIT:
                raise self._queues.too_large(len(frame))
            name, method, args, kwds = self._request(frame)
        except PayloadError as error:  # a value that does not travel, and whoever put it should know why
            self._fail(plain.error("ValueError", str(error)), len(frame))
            return
        if not isinstance(name, str) or name not in self._queues.names:
            self._fail(_refused("this proxy is of another master: connect and make a new one"))
            return
        if method not in METHODS:
            self._fail(_refused(f"{method[:80]!r} is none of a queue's methods: {', '.join(METHODS)}"))
            return
        if self._works and method in (_PUTS if name in self._queues.tasks else _GETS):
            self._fail(_refused(f"{method} of {name} is not for a worker's certificate: {OWN_CERTIFICATE}"))
            return
        try:
            answer = calls.call(name, method, args, kwds)
        except (TypeError, ValueError, PayloadError) as error:
            kind = "TypeError" if isinstance(error, TypeError) else "ValueError"
            self._fail(plain.error(kind, str(error)))
            return
        if isinstance(answer, bytes):
            self._link.send(plain.returned(answer))
        else:
            self._in_flight.start(self._wait(calls, answer, method))

    def _fail(self, reply: bytes, size: int = 0) -> None:
        self._link.failed(size)
        self._link.send(reply)

    async def _wait(self, calls: Holder, work: Coroutine[Any, Any, bytes], method: str) -> None:
        try:
            reply = plain.returned(await work)
        except queue.Empty:
            reply = plain.error("queue.Empty")
        except queue.Full:
            reply = plain.error("queue.Full")
        except BacklogFullError as error:
            reply = plain.error("queue.Full", str(error))
        except TaskyardError as error:
            self._link.failed()
            reply = _refused(str(error))
        except Exception:
            log.exception("%s of %s failed", method, self.peer)
            reply = _refused("internal error, see the master's log")
        if self._link.send(reply):
            try:
                await calls.delivered()
            except Exception:
                log.exception("a task delivered to %s could not be ended", self.peer)

    def _request(self, frame: bytes) -> Request:
        known = self._queues.known.get(frame)  # gets and counts are the same bytes each time
        if known is not None:
            return known
        match plain.loads(frame, self._queues.allow):
            case (first, str() as name, tuple() as args, dict() as kwds):
                if not (args or kwds) and len(frame) < KNOWN and len(self._queues.known) < KNOWN:
                    self._queues.known[frame] = first, name, args, kwds
                return first, name, args, kwds
        raise ProtocolError("it sent what is no request of multiprocessing.managers")


def _refused(text: str) -> bytes:
    """What clients raise as RemoteError with this text."""
    return plain.traceback(text + "\n")
