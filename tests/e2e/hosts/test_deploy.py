"""Several hosts, from the first deploy to the last: what goes right, and what goes wrong on the way."""

import json
import re
import signal
import ssl
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import eventually
from test_shipping import make_small
from testhosts import CONTAINERD, TASKS, Project, TestHost, sh

from taskyard_ctl.site import Site
from taskyard_ctl.yard import YardFolder

pytestmark = pytest.mark.timeout(400)


@pytest.mark.cut
def test_the_first_deploy_and_the_second(yard: Project) -> None:
    """Three hosts with nothing but ssh and an engine; then an empty plan; then nothing is left."""
    before = yard.hosts["one"].docker("volume ls -q")
    plan = yard("deploy", "hosts.toml", "--dry-run")
    assert "one: start the master (" in plan
    assert not yard.hosts["one"].docker("ps -aq")
    yard("deploy", "hosts.toml")
    assert "3 of 3 hosts are as they should be" in yard.said
    assert yard.joined() == ["three", "three", "two", "two"]
    yard("deploy")
    assert "nothing is to do" in yard.said
    assert yard("deploy", "--dry-run") == ""
    books = yard("deploy", "--audit").splitlines()
    assert any(re.match(r"\S+Z \S+@\S+ deploy \w+: one: start the master", line) for line in books)
    assert books[-1].endswith(": done")
    assert (yard.path / "certs").stat().st_mode & 0o777 == 0o700

    key = re.search(r"AUTHKEY=(\w+)", (yard.path / ".env").read_text())
    assert key is not None
    for host in yard.hosts.values():
        for container in host.docker("ps -q").split():
            raw = host.docker(f"inspect {container}")
            [seen] = json.loads(raw)
            limits = seen["HostConfig"]
            assert key[1] not in raw
            assert seen["Config"]["User"] == "10001:10001"
            assert limits["ReadonlyRootfs"] and limits["CapDrop"] == ["ALL"]
            assert limits["SecurityOpt"] == ["no-new-privileges:true"]
            assert limits["RestartPolicy"]["Name"] == "unless-stopped"
            assert limits["PidsLimit"] == 1024 and limits["LogConfig"]["Config"]["max-size"] == "10m"
            assert seen["State"]["Health"]

    yard("destroy", "--volumes", "--yes")
    for host in yard.hosts.values():
        assert not host.docker("ps -aq")
        assert not host.docker("images -q taskyard-squares-*")
        assert not host.docker("network ls -q --filter type=custom")
    assert yard.hosts["one"].docker("volume ls -q") == before
    assert not (yard.path / "certs").exists()


@pytest.mark.cut
def test_the_verbs_reach_all_hosts(yard: Project, tmp_path: Path) -> None:
    """`run`, `scale`, `drain`, `logs` and `down`, as on one host."""
    yard("deploy", "hosts.toml")
    results = [json.loads(line) for line in yard("run", "jobs:square", "--range", "0:40").splitlines()]
    assert sorted(result["value"] for result in results) == [n * n for n in range(40)]
    assert {result["host"] for result in results} <= {"two", "three"}

    yard("scale", "7")
    assert sorted(map(yard.joined().count, ("two", "three"))) == [3, 4]
    yard("scale", "1", "--host", "three")
    assert yard.joined().count("three") == 1
    assert "'four'" in yard("scale", "1", "--host", "four", code=2)
    yard("drain", "--host", "two", "--deadline", "20")
    assert yard.joined() == ["three"]

    yard.look_at_dashboard()

    lines = yard("logs").splitlines()
    assert any(re.match(r"two\.worker-\d +\| .*squaring", line) for line in lines)
    assert any(line.startswith("master ") for line in lines)
    assert not any(line.startswith("two.") for line in yard("logs", "--host", "three").splitlines())
    yard("logs", "--output-dir", str(tmp_path / "logs"))
    files = {path.name for path in (tmp_path / "logs").iterdir()}
    assert {"master.log", "two.worker-1.log", "three.worker-1.log"} <= files

    yard("down")
    assert not any(host.docker("ps -aq") for host in yard.hosts.values())
    yard("deploy")
    assert yard.completed() == [40]


