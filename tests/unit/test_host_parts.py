"""The pure parts of deploying to hosts: what containers are made from, what ssh said, who gets how many."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskyard.errors import RefusedError, UnreachableError
from taskyard_ctl.containers import Box, box, keys_digest, list_digest
from taskyard_ctl.hosts import spread
from taskyard_ctl.inventory import Host, Inventory, parse
from taskyard_ctl.plan import Role, Version
from taskyard_ctl.ssh import login_fault
from taskyard_worker.identity import container

TEXT = """
[hosts.one]
ssh = "one"
role = "master"
address = "192.0.2.1:5001"
[hosts.two]
ssh = "two"
env = {LANG = "C.UTF-8", TASKYARD_SLOTS = "2"}
mounts = ["/srv/data", "/srv/out:rw"]
limits = {memory = "1g", cpus = 1.5}
gpus = "all"
"""
ENVIRON = {
    "TASKYARD_AUTHKEY": "a secret of many words", "TASKYARD_ADDRESS": "127.0.0.1:5002", "TASKYARD_LEASE": "7",
    "TASKYARD_SLOTS": "4", "TASKYARD_LOG": "json", "TASKYARD_TASKS_DIR": "./tasks",
    "COMPOSE_PROJECT_NAME": "x",
}  # fmt: skip
V1 = Version("v1", "m:1", "w:1")


def made(role: Role, inventory: Inventory | None = None, version: Version = V1, keys: str = "k") -> Box:
    inventory = inventory or parse(TEXT, "yard")
    host = inventory.hosts[0 if role == "master" else 1]
    return box(inventory, host, role, version, ENVIRON, keys)


def test_a_worker() -> None:
    """Settings of its role go along, the host's own win, and secrets are files."""
    worker = made("worker")
    assert worker.options["environment"] == {
        "LANG": "C.UTF-8", "TASKYARD_ADDRESS": "192.0.2.1:5001",
        "TASKYARD_AUTHKEY_FILE": "/run/secrets/authkey", "TASKYARD_HOST": "two", "TASKYARD_LOG": "json",
        "TASKYARD_SLOTS": "2", "TASKYARD_TASKS_DIR": "/tasks",
        "TASKYARD_TLS_CA": "/run/secrets/ca.pem", "TASKYARD_TLS_CERT": "/run/secrets/cert.pem",
        "TASKYARD_TLS_KEY": "/run/secrets/key.pem",
    }  # fmt: skip
    options = worker.host_options
    assert (options["mem_limit"], options["nano_cpus"]) == (1 << 30, 1_500_000_000)
    assert [(m["Target"], m["ReadOnly"]) for m in options["mounts"]] == [
        ("/run/secrets", True), ("/srv/data", True), ("/srv/out", False),
    ]  # fmt: skip
    assert options["device_requests"][0]["Count"] == -1
    assert "port_bindings" not in options


def test_a_master() -> None:
    """It listens on the port that the inventory names, and has a volume for its journal."""
    master = made("master")
    assert master.host_options["port_bindings"] == {"5000": 5001, "8585": ("127.0.0.1",)}
    assert master.options["environment"]["TASKYARD_LEASE"] == "7"
    assert "TASKYARD_SLOTS" not in master.options["environment"]
    assert master.host_options["mounts"][1]["Source"] == "taskyard-yard-journal"


def test_no_secret_is_in_what_everybody_can_look_at() -> None:
    """Labels, environment, names."""
    for role in ("master", "worker"):
        one = made(role)
        shown = json.dumps([one.options, one.host_options, one.labels("yard", 1)])
        assert ENVIRON["TASKYARD_AUTHKEY"] not in shown


def test_what_makes_a_difference_is_in_the_shape() -> None:
    """And nothing else: the same again is the same."""
    inventory = parse(TEXT, "yard")
    assert made("worker").shape == made("worker").shape
    other = [
        made("worker", version=replace(V1, worker="w:2")),
        made("worker", keys="other"),
        made("worker", parse(TEXT.replace("1.5", "1.0"), "yard")),
        made("worker", parse(TEXT.replace("5001", "5000"), "yard")),
    ]
    assert len({one.shape.digest for one in (made("worker"), *other)}) == 5
    assert made("worker", version=replace(V1, master="m:2")).shape == made("worker").shape
    assert inventory.host("two").env["LANG"] == "C.UTF-8"


def test_the_name_of_keys_tells_nothing_of_them() -> None:
    """It changes with each file, and cannot be made without the key."""
    files = {"ca.pem": b"a", "key.pem": b"b"}
    assert keys_digest(files, b"k") != keys_digest({**files, "key.pem": b"c"}, b"k")
    assert keys_digest(files, b"k") != keys_digest(files, b"other")
    assert keys_digest({"a": b"bc"}, b"k") != keys_digest({"ab": b"c"}, b"k")


def test_a_worker_that_is_revoked_renews_nobody_else() -> None:
    """The master gets the list while it runs; that another master is revoked, all have to know."""
    files = {"ca.pem": b"a", "revoked.pem": b"# said\nPEM\n"}
    worker = {**files, "revoked.pem": b"# said\nrevoked AB worker two 2026-01-01T00:00:00Z\nOTHER\n"}
    master = {**files, "revoked.pem": b"# said\nrevoked AB master one 2026-01-01T00:00:00Z\nOTHER\n"}
    assert keys_digest(files, b"k") == keys_digest(worker, b"k") != keys_digest(master, b"k")
    assert len({list_digest(one["revoked.pem"]) for one in (files, worker, master)}) == 3
    assert list_digest(b"") == ""


@pytest.mark.parametrize(
    ("workers", "have", "expected"),
    [
        (4, {"a": 0, "b": 0}, {"a": 2, "b": 2}),
        (5, {"a": 3, "b": 0}, {"a": 3, "b": 2}),
        (3, {"a": 3, "b": 1}, {"a": 3, "b": 1}),
        (6, {"a": 1, "b": 2, "c": 0}, {"a": 2, "b": 2, "c": 2}),
    ],
)
def test_workers_are_spread_evenly(workers: int, have: dict[str, int], expected: dict[str, int]) -> None:
    """Where there are fewest; nobody loses one."""
    assert spread(workers, have) == expected


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Host key verification failed.", RefusedError, "its key is not known here"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", RefusedError,
         "ssh-keygen -R '[two]:2222'"),
        ("root@two: Permission denied (publickey).", RefusedError, "ssh-copy-id -p 2222 root@two"),
        ("ssh: connect to host two port 22: Connection refused", UnreachableError,
         "cannot be reached: connect to host two port 22: Connection refused"),
        ("kex_exchange_identification: Connection reset by peer", UnreachableError, "wait a minute"),
        ("", UnreachableError, "ended without a word"),
    ],
)  # fmt: skip
def test_what_ssh_said(said: str, kind: type[Exception], words: str) -> None:
    """One line, with the next step."""
    error = login_fault(Host("two", "root@two:2222"), said)
    assert type(error) is kind
    assert words in str(error) and "\n" not in str(error)


def test_a_container_knows_its_id_where_the_engine_lives_in_a_volume(tmp_path: Path) -> None:
    """As on a host that is a container itself: the path has two names that look alike."""
    volume, own = "b6" * 32, "ae36" * 16
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "229 208 0:1 / /proc rw - proc proc rw\n"
        f"230 208 1:0 /volumes/{volume}/_data/containers/{own}/hostname /etc/hostname ro - ext4 /dev/x rw\n"
    )
    assert container(mounts) == own[:12]
    assert container(tmp_path / "none") == ""
