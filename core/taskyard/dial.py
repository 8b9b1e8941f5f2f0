"""From an address to a connection that both sides trust: TCP, TLS, authkey, hello, in that order.

What can go wrong here is most of what goes wrong at all, so each way has its own sentence. The class
says whether trying again helps: UnreachableError may heal, RefusedError and NoYardError don't.
"""

import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from taskyard import messages
from taskyard.clock import Deadline
from taskyard.errors import ProtocolError, RefusedError, TaskyardError, UnreachableError
from taskyard.faults import error_of
from taskyard.frames import ClientHandshake, Framer, encode
from taskyard.messages import GREETING, Fail, Hello, Welcome
from taskyard.settings import split_address

if TYPE_CHECKING:  # most connections start without TLS and need not wait for it
    import ssl

    from taskyard.tls import Pipe

_MOST_SECONDS = 5.0  # that one attempt may take, from dialling to the welcome
_LEAST_SECONDS = 0.5  # that it may take however little is left
_AGAIN_SECONDS = 0.25  # after which a master that hung up right after TLS is dialled once more
_AGAIN_SECONDS = 0.25  # after which a master that hung up right after TLS is dialled once more
_READ = 1 << 16  # bytes at a time, more while the peer sends faster
_READ_MOST = 1 << 20
# A master whose host vanished is noticed after 15 to 18 s, whether something waits to be sent or not.
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 15_000))
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class NoYardError(UnreachableError):
    """Something answers at the address, and it is no master: trying again does not help."""


class SealError(OSError):
    """TLS does not understand what came, or the peer refuses what we showed."""


class _HungUpError(EOFError):
    """It hung up after TLS and before its first byte: it refuses our certificate, or it is just ending."""


class Wire:
    """A connected socket with its framing, and TLS if that is on."""

    def __init__(self, sock: socket.socket, pipe: "Pipe | None" = None) -> None:
        self.sock = sock
        self.pipe = pipe
        self.framer = Framer()
        self._read = _READ

    def seal(self, payload: bytes) -> bytes:
        """Return the bytes that carry a payload."""
        return self.pipe.seal(encode(payload)) if self.pipe else encode(payload)

    def seal_nothing(self) -> bytes:
        """Return what TLS itself has to say, in most cases nothing."""
        return self.pipe.seal(b"") if self.pipe else b""

    def read(self) -> Iterator[bytes]:
        """Read once and return the payloads now complete; raises EOFError, OSError, ProtocolError."""
        data = self.sock.recv(self._read)
        if not data:
            raise EOFError
        self._read = min(_READ_MOST, 4 * self._read) if len(data) == self._read else _READ
        if self.pipe:
            try:
                data = self.pipe.unseal(data)
            except OSError as error:
                raise SealError(getattr(error, "reason", None) or str(error)) from error
        return self.framer.feed(data)

    def close(self) -> None:
        self.sock.close()


def dial(
    address: str,
    authkey: bytes,
    hello: Hello,
    deadline: Deadline,
    *,
    tls: "ssl.SSLContext | None" = None,
    frame_limit: int = 16 << 20,
) -> tuple[Wire, Welcome]:
    """Connect and introduce ourselves; raises UnreachableError, NoYardError, RefusedError.

    The socket comes back blocking and without a time limit.
    """
    deadline = Deadline.after(min(_MOST_SECONDS, max(_LEAST_SECONDS, deadline.left())))
    try:
        return _attempt(address, authkey, hello, deadline, tls, frame_limit)
    except _HungUpError:
        # One that refuses our certificate does so again; one that was ending is gone by then.
        time.sleep(_AGAIN_SECONDS)
    deadline = Deadline.after(max(_LEAST_SECONDS, deadline.left()))
    try:
        return _attempt(address, authkey, hello, deadline, tls, frame_limit)
    except _HungUpError as error:
        from taskyard.tls_faults import hung_up

        raise hung_up(f"the master at {address}") from error


