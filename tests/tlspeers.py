"""Peers over TLS for tests: listeners that say who came, clients and masters that are up to no good."""

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yardcerts import files

from taskyard.errors import RefusedError, TaskyardError
from taskyard.tls_context import side
from taskyard.tls_faults import refusal
from taskyard.tls_files import Files
from taskyard.tls_identity import Identity, peer_name
from taskyard_ctl.certfiles import CertFolder

PATIENCE = 20.0


Talk = Callable[[ssl.SSLSocket], None]


def greet_and_echo(peer: ssl.SSLSocket) -> None:
    peer.sendall(b"hello")
    while data := peer.recv(1 << 16):
        peer.sendall(data)


class Listener:
    """Talks to every peer that it lets in, a thread each; `outcomes` holds who came, or why they did not."""

    def __init__(self, context: ssl.SSLContext, talk: Talk = greet_and_echo, port: int = 0) -> None:
        self.context = context
        self.talk = talk
        self.sock = socket.create_server(("127.0.0.1", port))
        self.port: int = self.sock.getsockname()[1]
        self.outcomes: queue.Queue[Identity | TaskyardError] = queue.Queue()
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def outcome(self) -> Identity | TaskyardError:
        return self.outcomes.get(timeout=PATIENCE)

    def refused(self) -> str:
        """What the log would say of the peer that was not let in."""
        outcome = self.outcome()
        assert isinstance(outcome, RefusedError), outcome
        assert "\n" not in str(outcome)
        return str(outcome)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for thread in self.threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self.sock.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(raw,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(PATIENCE)
        try:
            with self.context.wrap_socket(raw, server_side=True) as peer:
                if self.context.verify_mode == ssl.CERT_REQUIRED:
                    self.outcomes.put(peer_name(peer))
                self.talk(peer)
        except OSError as fault:
            self.outcomes.put(refusal(fault, "the peer"))
        finally:
            raw.close()


@contextmanager
def listening(context: ssl.SSLContext, talk: Talk = greet_and_echo, port: int = 0) -> Iterator[Listener]:
    listener = Listener(context, talk, port)
    try:
        yield listener
    finally:
        listener.close()


def dial(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE), server_hostname=name)


def careless(it: Files | None) -> ssl.SSLContext:
    """A client that looks at nothing, to see what the listener does about it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if it:
        context.load_cert_chain(it.cert, it.key)
    return context


def impostor(it: Files) -> ssl.SSLContext:
    """A listener that lets everybody in, to see what the client does about it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(it.cert, it.key)
    return context


def master_of(certs: CertFolder) -> ssl.SSLContext:
    return side(files(certs, "master"), server=True)


def worker_of(certs: CertFolder) -> ssl.SSLContext:
    return side(files(certs, "worker-a"), server=False)


def client_of(certs: CertFolder) -> ssl.SSLContext:
    return side(files(certs, "client"), server=False)


def not_let_in(port: int, context: ssl.SSLContext) -> None:
    """TLS 1.3 tells a client only when it reads that it was not let in, by an alert or by the end."""
    data = b""
    with contextlib.suppress(OSError), dial(port, context) as wire:
        data = wire.recv(5)
    assert not data


def plain_answer(port: int, said: bytes) -> bytes:
    """What a peer without TLS gets to see until the connection ends."""
    got = b""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), PATIENCE) as wire,
    ):
        wire.sendall(said)
        while data := wire.recv(1 << 16):
            got += data
    return got
