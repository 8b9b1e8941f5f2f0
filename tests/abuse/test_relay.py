"""The man in the middle: a relay that does not know the key, between a client and a master that do.

It passes the handshake on until both sides trust the connection, and then says something of its own. With
the standard library's manager that is code execution on both sides (the control, which also shows that
this attack works as written); a yard's hosts talk over TLS, where the same relay gets nowhere.
"""

import contextlib
import os
import pickle
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import eventually
from tlspeers import PATIENCE, careless, impostor, worker_of
from yardcerts import files, settings, yard

from taskyard.client import Yard
from taskyard.errors import TaskyardError
from taskyard.tls_context import side
from taskyard_ctl.certfiles import CertFolder

KEY = "correct horse battery staple"
MANAGER = """
import queue, sys
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager): pass
task = queue.Queue()
QueueManager.register("get_task", callable=lambda: task)
server = QueueManager(("127.0.0.1", 0), sys.argv[1].encode()).get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""
CLIENT = """
import sys
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager): pass
QueueManager.register("get_task")
QueueManager(("127.0.0.1", int(sys.argv[1])), sys.argv[2].encode()).connect()
"""


class Gadget:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.canary),)


def frame(payload: bytes) -> bytes:
    return struct.pack("!i", len(payload)) + payload


def read_frame(wire: socket.socket) -> bytes:
    """The next frame, empty at the end."""
    data = b""
    size = 4
    while len(data) < size:
        got = wire.recv(size - len(data))
        if not got:
            return b""
        data += got
        if len(data) == 4:
            size = 4 + max(0, struct.unpack("!i", data)[0])
    return data[4:]


class Relay:
    """Takes what it can from those who dial it, in the name of the master at `port`.

    `face` and `back` are its own TLS toward the client and toward the master, where it tries that.
    """

    def __init__(
        self,
        port: int,
        canaries: Path,
        face: ssl.SSLContext | None = None,
        back: ssl.SSLContext | None = None,
    ) -> None:
        self.master = ("127.0.0.1", port)
        self.face, self.back = face, back
        self.at_master, self.at_client = canaries / "master", canaries / "client"
        self.trusted = threading.Event()  # both sides have taken each other for what they are
        self.tries = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def canaries(self) -> list[str]:
        return [path.name for path in (self.at_master, self.at_client) if path.exists()]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, EOFError), client:
                client.settimeout(PATIENCE)
                with socket.create_connection(self.master, PATIENCE) as master:
                    self._meddle(client, master)
            self.tries += 1

    def _meddle(self, client: socket.socket, master: socket.socket) -> None:
        if self.face:
            client = self.face.wrap_socket(client, server_side=True)
        if self.back:
            master = self.back.wrap_socket(master, server_hostname="127.0.0.1")
        # Challenge, answer, welcome; then the same the other way round.
        there, back = (client, master), (master, client)
        for source, sink in (back, there, back, there, back, there):
            payload = read_frame(source)
            if not payload:
                return
            sink.sendall(frame(payload))
        self.trusted.set()
        self._inject(client, master)

    def _inject(self, client: socket.socket, master: socket.socket) -> None:
        read_frame(client)  # what it really wanted
        client.sendall(frame(pickle.dumps(Gadget(self.at_client))))
        master.sendall(frame(pickle.dumps((None, "dummy", (Gadget(self.at_master),), {}))))
        read_frame(master)
        read_frame(client)


class BlindRelay(Relay):
    """Passes the sealed bytes on, since it cannot read them, and puts its own in among them."""

    def _meddle(self, client: socket.socket, master: socket.socket) -> None:
        def pass_on(source: socket.socket, sink: socket.socket, payload: bytes) -> None:
            with contextlib.suppress(OSError):
                for _ in range(self.reads):
                    data = source.recv(1 << 16)
                    if not data:
                        break
                    sink.sendall(data)
                sink.sendall(frame(payload))
                # The same as a record of TLS, in case that anybody reads what is not sealed.
                sink.sendall(b"\\x17\\x03\\x03" + struct.pack("!H", len(frame(payload))) + frame(payload))
                sink.recv(1 << 16)

        first = pickle.dumps((None, "dummy", (Gadget(self.at_master),), {}))
        back = threading.Thread(target=pass_on, args=(master, client, pickle.dumps(Gadget(self.at_client))))
        back.start()
        pass_on(client, master, first)
        back.join(PATIENCE)

    reads = 3


@contextmanager
def relaying(relay: Relay) -> Iterator[Relay]:
    try:
        yield relay
    finally:
        relay.close()


@contextmanager
def process(*words: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    it = subprocess.Popen(
        [sys.executable, *words], env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield it
    finally:
        it.kill()
        it.communicate()


# -- the control -------------------------------------------------------------------------------------


def test_between_the_standard_librarys_own_it_runs_code_on_both(tmp_path: Path) -> None:
    with process("-c", MANAGER, KEY) as manager:
        assert manager.stdout
        with relaying(Relay(int(manager.stdout.readline()), tmp_path)) as relay:
            with process("-c", CLIENT, str(relay.port), KEY) as client:
                client.wait(PATIENCE)
            eventually(lambda: relay.canaries == ["master", "client"])
            assert relay.trusted.is_set()


# -- a yard ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> CertFolder:
    return yard(tmp_path_factory.mktemp("yard") / "certs")


@contextmanager
def serving(folder: Path, environ: dict[str, str]) -> Iterator[int]:
    """A real master in a process of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    environ = {
        "TASKYARD_ADDRESS": f"127.0.0.1:{port}", "TASKYARD_AUTHKEY": KEY,
        "TASKYARD_JOURNAL": str(folder / "journal.db"), **environ,
    }  # fmt: skip
    with process("-m", "taskyard_master", environ=environ):
        eventually(lambda: answers(port), "a master that listens")
        yield port