def _attempt(
    address: str,
    authkey: bytes,
    hello: Hello,
    deadline: Deadline,
    tls: "ssl.SSLContext | None",
    frame_limit: int,
) -> tuple[Wire, Welcome]:
    sock = _connect(address, deadline)
    try:
        wire = Wire(sock)
        if tls is not None:
            from taskyard.tls import shake

            wire.pipe = shake(sock, address, tls, deadline)
        welcome = _introduce(wire, address, authkey, hello, deadline, frame_limit)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return wire, welcome


def _connect(address: str, deadline: Deadline) -> socket.socket:
    host, port = split_address(address)
    try:
        sock = socket.create_connection((host, port), timeout=deadline.left())
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it can be no name"
        raise UnreachableError(
            f"the name {host} of TASKYARD_ADDRESS={address} is not known here ({why}): check it"
        ) from error
    except OSError as error:
        why = "" if isinstance(error, ConnectionRefusedError) else f" ({error.strerror or error})"
        raise UnreachableError(f"no master answers at {address}{why}: is it up? taskyard up") from error
    if sock.getsockname() == sock.getpeername():
        # On loopback, a port that nobody listens at may be drawn for our own end, and TCP then
        # connects the socket with itself.
        sock.close()
        raise UnreachableError(f"no master answers at {address}: is it up? taskyard up")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
    return sock


def _introduce(
    wire: Wire, address: str, authkey: bytes, hello: Hello, deadline: Deadline, frame_limit: int
) -> Welcome:
    handshake = ClientHandshake(authkey)
    heard = False
    try:
        while True:
            wire.sock.settimeout(max(0.01, deadline.left()))
            for payload in wire.read():
                heard = True
                if handshake.done:
                    return _welcome(payload, address)
                replies = handshake.receive(payload)
                if handshake.done:
                    wire.framer.limit = frame_limit
                    replies = [*replies, GREETING + messages.encode(hello)]
                for reply in replies:
                    wire.sock.sendall(wire.seal(reply))
    except ProtocolError as error:
        raise NoYardError(
            f"what answers at {address} is no master: check TASKYARD_ADDRESS ({error})"
        ) from error
    except RefusedError as error:
        _say_goodbye(wire, handshake)
        raise RefusedError(f"{address}: {error}") from error
    except (OSError, EOFError) as error:
        raise _broken_off(error, address, heard=heard, sealed=wire.pipe is not None) from error


def _broken_off(error: Exception, address: str, *, heard: bool, sealed: bool) -> Exception:
    """What to raise when the connection ends, or nothing comes, before the welcome."""
    if isinstance(error, TimeoutError):
        what = "stopped answering" if heard else "says nothing"
        return UnreachableError(
            f"what answers at {address} {what}: is it a master, and TLS (TASKYARD_TLS_*) on or off at both?"
        )
    if isinstance(error, SealError):  # TLS 1.3 refuses our certificate after our side of the handshake
        return RefusedError(f"{address} refused our certificate ({error}): check TASKYARD_TLS_CERT")
    if sealed and not heard and isinstance(error, EOFError | ConnectionError):
        return _HungUpError()
    return UnreachableError(
        f"what answers at {address} hung up ({_words(error)}): is it a master, and has it room for more?"
    )


def _say_goodbye(wire: Wire, handshake: ClientHandshake) -> None:
    try:
        for payload in handshake.farewell:
            wire.sock.sendall(wire.seal(payload))
    except OSError:
        return  # it has gone already, and so do we


def _welcome(payload: bytes, address: str) -> Welcome:
    """The answer to our hello; the standard library's manager answers with a pickle."""
    if payload.startswith(b"\x80"):
        raise NoYardError(
            f"what answers at {address} is a plain multiprocessing manager, no taskyard master:"
            " start one there (taskyard up), or let workers serve it with TASKYARD_DIALECT=plain"
        )
    try:
        reply = messages.decode_reply(payload)
    except msgspec.MsgspecError as error:
        raise NoYardError(
            f"what answers at {address} speaks another protocol: give both sides one version of taskyard"
        ) from error
    if isinstance(reply, Fail):
        raise error_of(reply)
    if not isinstance(reply, Welcome):
        raise TaskyardError(f"the master at {address} answered a hello with {type(reply).__name__}")
    return reply


def _words(error: BaseException) -> str:
    return "end of data" if isinstance(error, EOFError) else getattr(error, "strerror", None) or str(error)
