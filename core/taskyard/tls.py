"""TLS between hosts, as processes use it: contexts from the settings, and the client's end of it."""

import logging
import socket
import ssl
from collections.abc import Callable
from threading import Lock

from taskyard.clock import Deadline
from taskyard.errors import SettingsError, UnreachableError
from taskyard.log import event
from taskyard.settings import Settings, split_address
from taskyard.tls_context import LiveContext, side
from taskyard.tls_faults import refusal
from taskyard.tls_files import Files

_log = logging.getLogger(__name__)

_READ = 1 << 16  # bytes at a time
_MOST = 1 << 20  # bytes read out of OpenSSL at a time


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """What a client or worker dials with, None where TLS is off; raises SettingsError."""
    files = Files.of(settings)
    return side(files, server=False) if files else None


def following(settings: Settings) -> Callable[[], ssl.SSLContext] | None:
    """The same for a process that dials again and again: new files are used from the next time on.

    Files of no use are logged, and what was loaded before stays in use.
    """
    files = Files.of(settings)
    if files is None:
        return None
    live = LiveContext(files, server=False)

    def current() -> ssl.SSLContext:
        try:
            live.refresh()
        except SettingsError as fault:
            event(_log, "tls-kept", f"{fault}; what was loaded before stays in use", logging.ERROR)
        return live.context

    return current


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What a master listens with, None where TLS is off; one that follows its files is a `LiveContext`."""
    files = Files.of(settings)
    return side(files, server=True) if files else None


class Pipe:
    """TLS without a socket: plain bytes on one side, sealed ones on the other.

    OpenSSL wants one thread at a time, and a socket of its own lets nobody send while another
    waits for bytes; here the lock is held only while bytes are turned.
    """

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._lock = Lock()

    def shake(self, data: bytes = b"") -> tuple[bool, bytes]:
        """Take what came; return whether the handshake is done, and what to send. Raises ssl.SSLError."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        return done, self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """Return what to send for these bytes, and for whatever else is due."""
        with self._lock:
            if data:
                self._tls.write(data)
            return self._outgoing.read()

    def unseal(self, data: bytes) -> bytes:
        """Return the plain bytes in what came; b"" may mean that more is needed.

        Raises EOFError at the end that the peer announced, and ssl.SSLError.
        """
        parts = []
        with self._lock:
            self._incoming.write(data)
            try:
                while part := self._tls.read(_MOST):
                    parts.append(part)
                ended = True
            except ssl.SSLWantReadError:
                ended = False
            except ssl.SSLZeroReturnError:
                ended = True
        if ended and not parts:
            raise EOFError
        return b"".join(parts)


def shake(sock: socket.socket, address: str, context: ssl.SSLContext, deadline: Deadline) -> Pipe:
    """Do the client's side of the handshake; raises RefusedError, or UnreachableError if it breaks off."""
    pipe = Pipe(context, split_address(address)[0])
    try:
        done, data = pipe.shake()
        while not done:
            sock.settimeout(max(0.01, deadline.left()))
            sock.sendall(data)
            came = sock.recv(_READ)
            if not came:
                raise EOFError
            done, data = pipe.shake(came)
        sock.sendall(data)
    except ssl.SSLError as error:
        raise refusal(error, f"the master at {address}") from error
    except (OSError, EOFError) as error:
        raise UnreachableError(
            f"{address} broke off the TLS handshake ({str(error) or 'end of data'}):"
            " is TLS on there, and our certificate one of its yard?"
        ) from error
    return pipe
