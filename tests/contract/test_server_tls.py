"""The master's port under TLS: who comes in, who is named in the log, and files that change meanwhile."""

import contextlib
import hmac
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from scripts import all_pythons, tutorial
from serving import KEY, LOOPS, Caller, Raw, Serving, serving
from support import eventually
from tlspeers import careless, client_of, worker_of
from yardcerts import CLIENT, add, files, now, settings, tls_of, yard

from taskyard import Yard
from taskyard.errors import RefusedError, TaskyardError, UnreachableError
from taskyard.messages import (
    GREETING,
    Backup,
    Beat,
    Delete,
    Fail,
    Hello,
    Ok,
    Renew,
    Status,
    Welcome,
    encode,
)
from taskyard.tls_context import side
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.certs import Subject
from taskyard_master import sealing


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PERIOD", 0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CertFolder:
    return yard(tmp_path_factory.mktemp("made") / "certs")


@pytest.fixture
def certs(made: CertFolder, tmp_path: Path) -> CertFolder:
    """A copy of its own for each test, since making keys takes longer."""
    shutil.copytree(made.path, tmp_path / "certs")
    return CertFolder(tmp_path / "certs")


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest, certs: CertFolder) -> Iterator[Serving]:
    with serving(request.param, handshake=2, **tls_of(certs)) as running:
        yield running


def sealed(context: ssl.SSLContext) -> Callable[[socket.socket], socket.socket]:
    return lambda sock: context.wrap_socket(sock, server_hostname="127.0.0.1")


def dial(served: Serving, context: ssl.SSLContext | None, patience: float = 20.0) -> Yard:
    return Yard(f"127.0.0.1:{served.port}", KEY, ssl=context, patience=patience)


def gets_nothing(served: Serving, context: ssl.SSLContext) -> None:
    """TLS 1.3 tells a client only when it reads that it was not let in."""
    with contextlib.suppress(OSError), Raw(served, sealed(context)) as peer:
        assert peer.rest() == []


def test_who_has_a_certificate_and_the_key_comes_in(served: Serving, certs: CertFolder) -> None:
    with Raw(served, sealed(client_of(certs))).prove() as peer:
        peer.greet()
        assert peer.ask(Renew(2, "j")) == Ok(2)
        assert len(peer.ask(Backup(3, 4 << 20)).data) == 4 << 20


def greet(peer: Raw, role: Any) -> Any:
    """What the master says to who comes as this."""
    peer.send(GREETING + encode(Hello(1, role, "w1", "a", 1, "b", "0", "3", slots=1)))
    return peer.reply()


