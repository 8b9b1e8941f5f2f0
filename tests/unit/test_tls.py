"""tls_context.py and what it rests on: who gets in and who does not, over real sockets."""

import os
import ssl
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pythons import python
from tlspeers import careless, dial, impostor, listening, master_of, not_let_in, plain_answer, worker_of
from yardcerts import CLIENT, MASTER, WORKER, add, files, now, settings, store, yard

from taskyard.errors import RefusedError, SettingsError, UnreachableError
from taskyard.settings import Settings
from taskyard.tls_context import LiveContext, client_side, server_side, side
from taskyard.tls_faults import hung_up, refusal
from taskyard.tls_files import Files
from taskyard.tls_identity import Identity, own_identity, peer_name
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.certs import Subject

ROOT = Path(__file__).parents[2]
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> CertFolder:
    return yard(tmp_path_factory.mktemp("yard") / "certs")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> CertFolder:
    return yard(tmp_path_factory.mktemp("foreign") / "certs")


# -- who gets in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "master", "::1"])
def test_a_pair_of_one_yard_talks_by_every_name_of_the_master(certs: CertFolder, name: str) -> None:
    with listening(master_of(certs)) as listener, dial(listener.port, worker_of(certs), name) as wire:
        assert wire.recv(5) == b"hello"
        assert wire.version() == "TLSv1.3"
        master, worker = peer_name(wire), listener.outcome()
        assert isinstance(worker, Identity)
        assert (str(master), str(worker)) == ("master master", "worker a")
        assert "127.0.0.1" in master.names
        assert worker.names == ("a",)
        assert not worker.once
        assert 0 < worker.ends - now().timestamp() - 364 * 86400 < 2 * 86400
        wire.sendall(b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += wire.recv(1 << 16)


def test_no_tickets_are_given_out(certs: CertFolder) -> None:
    """With one, a peer could come back after it was revoked."""
    with listening(master_of(certs)) as listener, dial(listener.port, worker_of(certs)) as wire:
        assert wire.recv(5) == b"hello"
        assert wire.session is not None
        assert not wire.session.has_ticket


def test_only_the_yards_authority_is_trusted(certs: CertFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(certs.path / "keys.log"))
    for context in (master_of(certs), worker_of(certs)):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert len(context.get_ca_certs()) == 1
        assert context.keylog_filename is None


# -- who does not ------------------------------------------------------------------------------------


def test_a_peer_without_a_certificate(certs: CertFolder) -> None:
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, careless(None))
        assert "showed no certificate" in listener.refused()


def test_a_peer_of_another_authority(certs: CertFolder, foreign: CertFolder) -> None:
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, careless(files(foreign, "worker-a")))
        assert "not of the authority in TASKYARD_TLS_CA" in listener.refused()


def test_an_expired_peer(certs: CertFolder) -> None:
    expired = add(certs, "expired", at=now() - 2 * DAY, life=DAY)
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, careless(expired))
        said = listener.refused()
    assert "has expired" in said
    assert f"{now():%Y-%m-%d}" in said  # what the clock says here: it may be that one that is wrong


def test_a_peer_of_the_future(certs: CertFolder) -> None:
    early = add(certs, "early", at=now() + 2 * DAY)
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, careless(early))
        assert "not valid yet" in listener.refused()


def test_a_revoked_peer_and_no_other(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    worker, client = worker_of(certs), side(files(certs, "client"), server=False)
    certs.revoke("a", now())
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, worker)
        assert "is revoked" in listener.refused()
        with dial(listener.port, client) as wire:
            assert wire.recv(5) == b"hello"


def test_a_masters_certificate_does_not_dial_and_a_workers_does_not_serve(certs: CertFolder) -> None:
    with listening(master_of(certs)) as listener:
        not_let_in(listener.port, careless(files(certs, "master")))
        assert "for another role" in listener.refused()
    with listening(impostor(add(certs, "playing", replace(WORKER, names=("127.0.0.1",))))) as listener:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            dial(listener.port, worker_of(certs))
        assert "for another role" in str(refusal(caught.value, "the master"))


