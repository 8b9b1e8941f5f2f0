"""The yard dialect: a greeting with a hello, then structs in msgpack that carry sequence numbers."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable

import msgspec

from taskyard import failpoints, messages
from taskyard.errors import BacklogFullError, ProtocolError, RefusedError, TaskyardError
from taskyard.messages import (
    GREETING,
    Backup,
    Beat,
    Begin,
    Fail,
    Functions,
    Hello,
    Lease,
    Reply,
    Request,
    Results,
    Rows,
    Settle,
)
from taskyard_master.inflight import InFlight
from taskyard_master.peers import OWN_CERTIFICATE, Link, Peer, Verbs
from taskyard_master.reading import Reading

log = logging.getLogger(__name__)

FAMILY = b"yard/"  # every version's greeting begins so, and no pickle does
_LARGE = (Results, Backup)  # requests whose replies may be
_WORKERS = (Lease, Begin, Settle, Beat, Functions)  # all that a worker asks for
MOST = 1000  # requests of one connection that are worked on at a time; beyond that its bytes wait
MOST_LARGE = 4  # of those, how many wait for the peer to read what it was sent already


class YardDialect:
    """Requests are started in the order of arrival; each may wait, and replies leave as they come."""

    __slots__ = (
        "_in_flight", "_large", "_link", "_loop", "_reading", "_role", "_service", "_welcomed", "peer",
    )  # fmt: skip

    def __init__(self, link: Link, service: Verbs, peer: Peer, loop: AbstractEventLoop) -> None:
        self.peer = peer
        self._link = link
        self._loop = loop
        self._service = service
        self._in_flight = InFlight(loop, self._freed)
        self._welcomed = False
        self._large = 0  # requests for much that wait until the peer has read what came before
        self._reading = Reading()
        # What its certificate is for; one that `taskyard certs` did not make says nothing about that.
        self._role = link.identity.role if link.identity else ""

    @property
    def busy(self) -> bool:
        running = len(self._in_flight)
        return running >= MOST or self._large >= MOST_LARGE or (not self._welcomed and running > 0)

    def receive(self, frame: bytes) -> None:
        if not self._welcomed:
            hello = self._greeted(frame)
            self._link.introduced(delays_acks=False)
            self.peer.hello = hello
            self._in_flight.start(self._welcome(hello))
            return
        request = _decode(frame)
        if isinstance(request, Hello):
            raise ProtocolError("it said hello twice on one connection")
        self._large += isinstance(request, _LARGE)
        self._in_flight.start(self._answer(request))

    def ended(self, then: Callable[[], None]) -> None:
        def last() -> None:
            if self.peer.hello:
                self._service.gone(self.peer)
            then()

        self.peer.unlink()
        self._in_flight.cancel(last)

    def _freed(self) -> None:
        if len(self._in_flight) in (0, MOST - 1):
            self._link.proceed()

    def _greeted(self, frame: bytes) -> Hello:
        """The hello of the first frame; what speaks an older or newer yard is told so before it goes."""
        fault = ""
        if not frame.startswith(GREETING):
            fault = f"this master speaks {GREETING.decode()} and the peer does not: give both one version"
        elif self._link.digest == "md5":
            fault = "the yard dialect wants HMAC-SHA-256 for the authkey, MD5 is for plain peers only"
        if fault:
            self._link.send(messages.encode(Fail(0, RefusedError.__name__, fault)))
            raise RefusedError(fault)
        hello = _decode(frame[len(GREETING) :])
        if not isinstance(hello, Hello):
            raise ProtocolError("its first message is no hello")
        if self._role not in ("", hello.role):
            fault = f"its certificate is for a {self._role} and it comes as a {hello.role}: {OWN_CERTIFICATE}"
            self._link.send(messages.encode(Fail(hello.seq, RefusedError.__name__, fault)))
            raise RefusedError(fault)
        return hello

    async def _welcome(self, hello: Hello) -> None:
        reply = await self._outcome(hello)
        self._link.send(messages.encode(reply))
        if isinstance(reply, Fail):
            self._link.finish()
        self._welcomed = True

    async def _answer(self, request: Request) -> None:
        if isinstance(request, _LARGE):
            await self._link.drained()
            self._large -= 1
            if self._large == MOST_LARGE - 1:
                self._link.proceed()
        if isinstance(request, Results):
            self._reading.limit(request)
        outcome = await self._outcome(request)
        if isinstance(request, Results) and isinstance(outcome, Rows):
            self._reading.answered(request, outcome)
        if (
            isinstance(outcome, Fail) and outcome.error != BacklogFullError.__name__
        ):  # that one is meant to come again
            self._link.failed()
        reply = messages.encode(outcome)
        if failpoints.armed:
            name = type(request).__name__
            failpoints.passing(f"reply.{name}.before")
            self._loop.call_later(0.001, failpoints.passing, f"reply.{name}.after")  # once it has left
        self._link.send(reply)

    async def _outcome(self, request: Request) -> Reply:
        """What the service answers, with the request's number; never an exception."""
        try:
            if self._role == "worker" and not isinstance(request, (Hello, *_WORKERS)):
                name = type(request).__name__
                raise RefusedError(f"{name} is not for a worker's certificate: {OWN_CERTIFICATE}")
            if isinstance(request, Hello):
                reply: Reply = await self._service.hello(self.peer, request)
            else:
                reply = await self._service.handle(self.peer, request)
        except TaskyardError as error:
            return Fail(request.seq, type(error).__name__, str(error), getattr(error, "expected", 0))
        except Exception:
            log.exception("%s of %s failed", type(request).__name__, self.peer)
            return Fail(request.seq, TaskyardError.__name__, "internal error, see the master's log")
        reply.seq = request.seq
        return reply


def _decode(frame: bytes) -> Request:
    try:
        return messages.decode_request(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:  # broken text, depth without end
        text = " ".join(str(fault).split())[:200]  # it quotes what was sent
        raise ProtocolError(f"it sent what is no message of {GREETING.decode()}: {text}") from None