def test_a_worker_gets_a_workers_verbs_and_nobody_passes_for_another(
    served: Serving, certs: CertFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """With the pair of a worker that was taken over, nobody submits, reads or deletes jobs."""
    with Raw(served, sealed(worker_of(certs))).prove() as peer:
        assert isinstance(greet(peer, "worker"), Welcome)
        for seq, request in enumerate((Renew(0, "j"), Backup(0, 0), Delete(0, "j"), Status(0)), start=2):
            request.seq = seq
            reply = peer.ask(request)
            assert isinstance(reply, Fail) and "not for a worker's certificate" in reply.message
        assert not isinstance(peer.ask(Beat(9, [], [])), Fail)
    for context, role in ((worker_of(certs), "client"), (client_of(certs), "worker")):
        with Raw(served, sealed(context)).prove() as peer:
            reply = greet(peer, role)
            assert isinstance(reply, Fail) and "its certificate is for a" in reply.message
            assert peer.rest() == []
    eventually(lambda: "certificate is for a worker and it comes as a client" in caplog.text)


def test_a_workers_plain_scripts_get_tasks_and_put_results_and_nothing_else(
    served: Serving, certs: CertFolder
) -> None:
    mine, theirs = sealed(client_of(certs)), sealed(worker_of(certs))
    with Caller(served, mine) as master, Caller(served, theirs) as script:
        for call in (("task_queue", "put", 1), ("task_queue", "put_nowait", 1)):
            with pytest.raises(AssertionError, match="not for a worker's certificate"):
                script.call(*call)
        master.call("task_queue", "put", 6)
        assert script.call("task_queue", "get") == 6
        script.call("result_queue", "put", 36)
        script.call("task_queue", "task_done")
        assert script.call("result_queue", "qsize") == 1
        for method in ("get", "get_nowait"):
            with pytest.raises(AssertionError, match="not for a worker's certificate"):
                script.call("result_queue", method)
        assert master.call("result_queue", "get") == 36


def test_certificates_that_name_no_role_come_in_as_either(served: Serving, certs: CertFolder) -> None:
    """Who has an authority of their own need not make them with `taskyard certs`."""
    context = side(add(certs, "foreign", Subject("", "x")), server=False)
    for role in ("client", "worker"):
        with Raw(served, sealed(context)).prove() as peer:
            assert isinstance(greet(peer, role), Welcome)
            assert peer.ask(Renew(2, "j")) == Ok(2)


def test_a_certificate_alone_is_not_enough(
    served: Serving, certs: CertFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RefusedError, match="authkey"):
        Yard(f"127.0.0.1:{served.port}", "another key that is long", ssl=worker_of(certs))
    eventually(lambda: "worker a (127.0.0.1:" in caplog.text)
    assert "TASKYARD_AUTHKEY" in caplog.text


def test_others_get_nothing_and_the_log_says_why(
    served: Serving, certs: CertFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gets_nothing(served, careless(None))
    eventually(lambda: "showed no certificate" in caplog.text)
    gets_nothing(served, careless(files(yard(tmp_path / "other"), "client")))
    eventually(lambda: "not of the authority" in caplog.text)
    gets_nothing(served, careless(add(certs, "old", CLIENT, now() - timedelta(days=9), timedelta(days=1))))
    eventually(lambda: "has expired" in caplog.text)
    gets_nothing(served, careless(files(certs, "master")))
    eventually(lambda: "another role" in caplog.text)
    with Raw(served) as peer:
        peer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in b"".join(peer.rest())
    eventually(lambda: "HTTP" in caplog.text)
    eventually(lambda: served.server.connections == 0)
    assert str(tmp_path) not in caplog.text


def test_a_silent_peer_does_not_stay_and_delays_nobody(served: Serving, certs: CertFolder) -> None:
    silent = Raw(served)
    with Raw(served, sealed(client_of(certs))).prove() as peer:
        peer.greet()
    assert silent.rest() == []
    silent.sock.close()
    eventually(lambda: served.server.connections == 0)


def test_a_client_that_is_not_let_in_is_told_and_does_not_try_for_ever(
    served: Serving, certs: CertFolder, tmp_path: Path
) -> None:
    foreign = careless(files(yard(tmp_path / "other"), "client"))
    with pytest.raises(RefusedError, match=r"hung up right after|does not take|refused our certificate"):
        dial(served, foreign, patience=60)
    with pytest.raises(UnreachableError, match="TLS"):
        dial(served, None, patience=0.2)


def test_a_revocation_counts_at_once_and_ends_what_is_open(
    served: Serving, certs: CertFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """By host, without a restart; the others stay connected."""
    mine = worker_of(certs)
    other = Raw(served, sealed(client_of(certs))).prove()
    with other, Raw(served, sealed(mine)).prove() as peer:
        other.greet("c1")
        greet(peer, "worker")
        certs.revoke("a", now())
        assert peer.rest() == []
        assert other.ask(Renew(2, "j")) == Ok(2)
        eventually(lambda: "worker a (127.0.0.1:" in caplog.text and "was revoked" in caplog.text)
        with pytest.raises(RefusedError):
            dial(served, mine)
        eventually(lambda: "is revoked" in caplog.text)
        assert other.ask(Renew(3, "j")) == Ok(3)


def test_new_certificates_come_into_use_without_a_restart(
    served: Serving, certs: CertFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = client_of(certs)
    caplog.set_level(logging.INFO)
    with Raw(served, sealed(before)).prove() as peer:
        peer.greet()
        for path in yard(tmp_path / "new").path.iterdir():
            shutil.copy(path, certs.path / path.name)
        eventually(lambda: "new files" in caplog.text)
        with pytest.raises(TaskyardError, match="not of the authority"):
            dial(served, before)
        assert peer.ask(Renew(2, "j")) == Ok(2)
        with Raw(served, sealed(client_of(certs))).prove() as another:
            another.greet("w2")


def test_files_of_no_use_are_named_and_change_nothing(
    served: Serving, certs: CertFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (certs.path / "master.pem").write_text("nonsense\n")
    eventually(lambda: "stay in use" in caplog.text)
    assert "TASKYARD_TLS_CERT" in caplog.text
    with Raw(served, sealed(client_of(certs))).prove() as peer:
        peer.greet()
    assert caplog.text.count("stay in use") == 1


@pytest.mark.parametrize("allowed", [1, 0])
def test_an_old_python_may_come_over_tls_unless_the_setting_says_no(certs: CertFolder, allowed: int) -> None:
    """MD5 proves the key inside of TLS, whose ends have shown certificates."""
    with (
        serving(allow_md5=allowed, **tls_of(certs)) as served,
        Raw(served, sealed(client_of(certs))) as peer,
    ):
        challenge = peer.read()
        assert challenge
        peer.send(hmac.digest(KEY.encode(), challenge[len(b"#CHALLENGE#") :], "md5"))
        assert peer.read() == (b"#WELCOME#" if allowed else b"#FAILURE#")


def test_unmodified_scripts_of_every_python_come_through_the_tunnel(
    served: Serving, certs: CertFolder, tmp_path: Path
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
    environ |= {**settings(certs, "client"), "TASKYARD_ADDRESS": f"127.0.0.1:{served.port}"}
    words = [sys.executable, "-m", "taskyard_ctl", "tunnel", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as tunnel:
        try:
            assert tunnel.stdout
            host, port = tunnel.stdout.readline().strip().split(":")
            for program in all_pythons().values():
                tutorial(program, "queue_methods.py", (host, int(port)), KEY).output()
        finally:
            tunnel.kill()


def test_a_client_that_dials_again_shows_its_new_certificate(
    certs: CertFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a restart: its old one is revoked while it is connected, and a new one lies there already."""
    monkeypatch.setattr(sealing, "PERIOD", 1.0)
    with serving(**tls_of(certs)) as served:
        environ = {**settings(certs, "client"), "TASKYARD_AUTHKEY": KEY}
        environ["TASKYARD_ADDRESS"] = f"127.0.0.1:{served.port}"
        with Yard.from_env(environ, patience=20.0) as it:
            it.call(Renew(0, "j"))
            certs.revoke("client", now())
            certs.renew(CLIENT, now())
            eventually(lambda: "was revoked" in caplog.text)
            assert isinstance(it.call(Renew(0, "j"), timeout=20), Ok)