@pytest.mark.cut
def test_changed_tasks_roll_out_during_a_job(yard: Project) -> None:
    """New workers join, old ones finish; nothing is lost, nothing runs twice; and back again."""
    yard("deploy", "hosts.toml")
    first = {worker["id"] for worker in yard.status()["workers"]}
    job = yard("submit", "jobs:slow", "--range", "0:4000").strip()  # minutes, as it is
    yard.tasks(TASKS.replace("VERSION = 1", "VERSION = 2").replace("0.25", "0.001"))
    yard("deploy")
    assert "drain and remove 2 workers" in yard.said
    results = yard.results(job)
    assert [result["value"][0] for result in results] == list(range(4000))
    assert {result["attempts"] for result in results} == {1}
    assert {result["value"][1] for result in results} == {1, 2}
    assert not first & {worker["id"] for worker in yard.status()["workers"] if worker["state"] != "missing"}
    assert yard.joined() == ["three", "three", "two", "two"]
    yard("rollback")
    assert json.loads(yard("run", "jobs:slow", "--arg", "0"))["value"] == [0, 1]
    yard("rollback")
    assert json.loads(yard("run", "jobs:slow", "--arg", "0"))["value"] == [0, 2]


@pytest.mark.cut
def test_a_host_is_powered_off_in_the_middle(yard: Project) -> None:
    """The others finish its tasks; it is named; when it is back, it takes part again by itself."""
    yard("deploy", "hosts.toml")
    with yard.start("logs", "-f") as following:
        try:
            job = yard("submit", "jobs:slow", "--range", "0:160").strip()  # longer than a slow look takes
            two = yard.hosts["two"]
            eventually(lambda: any(w["leased"] for w in yard.status()["workers"] if w["host"] == "two"))
            two.power_off()
            results = yard.results(job)
            assert [result["value"][0] for result in results] == list(range(160))
            missing = [w for w in yard.status()["workers"] if w["host"] == "two"]
            assert all(worker["state"] == "missing" for worker in missing)
            two.power_on()
            eventually(lambda: yard.joined() == ["three", "three", "two", "two"], "two is back", 60)
            yard("run", "jobs:square", "--range", "0:200")
            assert following.poll() is None
        finally:
            following.send_signal(signal.SIGINT)
        out, _ = following.communicate(timeout=20)
    after = out[out.rindex("joined from two") :]
    assert "squaring" in after and re.search(r"two\.worker-\d +\|", after)


@pytest.mark.cut
def test_a_version_that_does_not_start_stops_at_the_first(yard: Project) -> None:
    """Its log is shown, the old version works on, and the next deploy is right again."""
    yard("deploy", "hosts.toml")
    before = sorted(worker["id"] for worker in yard.status()["workers"])
    yard.inventory(two=f'ssh = "root@{yard.hosts["two"].address}"\nenv = {{TASKYARD_SLOTS = "none"}}')
    said = yard("deploy", code=5)
    assert "TASKYARD_SLOTS" in said and "does not start" in said
    assert sorted(worker["id"] for worker in yard.status()["workers"]) == before
    yard.inventory()
    yard("deploy")
    assert "nothing is to do" in yard.said


def test_a_master_that_does_not_start_gives_way_to_the_old_one(yard: Project) -> None:
    """Which has lost nothing."""
    yard("deploy", "hosts.toml")
    yard("run", "jobs:square", "--range", "0:10")
    yard.inventory(one=f'ssh = "root@{yard.hosts["one"].address}"\nenv = {{TASKYARD_LEASE = "soon"}}')
    said = yard("deploy", code=5)
    assert "TASKYARD_LEASE" in said and "the one of before works on" in said
    assert yard.completed() == [10]
    eventually(lambda: len(yard.joined()) == 4, "they reconnect")


def test_a_host_that_is_down_at_the_deploy(yard: Project) -> None:
    """The others are deployed; exit code 5; later it is made up for."""
    yard.inventory(two='ssh = "root@127.0.0.1:1"')
    said = yard("deploy", "hosts.toml", code=5)
    assert re.search(r"two +worker +\? .*cannot be reached", said)
    assert "2 of 3 hosts are as they should be" in said
    assert yard.joined() == ["three", "three"]
    yard.inventory()
    yard("deploy")
    assert yard.joined() == ["three", "three", "two", "two"]
    yard.inventory(one='ssh = "root@127.0.0.1:1"\naddress = "127.0.0.1"')
    assert "it is the master's, so nothing was done" in yard("deploy", code=5)


def test_two_deploys_at_once(yard: Project) -> None:
    """The second is told who, since when and why."""
    with yard.start("deploy", "hosts.toml") as first:
        eventually(lambda: yard.hosts["one"].docker("volume ls -q --filter name=taskyard-squares-lock"))
        said = yard("deploy", code=5)
        assert "has held the deploy lock since" in said and "--unlock" in said
        first.communicate()
    assert first.returncode == 0
    yard("deploy")


