"""`taskyard tunnel`: scripts that know no TLS reach a master that takes nothing else."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pythons import python
from scripts import Script, tutorial
from serving import KEY, serving
from support import eventually
from tlspeers import PATIENCE, impostor, listening, master_of
from yardcerts import CLIENT, files, now, settings, tls_of, yard

from taskyard.errors import EXIT_DONE, EXIT_REFUSED, EXIT_USAGE
from taskyard.tls_context import LiveContext
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.tunnel import Tunnel

T = TypeVar("T")
MIB = 1 << 20
NEW_ENOUGH = ("3.11", "3.13", "3.14")  # the first proves the key with MD5


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> CertFolder:
    return yard(tmp_path_factory.mktemp("yard") / "certs")


@contextmanager
def in_a_loop() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """A loop in a thread of its own; call it with what to run there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def tunnel(certs: CertFolder, port: int) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """A tunnel of this process: where it listens, and what it says."""
    said: list[str] = []
    it = Tunnel(LiveContext(files(certs, "client"), server=False), f"127.0.0.1:{port}", said.append)
    with in_a_loop() as run:
        where = run(it.start("127.0.0.1:0"))
        try:
            yield ("127.0.0.1", int(where.rpartition(":")[2])), said
        finally:
            run(it.stop())


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, PATIENCE)


def rest(wire: socket.socket) -> bytes:
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := wire.recv(MIB):
            got += data
    return bytes(got)


# -- scripts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", NEW_ENOUGH)
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_an_unmodified_script_works_through_it(certs: CertFolder, version: str, loop_name: str) -> None:
    program = python(version)
    with serving(loop_name, **tls_of(certs)) as master, tunnel(certs, master.port) as (where, said):
        assert tutorial(program, "queue_methods.py", where, KEY).output() == "all as it should be\n"
        eventually(lambda: master.server.connections == 0, "every end is passed on")
        assert said == []


CONNECTS = """
import sys, time
from multiprocessing.managers import BaseManager
for _ in range(40):
    start = time.perf_counter()
    BaseManager((sys.argv[1], int(sys.argv[2])), sys.argv[3].encode()).connect()
    print(time.perf_counter() - start)
"""


@pytest.mark.parametrize("version", NEW_ENOUGH[:2])
def test_a_connect_does_not_wait_for_delayed_acknowledgements(
    certs: CertFolder, version: str, tmp_path: Path
) -> None:
    """Each such wait is 40 ms and more; without them a connect is a few milliseconds."""
    script = tmp_path / "connects.py"
    script.write_text(CONNECTS)
    with serving(**tls_of(certs)) as master, tunnel(certs, master.port) as (where, _):
        out = Script(python(version), script, *where, KEY).output()
    assert statistics.median(map(float, out.split())) < 0.035


MANAGER = """
import queue, sys
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager): pass
task, result = queue.Queue(), queue.Queue()
QueueManager.register("get_task", callable=lambda: task)
QueueManager.register("get_result", callable=lambda: result)
server = QueueManager(("127.0.0.1", 0), sys.argv[1].encode()).get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""
CLIENT_SCRIPT = """
import sys
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager): pass
QueueManager.register("get_task")
QueueManager.register("get_result")
manager = QueueManager((sys.argv[1], int(sys.argv[2])), sys.argv[3].encode())
manager.connect()
task, result = manager.get_task(), manager.get_result()
for i in range(100):
    task.put(i)
for i in range(100):
    result.put(task.get() ** 2)
print(sum(result.get() for _ in range(100)))
"""


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_python_speaks_through_it(certs: CertFolder, version: str, tmp_path: Path) -> None:
    """Whatever the master thinks of MD5: here the other end is the standard library's own manager."""
    (tmp_path / "manager.py").write_text(MANAGER)
    (tmp_path / "client.py").write_text(CLIENT_SCRIPT)
    manager = Script(python(version), tmp_path / "manager.py", KEY)
    try:
        port = int(manager.line())

        with in_a_loop() as run:
            terminator = run(terminate_tls(master_of(certs), port))
            with tunnel(certs, terminator.sockets[0].getsockname()[1]) as (where, _):
                out = Script(python(version), tmp_path / "client.py", *where, KEY).output()
            terminator.close()
        assert out == f"{sum(i * i for i in range(100))}\n"
    finally:
        manager.kill()


