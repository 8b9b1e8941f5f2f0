"""`taskyard certs`: what is made, when it is made anew, and who is shut out."""

import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st
from yardcerts import CLIENT, MASTER, WORKER, now, yard

from taskyard.errors import SettingsError, TaskyardError, UsageError
from taskyard.tls_files import revoked_serials
from taskyard_ctl import certhosts
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.certs import (
    AUTHORITY_LIFE,
    BEFORE,
    LIFE,
    RENEW,
    Subject,
    issue,
    names_of,
    new_authority,
    renewal,
    wanted,
)
from taskyard_ctl.cli import Options
from taskyard_ctl.commands.certs import certs as command

ALL = [MASTER, CLIENT, WORKER]
NOW = now()
AUTHORITY = new_authority(NOW)
DAY = timedelta(days=1)


def content(folder: CertFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listed(folder: CertFolder) -> set[int]:
    """Serials that OpenSSL refuses; the lines for people say the same."""
    path = folder.path / "revoked.pem"
    found = x509.load_pem_x509_crl(path.read_bytes())
    assert found.is_signature_valid(folder.authority().cert.public_key())
    serials = {one.serial_number for one in found}
    assert revoked_serials(str(path)) == serials
    return serials


# -- what is made ------------------------------------------------------------------------------------


def test_the_authority_signs_certificates_and_lists_and_nothing_below_does() -> None:
    basics = AUTHORITY.cert.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = AUTHORITY.cert.extensions.get_extension_for_class(x509.KeyUsage)
    assert basics.critical
    assert (basics.value.ca, basics.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    leaf = issue(AUTHORITY, WORKER, NOW).cert
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    for cert in (AUTHORITY.cert, leaf):
        assert cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        assert cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert cert.public_key().curve.name == "secp256r1"


@pytest.mark.parametrize(
    ("subject", "purpose"),
    [
        (MASTER, ExtendedKeyUsageOID.SERVER_AUTH),
        (WORKER, ExtendedKeyUsageOID.CLIENT_AUTH),
        (CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH),
    ],
)
def test_a_role_may_do_its_own_thing_only(subject: Subject, purpose: x509.ObjectIdentifier) -> None:
    cert = issue(AUTHORITY, subject, NOW).cert
    assert list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert cert.not_valid_before_utc == NOW - BEFORE
    assert cert.not_valid_after_utc == NOW + LIFE


def test_two_authorities_have_two_names() -> None:
    assert new_authority(NOW).cert.subject != AUTHORITY.cert.subject


def test_no_certificate_outlives_its_authority() -> None:
    late = NOW + AUTHORITY_LIFE - 2 * RENEW
    assert issue(AUTHORITY, WORKER, late).cert.not_valid_after_utc == AUTHORITY.cert.not_valid_after_utc


NAMES = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,9}){0,2}", fullmatch=True),
)


@given(names=st.lists(NAMES, max_size=5), role=st.sampled_from(["master", "worker", "client"]))
@example(names=["[fe80::1%eth0]", "FE80:0::1", "Build1.Example.", "10.0.0.1", "10.0.0.1"], role="master")
@example(names=["bücher.example"], role="worker")
def test_every_name_is_in_the_certificate_once(names: list[str], role: str) -> None:
    subject = Subject(role, "host-1", tuple(names))
    pair = issue(AUTHORITY, subject, NOW)
    assert names_of(pair.cert) == wanted(subject)
    assert len(set(wanted(subject))) == len(wanted(subject))
    assert renewal(pair, AUTHORITY, subject, NOW) == ""


@pytest.mark.parametrize("host", ["", "a/b", "..", "x" * 65, "a b", "-a"])
def test_hosts_that_are_no_names_are_refused(host: str) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        issue(AUTHORITY, Subject("worker", host), NOW)
    with pytest.raises(UsageError, match="neither a name nor an address"):
        issue(AUTHORITY, Subject("worker", "a", (".ü.",)), NOW)


# -- the folder --------------------------------------------------------------------------------------


def test_a_new_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = CertFolder(tmp_path / "certs")
        changes = folder.ensure(ALL, NOW)
    finally:
        os.umask(before)
    made = ["ca.pem", "master.pem", "client.pem", "worker-a.pem", "revoked.pem"]
    assert [(change.file, change.what) for change in changes] == [(file, "made") for file in made]
    assert mode(folder.path) == 0o700
    for path in folder.path.glob("*.key"):
        assert mode(path) == 0o600
    assert {path.name for path in folder.path.iterdir()} == {
        *made, "ca.key", "master.key", "client.key", "worker-a.key", "history.jsonl",
    }  # fmt: skip
    assert listed(folder) == set()