@pytest.mark.parametrize(
    "when", ["send image", "start the master", "start 1 worker first", "start 2 workers"]
)
def test_ctrl_c_and_again(yard: Project, when: str) -> None:
    """No lock stays behind, and the next deploy goes on from there."""
    process = yard.start("deploy", "hosts.toml")
    assert process.stderr is not None
    for line in process.stderr:
        if when in line:
            process.send_signal(signal.SIGINT)
            break
    process.communicate()
    assert process.returncode in (0, 130)
    assert not yard.hosts["one"].docker("volume ls -q --filter name=taskyard-squares-lock")
    yard("deploy")
    assert yard.joined() == ["three", "three", "two", "two"]


def test_a_deploy_that_was_killed_leaves_its_lock(yard: Project) -> None:
    """Which `--unlock` takes away."""
    with yard.start("deploy", "hosts.toml") as process:
        eventually(lambda: yard.hosts["one"].docker("volume ls -q --filter name=taskyard-squares-lock"))
        process.kill()
    assert "has held the deploy lock" in yard("deploy", code=5)
    yard("deploy", "--unlock")
    yard("deploy")


def test_a_full_disk_on_one_host(yard: Project) -> None:
    """Is named with its cure; the others are deployed."""
    two = yard.hosts["two"]
    small = make_small(two)
    yard.inventory(two=f'ssh = "root@{two.address}"\ndocker_socket = "{small}"')
    try:
        said = yard("deploy", "hosts.toml", code=5)
    finally:
        two.run("kill $(cat /run/small.pid)")
        eventually(lambda: not two.run("cat /run/small.pid", check=False))
        two.run("umount --lazy /small")
    assert re.search(r"two .*no space left on device.*docker system prune", said)
    assert yard.joined() == ["three", "three"]


def test_an_engine_that_is_stopped(yard: Project) -> None:
    """The job goes on elsewhere, a deploy names it, and it comes back by itself."""
    yard("deploy", "hosts.toml")
    job = yard("submit", "jobs:slow", "--range", "0:60").strip()
    two = yard.hosts["two"]
    two.stop_engine()
    try:
        assert [result["value"][0] for result in yard.results(job)] == list(range(60))
        assert re.search(r"two .*no Docker engine listens at", yard("deploy", code=5))
    finally:
        two.start_engine()
    eventually(lambda: yard.joined() == ["three", "three", "two", "two"], "two is back", 60)
    yard("deploy")
    assert "nothing is to do" in yard.said


def test_hosts_of_all_kinds(yard: Project) -> None:
    """A user who is not root, and an engine with containerd's image store; named without a file."""
    store = yard.lab.host("store", CONTAINERD)
    addresses = [f"root@{store.address}", f"worker@{yard.hosts['two'].address}"]
    try:
        yard("deploy", *addresses)
        assert set(yard.joined()) == {yard.hosts["two"].address}
        yard.tasks(TASKS.replace("VERSION = 1", "VERSION = 2"))
        yard("deploy")
        assert json.loads(yard("run", "jobs:slow", "--arg", "0"))["value"] == [0, 2]
        yard("deploy", addresses[1])
        assert yard.joined()
    finally:
        store.clean()