async def terminate_tls(context: ssl.SSLContext, port: int) -> asyncio.Server:
    """Listen with TLS in front of a plain port, as any proxy would."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, out = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            await asyncio.gather(copy(reader, out), copy(inner, writer))

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


# -- bytes and ends ----------------------------------------------------------------------------------


def test_bytes_go_both_ways_at_once_unchanged(certs: CertFolder) -> None:
    sent = os.urandom(8 * MIB)
    with (
        listening(master_of(certs)) as listener,
        tunnel(certs, listener.port) as (where, _),
        connect(where) as wire,
    ):
        writer = threading.Thread(target=lambda: (wire.sendall(sent), wire.shutdown(socket.SHUT_WR)))
        writer.start()
        got = rest(wire)
        writer.join(PATIENCE)
    assert got[:5] == b"hello"
    assert hashlib.sha256(got[5:]).digest() == hashlib.sha256(sent).digest()


def test_an_answer_may_come_after_the_question_has_ended(certs: CertFolder) -> None:
    """Half-close: the master hears the end, and what it says then still arrives."""

    def count(peer: ssl.SSLSocket) -> None:
        total = 0
        while data := peer.recv(1 << 16):
            total += len(data)
        peer.sendall(str(total).encode() + b"!" * (3 * MIB))

    with listening(master_of(certs), count) as listener, tunnel(certs, listener.port) as (where, _):
        for size in (0, 1, 3 * MIB):
            with connect(where) as wire:
                wire.sendall(b"x" * size)
                wire.shutdown(socket.SHUT_WR)
                assert rest(wire) == str(size).encode() + b"!" * (3 * MIB)


def test_the_masters_end_reaches_the_script_after_its_last_byte(certs: CertFolder) -> None:
    with (
        listening(master_of(certs), lambda peer: peer.sendall(b"y" * MIB)) as listener,
        tunnel(certs, listener.port) as (where, said),
        connect(where) as wire,
    ):
        assert rest(wire) == b"y" * MIB
        assert said == []


def test_a_script_that_is_gone_is_gone_for_the_master(certs: CertFolder) -> None:
    with serving(**tls_of(certs)) as master, tunnel(certs, master.port) as (where, _):
        wires = [connect(where) for _ in range(20)]
        eventually(lambda: master.server.connections == 20)
        for wire in wires:
            wire.close()
        eventually(lambda: master.server.connections == 0)


# -- when it does not work ---------------------------------------------------------------------------


def test_a_master_that_is_away_costs_that_connection_alone(certs: CertFolder) -> None:
    with listening(master_of(certs)) as listener:
        port = listener.port
    with tunnel(certs, port) as (where, said):
        for _ in range(3):
            with connect(where) as wire:
                assert rest(wire) == b""
        [line] = said
        assert f"the master at 127.0.0.1:{port} cannot be reached" in line
        with listening(master_of(certs), port=port), connect(where) as wire:
            assert wire.recv(5) == b"hello"
        with connect(where) as wire:
            assert rest(wire) == b""
        assert len(said) == 2, "it is news again"


def test_a_refusal_is_said_in_one_line(certs: CertFolder, tmp_path: Path) -> None:
    foreign = yard(tmp_path / "foreign")
    with (
        listening(impostor(files(foreign, "master"))) as listener,
        tunnel(certs, listener.port) as (where, said),
    ):
        with connect(where) as wire:
            assert rest(wire) == b""
        [line] = said
        assert "not of the authority" in line
        assert "\n" not in line


def test_a_revoked_tunnel_is_told_so_and_takes_up_its_new_certificate(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    with tunnel(certs, 1):
        pass  # its files are good
    live = LiveContext(files(certs, "master"), server=True)
    with listening(live.context) as listener, tunnel(certs, listener.port) as (where, said):
        with connect(where) as wire:
            assert wire.recv(5) == b"hello"
        certs.revoke("client", now())
        live.refresh()
        listener.context = live.context
        for _ in range(3):
            with connect(where) as wire:
                assert rest(wire) == b""
        eventually(lambda: len(said) > 1, "that its files are gone, and that it was not let in")
        assert "client.pem cannot be read" in said[0]
        assert len(said) == 2
        certs.renew(CLIENT, now())
        with connect(where) as wire:
            assert wire.recv(5) == b"hello"


# -- the command -------------------------------------------------------------------------------------


@contextmanager
def command(folder: Path, environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "taskyard_ctl", "tunnel", *arguments], cwd=folder, env={**clean, **environ},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ends(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_runs_until_it_is_told_to_end(certs: CertFolder, tmp_path: Path, number: int) -> None:
    with listening(master_of(certs)) as listener:
        environ = {**settings(certs, "client"), "TASKYARD_ADDRESS": f"127.0.0.1:{listener.port}"}
        with command(tmp_path, environ, "--listen", "127.0.0.1:0") as process:
            assert process.stdout
            host, port = process.stdout.readline().strip().split(":")
            with connect((host, int(port))) as wire:
                assert wire.recv(5) == b"hello"
                process.send_signal(number)
                code, said = ends(process)
                assert rest(wire) == b""
    assert code == EXIT_DONE
    assert [line for line in said if "Traceback" in line] == []
    assert "is open" in said[0]


def test_the_command_says_at_its_start_what_will_not_work(certs: CertFolder, tmp_path: Path) -> None:
    foreign = yard(tmp_path / "foreign")
    with listening(master_of(certs)) as listener:
        address = {"TASKYARD_ADDRESS": f"127.0.0.1:{listener.port}"}
        busy = ("--listen", f"127.0.0.1:{listener.port}")
        mine = settings(certs, "client")
        for environ, arguments, code, words in (
            (address, (), EXIT_USAGE, "are not set: 'taskyard certs' makes the files"),
            (address | mine, busy, EXIT_USAGE, "Address already in use"),
            (address | settings(foreign, "client"), (), EXIT_REFUSED, "not of the authority"),
            (address | settings(certs, "master"), (), EXIT_USAGE, "is not for who dials a master"),
        ):
            with command(tmp_path, environ, *arguments) as process:
                got, said = ends(process)
            assert (got, len(said)) == (code, 1), said
            assert words in said[0]


def test_the_command_waits_for_a_master_that_is_away(certs: CertFolder, tmp_path: Path) -> None:
    with listening(master_of(certs)) as listener:
        port = listener.port
    environ = {**settings(certs, "client"), "TASKYARD_ADDRESS": f"127.0.0.1:{port}"}
    with command(tmp_path, environ, "--listen", "0.0.0.0:0") as process:
        assert process.stdout
        _, own = process.stdout.readline().strip().split(":")
        with listening(master_of(certs), port=port), connect(("127.0.0.1", int(own))) as wire:
            assert wire.recv(5) == b"hello"
        process.terminate()
        code, said = ends(process)
    assert code == EXIT_DONE
    assert "waits for it" in said[0]
    assert "can be dialled from other hosts" in said[1]