@pytest.fixture
def master(certs: CertFolder, tmp_path: Path) -> Iterator[int]:
    """One that takes nothing but TLS."""
    with serving(tmp_path, settings(certs, "master")) as port:
        yield port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
        return True
    return False


def honest(certs: CertFolder | None, port: int) -> str:
    """What a client of the yard gets; an error where it gets nothing."""
    context = side(files(certs, "client"), server=False) if certs else None
    try:
        with Yard(f"127.0.0.1:{port}", KEY, ssl=context, patience=2.0) as it:
            return f"let in by {it.status().master.pid}"
    except TaskyardError as fault:
        assert "\n" not in str(fault)
        return str(fault)


def test_without_tls_it_is_believed_and_still_runs_nothing(tmp_path: Path) -> None:
    """It can lie to both, which is why hosts talk over TLS; but what it says is only ever data."""
    with serving(tmp_path, {}) as port:
        with relaying(Relay(port, tmp_path)) as relay:
            said = honest(None, relay.port)
            assert relay.trusted.is_set()
            assert "plain multiprocessing manager" in said
            eventually(lambda: relay.tries)
            assert relay.canaries == []
        assert "let in" in honest(None, port)


def test_a_relay_with_a_certificate_of_its_own_is_found_out_by_the_client(
    certs: CertFolder, master: int, tmp_path: Path
) -> None:
    foreign = files(yard(tmp_path / "foreign"), "master")
    with relaying(Relay(master, tmp_path, face=impostor(foreign), back=careless(None))) as relay:
        assert "not of the authority" in honest(certs, relay.port)
        eventually(lambda: relay.tries)
        assert not relay.trusted.is_set()
        assert relay.canaries == []
    assert "let in" in honest(certs, master)


def test_a_relay_that_holds_a_workers_certificate_is_found_out_too(
    certs: CertFolder, master: int, tmp_path: Path
) -> None:
    """Even from a stolen worker nobody plays the master."""
    stolen = files(certs, "worker-a")
    with relaying(Relay(master, tmp_path, face=impostor(stolen), back=worker_of(certs))) as relay:
        assert "another role" in honest(certs, relay.port)
        eventually(lambda: relay.tries)
        assert not relay.trusted.is_set()
        assert relay.canaries == []


def test_a_relay_without_tls_gets_nothing_from_either(certs: CertFolder, master: int, tmp_path: Path) -> None:
    with relaying(Relay(master, tmp_path)) as relay:
        assert "TLS" in honest(certs, relay.port)
        assert not relay.trusted.is_set()
        assert relay.canaries == []
    assert "let in" in honest(certs, master)


@pytest.mark.parametrize("reads", [0, 1, 2, 3, 4])
def test_a_relay_that_meddles_with_the_sealed_bytes_breaks_that_connection_alone(
    certs: CertFolder, master: int, tmp_path: Path, reads: int
) -> None:
    relay = BlindRelay(master, tmp_path)
    relay.reads = reads
    with relaying(relay):
        honest(certs, relay.port)
        eventually(lambda: relay.tries)
        assert relay.canaries == []
    assert "let in" in honest(certs, master)