def test_limits_mounts_and_revoked_hosts(yard: Project) -> None:
    """What hosts.toml says holds; a host that is revoked is shut out until its certificate is renewed."""
    three = yard.hosts["three"]
    three.run("mkdir -p /srv/data && echo hello >/srv/data/file && chmod 755 /srv/data")
    yard.tasks("def read(path):\n    return open(path).read()\n")
    more = 'workers = 1\nmounts = ["/srv/data"]\nlimits = {memory = "200m", cpus = 0.5, pids = 100}'
    yard.inventory(two=f'ssh = "root@{yard.hosts["two"].address}"\nworkers = 0',
                   three=f'ssh = "root@{three.address}"\n{more}')  # fmt: skip
    yard("deploy", "hosts.toml")
    assert json.loads(yard("run", "jobs:read", "--arg", '"/srv/data/file"'))["value"] == "hello\n"
    [seen] = json.loads(three.docker("inspect taskyard-squares-worker-1"))
    limits = seen["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (200 << 20, 500_000_000, 100)
    yard("certs", "hosts.toml", "--revoke", "three")
    assert "--renew three" in yard("deploy", code=2)
    yard("certs", "hosts.toml", "--renew", "three")
    yard("deploy")
    assert yard.joined() == ["three"]


def test_graphics_cards_where_there_are_none(yard: Project) -> None:
    """Is told in one line with its cure; nothing else of that host is started, and it can be put right."""
    two = f'ssh = "root@{yard.hosts["two"].address}"'
    yard.inventory(
        two=f'{two}\ngpus = "all"', three=f'ssh = "root@{yard.hosts["three"].address}"\nworkers = 0'
    )
    said = yard("deploy", "hosts.toml", code=5)
    [line] = [line for line in said.splitlines() if line.startswith("taskyard: ")]
    assert line.startswith("taskyard: two: could not select device driver")
    assert line.endswith(": install their vendor's container toolkit there, or take gpus out of hosts.toml")
    assert not yard.hosts["two"].docker("ps -aq")
    yard.inventory()
    yard("deploy")
    assert yard.joined() == ["three", "three", "two", "two"]


RENEWS_NOTHING = """
import sys
from datetime import timedelta
from taskyard_ctl import certs, cli
certs.RENEW = timedelta(0)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_certificates_near_their_end(yard: Project) -> None:
    """A deploy makes new ones and sends them; workers go on, and no task is lost or run twice."""
    yard("deploy", "hosts.toml", "--dry-run")
    site = Site.of_words(YardFolder(yard.path), (str(yard.path / "hosts.toml"),))
    then = datetime.now(UTC).replace(microsecond=0) - timedelta(days=350)
    for subject in site._subjects():
        site.certs.renew(subject, then)
    old = [sys.executable, "-c", RENEWS_NOTHING, "deploy", "hosts.toml"]  # as of eleven months ago
    sh("env", "-C", str(yard.path), *old, env=yard.lab.environ())
    before = {role: yard.certificate(host, role) for host, role in (("one", "master"), ("two", "worker"))}
    assert all(ends(cert) - time.time() < 16 * 86400 for cert in before.values())

    job = yard("submit", "jobs:slow", "--range", "0:400").strip()
    yard("deploy")
    assert re.search(r"renewed \S+/worker-two\.pem: it ends on \d{4}", yard.said)
    for (host, role), cert in zip((("one", "master"), ("two", "worker")), before.values(), strict=True):
        now = yard.certificate(host, role)
        assert ends(now) - time.time() > 300 * 86400 and now["serialNumber"] != cert["serialNumber"]
    results = yard.results(job)
    assert [result["value"][0] for result in results] == list(range(400))
    assert {result["attempts"] for result in results} == {1}
    assert yard.joined() == ["three", "three", "two", "two"]
    yard("deploy")
    assert "nothing is to do" in yard.said


def ends(certificate: dict[str, Any]) -> float:
    return ssl.cert_time_to_seconds(certificate["notAfter"])


def test_the_journal_moves_to_another_host(yard: Project) -> None:
    """The master's host is lost: with a backup, another one takes its place."""
    yard("deploy", "hosts.toml")
    yard("run", "jobs:square", "--range", "0:25")
    yard("backup", "saved.db")
    yard.hosts["one"].power_off()
    try:
        lost = yard.hosts.pop("one")
        yard.inventory(two=f'role = "master"\nworkers = 1\nssh = "root@{yard.hosts["two"].address}"')
        yard("restore", "saved.db")
        yard("deploy")
        assert yard.completed() == [25]
        assert yard.joined() == ["three", "three", "two"]
        assert "'taskyard down' first" in yard("restore", "saved.db", code=2)
    finally:
        lost.power_on()
        yard.hosts["one"] = lost


def test_a_host_is_taken_out(yard: Project) -> None:
    """Its workers finish, and everything of the yard goes from it."""
    yard("deploy", "hosts.toml")
    three = yard.hosts.pop("three")
    try:
        yard.inventory()
        yard("deploy")
        assert yard.joined() == ["two", "two"]
        assert not three.docker("ps -aq") and not three.docker("volume ls -q")
        assert not three.docker("images -q taskyard-squares-worker")
        yard("deploy")
        assert "nothing is to do" in yard.said
    finally:
        yard.hosts["three"] = three


def test_nothing_of_others_is_touched(yard: Project) -> None:
    """Containers, volumes and images that are not of this yard stay through deploy and destroy."""
    two: TestHost = yard.hosts["two"]
    yard("deploy", "hosts.toml")
    two.docker("tag $(docker images -q taskyard-squares-worker | head -n 1) other:1")
    two.docker("volume create other")
    two.docker("run -d --name other --entrypoint python other:1 -c 'import time; time.sleep(1000)'")
    yard("destroy", "--volumes", "--yes")
    assert two.docker("ps --format '{{.Names}}'") == "other"
    assert two.docker("volume ls -q") == "other"
    yard("deploy", "hosts.toml")
    (yard.path / "certs").rename(yard.path / "certs-of-before")
    assert "a yard of this name is there already" in yard("deploy", code=5)
    assert yard.hosts["one"].docker("ps -q")
    two.docker("rm -f other")
    two.docker("rmi other:1")