def test_what_is_good_stays_as_it_is(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    before = content(folder)
    assert folder.ensure(ALL, NOW + LIFE - RENEW) == []
    assert content(folder) == before


def test_what_ends_soon_is_renewed_with_a_new_key(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    before = content(folder)
    folder.ensure([Subject("worker", "b")], NOW + 100 * DAY)
    later = NOW + LIFE - RENEW + DAY
    changes = folder.ensure([*ALL, Subject("worker", "b")], later)
    assert [change.file for change in changes] == ["master.pem", "client.pem", "worker-a.pem"]
    assert {change.what for change in changes} == {"renewed"}
    assert "it ends on" in changes[0].why
    after = content(folder)
    assert after["ca.pem"] == before["ca.pem"]
    assert after["worker-a.key"] != before["worker-a.key"]
    assert folder.ensure(ALL, later) == []


def test_the_authoritys_end_renews_everything(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    folder.revoke("client", NOW)
    later = NOW + AUTHORITY_LIFE - DAY
    folder.ensure([replace(WORKER, host="late")], NOW + AUTHORITY_LIFE - RENEW - DAY)
    folder.revoke("late", NOW + AUTHORITY_LIFE - RENEW - DAY)
    changes = folder.ensure([MASTER, WORKER], later)
    assert [(change.file, change.what) for change in changes] == [
        (file, "renewed") for file in ("ca.pem", "master.pem", "worker-a.pem", "revoked.pem")
    ]
    assert "another authority" in changes[1].why
    assert len(listed(folder)) == 1
    assert folder.ensure([MASTER, WORKER], later) == []


def test_a_new_name_renews_that_certificate_alone(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    master = replace(MASTER, names=("192.0.2.7", "yard.example"))
    [change] = folder.ensure([master, CLIENT, WORKER], NOW)
    assert (change.file, change.why) == ("master.pem", "it is not for 192.0.2.7, yard.example")
    assert folder.ensure(ALL, NOW) == [], "a name that is not wanted any more does no harm"
    [change] = folder.ensure([replace(master, host="m1")], NOW)
    assert "m1" in change.why


def test_a_key_that_others_may_read_is_closed(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    for name in ("ca.key", "worker-a.key"):
        (folder.path / name).chmod(0o644)
    assert [(c.file, c.what) for c in folder.ensure(ALL, NOW)] == [
        ("ca.key", "closed"),
        ("worker-a.key", "closed"),
    ]
    assert mode(folder.path / "ca.key") == 0o600


def test_half_a_pair_or_a_mixed_one_is_made_anew(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    (folder.path / "client.key").unlink()
    (folder.path / "worker-a.key").write_bytes((folder.path / "master.key").read_bytes())
    changes = folder.ensure(ALL, NOW)
    assert [(c.file, c.what, c.why) for c in changes] == [
        ("client.pem", "made", ""), ("worker-a.pem", "renewed", "its key is another"),
    ]  # fmt: skip


def test_two_at_once_make_one_authority(tmp_path: Path) -> None:
    folders = [CertFolder(tmp_path / "certs") for _ in range(4)]
    made: list[list[str]] = []

    def ensure(folder: CertFolder) -> None:
        made.append([change.file for change in folder.ensure(ALL, NOW)])

    threads = [threading.Thread(target=ensure, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, made)) == [0, 0, 0, 5]


# -- revoking ----------------------------------------------------------------------------------------


def test_a_revoked_host_is_out_with_all_that_it_ever_had(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    serials = {folder.pair("worker-a").cert.serial_number}
    folder.renew(WORKER, NOW)
    serials.add(folder.pair("worker-a").cert.serial_number)
    pair, authority = folder.one_use("a", NOW)
    serials.add(pair.cert.serial_number)
    assert authority == (folder.path / "ca.pem").read_text()
    assert pair.cert.not_valid_after_utc == NOW + timedelta(hours=1)

    done = folder.revoke("a", NOW)
    assert {one.serial for one in done} == serials == listed(folder)
    assert not list(folder.path.glob("worker-a.*"))
    text = (folder.path / "revoked.pem").read_text()
    assert f"worker a {NOW:%Y-%m-%dT%H:%M:%SZ}" in text


def test_a_revoked_host_stays_out_until_somebody_says_otherwise(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    folder.revoke("a", NOW)
    for later in (NOW, NOW + 2 * LIFE):
        skipped = [change for change in folder.ensure(ALL, later) if change.file == "worker-a.pem"]
        assert [change.what for change in skipped] == ["skipped"]
        assert "--renew a" in skipped[0].why
    out = listed(folder)
    [change] = folder.renew(WORKER, NOW)
    assert change.what == "renewed"
    assert listed(folder) == out, "the old one stays out"
    assert folder.pair("worker-a").cert.serial_number not in out
    assert folder.ensure(ALL, NOW + 2 * LIFE) != []


def test_the_list_forgets_what_has_ended(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    folder.revoke("a", NOW)
    assert len(listed(folder)) == 1
    later = NOW + LIFE + DAY
    folder.ensure(ALL, later)
    folder.revoke("client", later)
    assert len(listed(folder)) == 1


def test_a_lost_or_changed_list_is_made_again(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    empty = (folder.path / "revoked.pem").read_text()
    folder.revoke("a", NOW)
    out = listed(folder)
    for damage in (empty, "", "garbage"):
        (folder.path / "revoked.pem").write_text(damage)
        assert [change.file for change in folder.ensure([MASTER], NOW)] == ["revoked.pem"]
        assert listed(folder) == out


def test_who_may_be_revoked(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    for host in ("b", "ca", "authority", "worker-b"):
        with pytest.raises(UsageError, match="there are: a, client, master"):
            folder.revoke(host, NOW)
    folder.ensure([Subject("worker", "master")], NOW)
    assert [one.role for one in folder.revoke("worker-master", NOW)] == ["worker"]
    assert [one.role for one in folder.revoke("master", NOW)] == ["master"]
    with pytest.raises(UsageError, match="no certificate that could be revoked"):
        folder.revoke("master", NOW)


# -- what is missing or broken -----------------------------------------------------------------------


def fails(work: Callable[[], object], *words: str) -> None:
    with pytest.raises(TaskyardError) as caught:
        work()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_faults_of_the_folder_are_one_line(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)

    def lost(name: str, *words: str) -> None:
        path = folder.path / name
        kept = path.read_bytes()
        for broken in (None, b"garbage"):
            path.unlink() if broken is None else path.write_bytes(broken)
            fails(lambda: folder.ensure(ALL, NOW), str(path), *words)
            path.write_bytes(kept)

    lost("ca.key")
    lost("ca.pem")
    lost("history.jsonl")
    (folder.path / "ca.key").write_bytes((folder.path / "master.key").read_bytes())
    fails(lambda: folder.ensure(ALL, NOW), "ca.key is not the key of ca.pem")
    fails(lambda: CertFolder(tmp_path / "none").entries(NOW), "holds no certificates", "'taskyard certs'")
    fails(lambda: CertFolder(tmp_path / "no" / "such").ensure(ALL, NOW), "cannot be used")
    (tmp_path / "empty").mkdir()
    fails(lambda: CertFolder(tmp_path / "empty").revoke("a", NOW), "holds no certificates")


def test_everything_can_be_shown_without_the_authoritys_key(tmp_path: Path) -> None:
    folder = yard(tmp_path / "certs", NOW)
    folder.revoke("client", NOW)
    (folder.path / "ca.key").unlink()
    entries = folder.entries(NOW)
    assert [(one.file, one.role, one.host, one.state) for one in entries if one.file != "ca.pem"] == [
        ("master.pem", "master", "master", "ok"),
        ("worker-a.pem", "worker", "a", "ok"),
        ("", "client", "client", "revoked"),
    ]
    assert entries[0].state == "its key is not here"
    assert "it ended on" in folder.entries(NOW + 2 * LIFE)[1].state


# -- hosts -------------------------------------------------------------------------------------------


def test_hosts_of_an_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "user root"\necho "hostname 192.0.2.9"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    inventory = tmp_path / "hosts.toml"
    text = '[hosts.m1]\nrole = "master"\nssh = "root@front:2222"\n[hosts.w1]\nssh = "x@w1"\n[hosts.w2]\n'
    inventory.write_text(text)
    assert certhosts.of_inventory(inventory, ["yard.example"]) == [
        Subject("master", "m1", ("192.0.2.9", "front", "yard.example")),
        CLIENT, Subject("worker", "w1"), Subject("worker", "w2"),
    ]  # fmt: skip
    inventory.write_text('[hosts.m1]\nrole = "master"\naddress = "10.1.1.1"\nworkers = 2\n')
    assert certhosts.of_inventory(inventory) == [
        Subject("master", "m1", ("10.1.1.1",)), CLIENT, Subject("worker", "m1"),
    ]  # fmt: skip
    monkeypatch.setenv("PATH", "/none")
    inventory.write_text('[hosts.m1]\nrole = "master"\nssh = "front"\n')
    assert certhosts.of_inventory(inventory)[0].names == ("front",)
    for broken, words in (
        ("[hosts.a]\n", 'role = "master"'),
        ("hosts = 3", "[hosts.NAME]"),
        ("[", "cannot be read"),
    ):
        inventory.write_text(broken)
        with pytest.raises(SettingsError) as caught:
            certhosts.of_inventory(inventory)
        assert words in str(caught.value)


def test_hosts_without_an_inventory_are_those_that_are_known_and_named() -> None:
    first = certhosts.of_folder([], ["a", "b", "a"], ["192.0.2.1"])
    assert first == [replace(MASTER, names=("192.0.2.1",)), CLIENT, WORKER, Subject("worker", "b")]
    known = [replace(one, names=("kept",)) for one in first]
    assert certhosts.of_folder(known, ["c"], ["x"]) == [
        replace(MASTER, names=("kept", "x")), *known[1:], Subject("worker", "c"),
    ]  # fmt: skip


# -- the command -------------------------------------------------------------------------------------


def taskyard_certs(yard_folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, obj=Options(yard=yard_folder), catch_exceptions=False)


def test_the_command_makes_shows_revokes_and_renews(tmp_path: Path) -> None:
    first = taskyard_certs(tmp_path, "--worker", "a", "--name", "192.0.2.1", "--json")
    assert first.exit_code == 0
    report = json.loads(first.stdout)
    assert report["folder"] == str(tmp_path / "certs")
    assert [change["file"] for change in report["changes"]] == [
        "ca.pem", "master.pem", "client.pem", "worker-a.pem", "revoked.pem",
    ]  # fmt: skip
    again = taskyard_certs(tmp_path)
    assert again.stdout == ""
    assert "are good, the first ends on" in again.stderr

    shown = json.loads(taskyard_certs(tmp_path, "--show", "--json").stdout)
    assert [set(row) for row in shown] == [
        {"file", "role", "host", "names", "not_after", "serial", "state"}
    ] * 4
    assert "192.0.2.1" in shown[1]["names"]
    table = taskyard_certs(tmp_path, "--show").stdout.splitlines()
    assert table[0].split() == ["FILE", "ROLE", "HOST", "ENDS", "STATE", "NAMES"]
    assert table[4].split()[:3] == ["worker-a.pem", "worker", "a"]

    revoked = taskyard_certs(tmp_path, "--revoke", "a", "--json")
    assert json.loads(revoked.stdout)["revoked"] == [
        {"role": "worker", "host": "a", "serial": shown[3]["serial"]}
    ]
    assert not (tmp_path / "certs" / "worker-a.pem").exists()
    assert "revoked" in taskyard_certs(tmp_path, "--show").stdout
    renewed = taskyard_certs(tmp_path, "--renew", "a")
    assert "renewed" in renewed.stderr
    assert (tmp_path / "certs" / "worker-a.key").exists()


def test_the_command_takes_the_inventory_of_the_yard(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text('[hosts.m1]\nrole = "master"\naddress = "192.0.2.5"\n[hosts.w1]\n')
    taskyard_certs(tmp_path)
    shown = json.loads(taskyard_certs(tmp_path, "--show", "--json").stdout)
    assert [(row["file"], row["host"]) for row in shown[1:]] == [
        ("master.pem", "m1"), ("client.pem", "client"), ("worker-w1.pem", "w1"),
    ]  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    taskyard_certs(tmp_path, str(tmp_path / "hosts.toml"), "--dir", str(elsewhere))
    assert (elsewhere / "worker-w1.pem").exists()


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    fails(lambda: taskyard_certs(tmp_path, "--show", "--revoke", "a"), "choose one")
    fails(lambda: taskyard_certs(tmp_path, "--renew", "zz"), "'zz'", "there are: client, master")
    fails(lambda: taskyard_certs(tmp_path, "--show"), "holds no certificates")
