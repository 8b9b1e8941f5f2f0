"""TLS between hosts: version 1.3 only, and both sides show a certificate of the yard's own authority."""

import socket
import ssl
from threading import Lock

from taskyard.clock import Deadline
from taskyard.errors import RefusedError, SettingsError, UnreachableError
from taskyard.settings import Settings, split_address

_READ = 1 << 16  # bytes at a time
_MOST = 1 << 20  # bytes read out of OpenSSL at a time


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """What a client or worker dials with, None where TLS is off; raises SettingsError."""
    return _context(settings, ssl.PROTOCOL_TLS_CLIENT)


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What the master listens with, None where TLS is off: without a certificate nobody comes in."""
    return _context(settings, ssl.PROTOCOL_TLS_SERVER)


def _context(settings: Settings, side: int) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(settings.tls_ca)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"TASKYARD_TLS_CA, _CERT and _KEY: {error}: check the three files, 'taskyard certs' makes them"
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


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
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(
            f"the certificate of {address} is not the one of this yard ({error.verify_message}):"
            " check TASKYARD_TLS_CA, and the names in the master's certificate"
        ) from error
    except ssl.SSLError as error:
        raise RefusedError(
            f"{address} does not take our TLS ({error.reason or error}): check that the master has"
            " TASKYARD_TLS_* set, and that the certificates are of one yard"
        ) from error
    except (OSError, EOFError) as error:
        raise UnreachableError(
            f"{address} broke off the TLS handshake ({str(error) or 'end of data'}):"
            " is TLS on there, and our certificate one of its yard?"
        ) from error
    return pipe