def test_a_plain_peer_gets_nothing_but_the_end(certs: CertFolder) -> None:
    with listening(master_of(certs)) as listener:
        answer = plain_answer(listener.port, b"\0\0\0\x10#CHALLENGE#12345")
        assert len(answer) < 8, "at most an alert of TLS"
        assert "does not speak TLS" in listener.refused()
        assert len(plain_answer(listener.port, b"GET / HTTP/1.1\r\n\r\n")) < 8
        assert "HTTP" in listener.refused()


def test_tls_1_2_is_refused(certs: CertFolder) -> None:
    old = careless(files(certs, "worker-a"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with listening(master_of(certs)) as listener:
        with pytest.raises(ssl.SSLError) as caught:
            dial(listener.port, old)
        assert "does not speak TLS 1.3" in str(refusal(caught.value, "the master"))
        assert "does not speak TLS 1.3" in listener.refused()


@pytest.mark.parametrize("name", ["elsewhere", "127.0.0.2", "MASTER.example"])
def test_a_master_under_another_name(certs: CertFolder, name: str) -> None:
    with listening(master_of(certs)) as listener, pytest.raises(ssl.SSLCertVerificationError) as caught:
        dial(listener.port, worker_of(certs), name)
    assert "not for this name" in str(refusal(caught.value, "the master"))


def test_a_common_name_is_no_name_to_dial(certs: CertFolder) -> None:
    context = worker_of(certs)
    assert context.check_hostname
    assert not context.hostname_checks_common_name


def test_a_master_of_another_authority_or_an_expired_one(certs: CertFolder, foreign: CertFolder) -> None:
    expired = add(certs, "old-master", MASTER, at=now() - 2 * DAY, life=DAY)
    for it, words in ((files(foreign, "master"), "not of the authority"), (expired, "has expired")):
        with listening(impostor(it)) as listener, pytest.raises(ssl.SSLCertVerificationError) as caught:
            dial(listener.port, worker_of(certs))
        fault = refusal(caught.value, "the master at h:1")
        assert isinstance(fault, RefusedError)
        assert str(fault).startswith("the master at h:1: ")
        assert words in str(fault)


def test_a_revoked_master(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    context = impostor(files(certs, "master"))
    certs.revoke("master", now())
    with listening(context) as listener, pytest.raises(ssl.SSLCertVerificationError) as caught:
        dial(listener.port, worker_of(certs))
    assert "is revoked" in str(refusal(caught.value, "the master"))


def test_faults_without_tls_in_them() -> None:
    assert isinstance(refusal(ConnectionRefusedError(111, "Connection refused"), "x"), UnreachableError)
    assert "in time" in str(refusal(TimeoutError(), "x"))
    assert "hung up" in str(refusal(ssl.SSLEOFError(8, "EOF occurred"), "x"))
    assert "TLS failed (odd)" in str(refusal(ssl.SSLError(1, "odd"), "x"))
    assert "hung up" in str(hung_up("x"))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a certificate"),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "is revoked"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "has expired"),
        ("TLSV1_ALERT_UNKNOWN_CA", "not of its authority"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "does not take our certificate"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "does not speak TLS 1.3"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "TLSV1_ALERT_INTERNAL_ERROR"),
    ],
)
def test_alerts_in_words(reason: str, words: str) -> None:
    fault = ssl.SSLError(1, "x")
    fault.reason = reason
    assert words in str(refusal(fault, "the master"))
    assert "{" not in str(refusal(fault, "the master"))


# -- our own files -----------------------------------------------------------------------------------


def says(it: Files, *words: str, server: bool = False) -> None:
    """Making a context raises one line with these words and a cure."""
    with pytest.raises(SettingsError) as caught:
        side(it, server=server)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_files_that_are_missing_or_closed(certs: CertFolder, tmp_path: Path) -> None:
    it = files(certs, "worker-a")
    for name, variable in (("ca", "TLS_CA"), ("cert", "TLS_CERT"), ("key", "TLS_KEY")):
        for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
            says(replace(it, **{name: str(path)}), f"TASKYARD_{variable}: {path}", why, "`taskyard certs`")


def test_files_that_hold_something_else(certs: CertFolder, tmp_path: Path) -> None:
    it = files(certs, "worker-a")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate\n")
    says(replace(it, ca=str(garbage)), "TASKYARD_TLS_CA", "holds no certificate", "`taskyard certs`")
    says(replace(it, cert=str(garbage)), "TASKYARD_TLS_CERT", "holds no certificate", "`taskyard certs`")
    says(replace(it, key=str(garbage)), "TASKYARD_TLS_KEY", "cannot be used as a key", "`taskyard certs`")
    says(replace(it, revoked=str(garbage)), "list of revoked", "holds no certificate", "`taskyard certs`")


def test_a_key_that_does_not_match(certs: CertFolder) -> None:
    it = files(certs, "worker-a")
    says(replace(it, key=files(certs, "client").key), "TASKYARD_TLS_KEY", "is not the key of", it.cert)


def test_a_key_with_a_password_is_not_asked_for(certs: CertFolder, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    locked = tmp_path / "locked.key"
    key = s.load_pem_private_key((certs.path / "worker-a.key").read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret"))
    )
    says(replace(files(certs, "worker-a"), key=str(locked)), "TASKYARD_TLS_KEY", "asks for a password")


def test_a_certificate_of_another_authority_role_or_time(certs: CertFolder, foreign: CertFolder) -> None:
    mixed = replace(files(certs, "worker-a"), ca=files(foreign, "worker-a").ca, revoked=None)
    says(mixed, "TASKYARD_TLS_CERT", "not of the authority", mixed.ca, "`taskyard certs`")
    says(files(certs, "worker-a"), "is not for a master", server=True)
    says(files(certs, "master"), "is not for who dials", server=False)
    began = now() - 3 * DAY
    expired = add(certs, "expired", at=began, life=DAY)
    says(expired, "(worker a) expired on", f"{began + DAY:%Y-%m-%d %H:%M} UTC", "`taskyard certs` renews it")
    says(add(certs, "early", at=now() + 2 * DAY), "begins on", "set the clock")


def test_a_revoked_certificate_of_our_own(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    kept = store(certs, "kept", certs.pair("worker-a"))
    certs.revoke("a", now())
    says(kept, "TASKYARD_TLS_CERT", "is revoked", "--renew")


def test_a_list_of_another_authority_shuts_out_loudly(certs: CertFolder, foreign: CertFolder) -> None:
    it = replace(files(certs, "master"), revoked=files(foreign, "master").revoked)
    says(it, "TASKYARD_TLS_CERT", "unable to get certificate CRL", server=True)
    with pytest.raises(SettingsError, match="no such list"):
        server_side(it.ca, it.cert, it.key, str(certs.path / "none.pem"))


def test_who_we_are(certs: CertFolder) -> None:
    me = own_identity(files(certs, "worker-a"), server=False)
    assert (me.role, me.host, me.names) == ("worker", "a", ("a",))
    assert me.serial == certs.pair("worker-a").cert.serial_number
    later = me.ends + 1
    with pytest.raises(SettingsError, match="expired on"):
        own_identity(files(certs, "worker-a"), server=False, now=later)
    pair, _ = certs.one_use("new", now())
    assert own_identity(store(certs, "once", pair), server=False).once


def test_settings_name_the_files(certs: CertFolder, tmp_path: Path) -> None:
    assert Files.of(Settings.from_env({}, need_key=False)) is None
    found = Files.of(Settings.from_env(settings(certs, "master"), need_key=False))
    assert found == files(certs, "master")
    client_side(found.ca, files(certs, "client").cert, files(certs, "client").key)
    assert found.list == found.revoked
    assert replace(found, revoked=str(tmp_path / "none")).list is None


# -- while it runs -----------------------------------------------------------------------------------


def test_a_running_master_takes_up_what_changed(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    live = LiveContext(files(certs, "master"), server=True)
    worker, serial = worker_of(certs), certs.pair("worker-a").cert.serial_number
    assert not live.refresh()
    with listening(live.context) as listener:
        with dial(listener.port, worker) as wire:
            assert wire.recv(5) == b"hello"
            assert isinstance(listener.outcome(), Identity)
        certs.revoke("a", now())
        assert live.refresh()
        assert not live.refresh()
        assert live.revoked == {serial}
        listener.context = live.context
        not_let_in(listener.port, worker)
        assert "is revoked" in listener.refused()
        certs.renew(MASTER, now())
        certs.renew(WORKER, now())
        assert live.refresh()
        listener.context = live.context
        with dial(listener.port, worker_of(certs)) as wire:
            assert wire.recv(5) == b"hello"
            assert peer_name(wire).serial == certs.pair("master").cert.serial_number


def test_useless_new_files_leave_the_old_ones_in_use(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    live = LiveContext(files(certs, "master"), server=True)
    before = live.context
    certs.revoke("a", now())
    assert live.refresh()
    revoked = live.revoked
    (certs.path / "revoked.pem").rename(certs.path / "away")
    with pytest.raises(SettingsError, match="is gone"):
        live.refresh()
    assert not live.refresh(), "it is said once"
    assert live.revoked == revoked
    assert live.context is not before
    (certs.path / "away").rename(certs.path / "revoked.pem")
    assert live.refresh()
    (certs.path / "master.key").write_text("half")
    with pytest.raises(SettingsError, match="cannot be used as a key"):
        live.refresh()
    with listening(live.context) as listener, dial(listener.port, side(files(certs, "client"), server=False)):
        pass


def test_a_list_that_comes_later_counts(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    (certs.path / "revoked.pem").rename(certs.path / "away")
    live = LiveContext(files(certs, "master"), server=True)
    assert not live.context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    (certs.path / "away").rename(certs.path / "revoked.pem")
    assert live.refresh()
    assert live.context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


# -- other Pythons -----------------------------------------------------------------------------------

TALK = """
import socket, sys, threading
from taskyard.tls_context import client_side, server_side
from taskyard.tls_identity import peer_name
ca, revoked, *pairs = sys.argv[1:]
here, there = socket.socketpair()
def serve():
    with server_side(ca, *pairs[:2], revoked).wrap_socket(there, server_side=True) as peer:
        peer.sendall(str(peer_name(peer)).encode())
threading.Thread(target=serve).start()
with client_side(ca, *pairs[2:], revoked).wrap_socket(here, server_hostname="master") as wire:
    print(wire.recv(100).decode(), "/", peer_name(wire), "/", wire.version())
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_takes_our_certificates(certs: CertFolder, version: str) -> None:
    """With the standard library alone, as in an image; later ones are stricter about certificates."""
    master, worker = files(certs, "master"), files(certs, "worker-a")
    arguments = [master.ca, str(master.revoked), master.cert, master.key, worker.cert, worker.key]
    done = subprocess.run(
        [python(version), "-S", "-c", TALK, *arguments], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "core")}, timeout=60,
    )  # fmt: skip
    assert done.stdout == "worker a / master master / TLSv1.3\n", done.stderr


def test_a_certificate_from_elsewhere_has_a_host_and_no_role(tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    odd = add(certs, "odd", Subject("", "odd.example"))
    assert str(own_identity(odd, server=False)) == "odd.example"
    assert CLIENT.stem == "client"
