"""The same hosts as a Docker Swarm: one yard for most checks, and what can go wrong."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import eventually
from testhosts import TASKS, Lab, Project

pytestmark = pytest.mark.timeout(400)
ALL = ["three", "three", "two", "two"]


@contextlib.contextmanager
def swarm_yard(folder: Path, lab: Lab) -> Iterator[Project]:
    """A project with three hosts, which are in no Swarm before and after."""
    lab.configure()
    folder.mkdir()
    project = Project(folder, lab)
    yield project
    for host in project.hosts.values():
        host.docker("swarm leave --force", check=False)
        host.clean()
        host.docker("network rm docker_gwbridge", check=False)


@pytest.fixture
def bare(tmp_path: Path, lab: Lab) -> Iterator[Project]:
    """Hosts on which nothing runs."""
    with swarm_yard(tmp_path / "flock", lab) as project:
        yield project


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Project]:
    """A yard that runs on a Swarm of its own; the tests leave it with two workers a host."""
    with swarm_yard(tmp_path_factory.mktemp("swarm") / "flock", lab) as project:
        project.hosts["two"].docker("volume create other")
        project("deploy", "hosts.toml", "--engine", "swarm")
        assert "3 of 3 hosts are as they should be" in project.said
        yield project


def services(yard: Project, name: str = "") -> list[dict[str, Any]]:
    """What the manager tells of the yard's services."""
    one = yard.hosts["one"]
    ids = one.docker(f"service ls -q --filter name=taskyard-flock-{name}")
    found: list[dict[str, Any]] = json.loads(one.docker(f"service inspect {' '.join(ids.split())}"))
    return found


def running(yard: Project) -> dict[str, str]:
    """The workers that take part: their ids, and where they run."""
    return {w["id"]: w["host"] for w in yard.status()["workers"] if w["state"] in ("idle", "running")}


@pytest.mark.cut
def test_the_second_deploy_and_what_the_first_made(swarm: Project) -> None:
    """Nothing is left to do; services are as hardened as containers, and nothing tells the key."""
    assert swarm.joined() == ALL
    assert swarm("deploy", "--dry-run") == ""
    swarm("deploy")
    assert "nothing is to do" in swarm.said
    [master], [worker, _] = services(swarm, "master"), services(swarm, "worker")
    key = (swarm.path / ".env").read_text().partition("AUTHKEY=")[2].split()[0]
    assert len(key) >= 16 and key not in json.dumps([master, worker])
    for one in (master["Spec"], worker["Spec"]):
        container = one["TaskTemplate"]["ContainerSpec"]
        assert one["EndpointSpec"]["Mode"] == "dnsrr"
        assert container["ReadOnly"] and container["CapabilityDrop"] == ["ALL"]
        assert container["Privileges"]["NoNewPrivileges"] and container["User"] == "10001:10001"
        assert {s["File"]["Name"] for s in container["Secrets"]} >= {"authkey", "key.pem"}
        assert one["TaskTemplate"]["Resources"]["Limits"]["Pids"] == 1024
    [port] = master["Spec"]["EndpointSpec"]["Ports"]
    assert (port["PublishedPort"], port["PublishMode"]) == (5000, "host")
    assert worker["Spec"]["Mode"]["Replicated"]["Replicas"] == 2
    [seen] = json.loads(swarm.hosts["two"].docker("inspect $(docker ps -q | head -n 1)"))
    assert seen["HostConfig"]["SecurityOpt"] == ["no-new-privileges=true"]


@pytest.mark.cut
def test_smaller_during_a_job(swarm: Project) -> None:
    """More workers, then fewer while all are busy: the others are not touched, no task is lost or charged."""
    swarm("scale", "6")
    before = running(swarm)
    assert sorted(before.values()) == ["three"] * 3 + ["two"] * 3
    job = swarm("submit", "jobs:slow", "--range", "0:150").strip()
    eventually(
        lambda: all(w["leased"] for w in swarm.status()["workers"] if w["id"] in before), "all are busy"
    )
    swarm("scale", "2")
    after = running(swarm)
    results = swarm.results(job)
    assert [result["value"][0] for result in results] == list(range(150))
    assert {result["attempts"] for result in results} == {1}
    assert len(after) == 2 and after.items() <= before.items()
    assert running(swarm).keys() == after.keys()
    swarm("scale", "2", "--host", "three")
    assert swarm.joined().count("three") == 2
    swarm("deploy")
    assert swarm.joined() == ALL


@pytest.mark.cut
def test_the_verbs(swarm: Project, tmp_path: Path) -> None:
    """`run`, `drain`, `logs`, `dashboard` and `doctor`, as on one host."""
    results = [json.loads(line) for line in swarm("run", "jobs:square", "--range", "0:40").splitlines()]
    assert sorted(result["value"] for result in results) == [n * n for n in range(40)]
    assert {result["host"] for result in results} <= {"two", "three"}
    swarm("drain", "--host", "two", "--deadline", "20")
    assert swarm.joined() == ["three", "three"]
    swarm("drain", "--host", "two", "--undo")
    swarm("logs", "--output-dir", str(tmp_path / "logs"))
    files = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert "master.log" in files
    assert any("squaring" in text for name, text in files.items() if name.startswith(("two.", "three.")))
    assert not any(line.startswith("two.") for line in swarm("logs", "--host", "three").splitlines())
    swarm.look_at_dashboard()
    seen = {(one["host"], one["check"]): one["found"] for one in json.loads(swarm("doctor", "--json"))}
    assert (seen["one", "swarm"], seen["two", "swarm"]) == ("manager one", "worker two")


@pytest.mark.cut
def test_changed_tasks_roll_out_during_a_job(swarm: Project) -> None:
    """New workers join, old ones finish; nothing is lost, nothing runs twice; and back again."""
    first = running(swarm)
    job = swarm("submit", "jobs:slow", "--range", "0:4000").strip()  # minutes, as it is
    swarm.tasks(TASKS.replace("VERSION = 1", "VERSION = 2").replace("0.25", "0.001"))
    swarm("deploy")
    assert "drain and remove 2 workers" in swarm.said
    results = swarm.results(job)
    assert [result["value"][0] for result in results] == list(range(4000))
    assert {result["attempts"] for result in results} == {1}
    assert {result["value"][1] for result in results} == {1, 2}
    assert not first.keys() & running(swarm).keys()
    assert swarm.joined() == ALL
    swarm("rollback")
    assert json.loads(swarm("run", "jobs:slow", "--arg", "0"))["value"] == [0, 1]


@pytest.mark.cut
def test_a_worker_that_was_stopped_is_started_again(swarm: Project) -> None:
    """As when its host shuts down, also after a drain; the others stay."""
    swarm("drain", "--host", "two", "--deadline", "20")
    before = {w["id"] for w in swarm.status()["workers"] if w["host"] == "two"}
    swarm.hosts["two"].docker("stop $(docker ps -q)")
    eventually(lambda: swarm.joined() == ALL, "they are back", 60)
    assert not before & running(swarm).keys()


@pytest.mark.cut
def test_destroy_removes_what_deploying_made_and_nothing_else(swarm: Project) -> None:
    """The Swarm too, as it was made for the yard."""
    hosts = swarm.hosts.values()
    swarm("destroy", "--volumes", "--yes")
    for host in hosts:
        assert host.docker("ps -aq") == ""
        assert host.docker("images -q --filter reference='taskyard-flock-*'") == ""
        assert host.docker("info -f '{{.Swarm.LocalNodeState}}'") == "inactive"
        assert "overlay" not in host.docker("network ls --format '{{.Driver}}'")
    assert [host.docker("volume ls -q") for host in hosts] == ["", "other", ""]
    assert not (swarm.path / "certs").exists()


def test_a_swarm_that_was_there_before_stays(bare: Project) -> None:
    """With its service, its secret and its labels; only what the yard brought goes."""
    one, two = bare.hosts["one"], bare.hosts["two"]
    one.docker(f"swarm init --advertise-addr {one.address}")
    one.docker("node update --label-add disk=fast one")
    bare("deploy", "hosts.toml", "--engine", "swarm")
    one.run("echo hello | docker secret create other -")
    one.docker("tag $(docker images -q taskyard-flock-master | head -n 1) other:1")
    one.docker(
        "service create --detach --no-resolve-image --name other --endpoint-mode dnsrr --no-healthcheck"
        " --constraint node.hostname==one --entrypoint python other:1 -c 'import time; time.sleep(1000)'"
    )
    bare("destroy", "--volumes", "--yes")
    assert one.docker("service ls --format '{{.Name}}'") == "other"
    assert one.docker("secret ls --format '{{.Name}}'") == "other"
    assert one.docker("config ls -q") == ""
    assert json.loads(one.docker("node inspect one -f '{{json .Spec.Labels}}'")) == {"disk": "fast"}
    assert two.docker("info -f '{{.Swarm.LocalNodeState}}'") == "active"  # what is not ours may run there
    one.docker("service rm other")
    eventually(lambda: not one.docker("ps -q"), "the other service ends")
    one.docker("rmi -f other:1")


def test_a_version_that_does_not_start_stops_at_the_first(bare: Project) -> None:
    """Its log is shown, and the old version works on: workers, and a master that Swarm puts back."""
    bare("deploy", "hosts.toml", "--engine", "swarm")
    bare("run", "jobs:square", "--range", "0:10")
    before = running(bare)
    bare.inventory(two=f'ssh = "root@{bare.hosts["two"].address}"\nenv = {{TASKYARD_SLOTS = "none"}}')
    said = bare("deploy", code=5)
    assert "TASKYARD_SLOTS" in said and "does not start" in said
    assert running(bare) == before
    bare.inventory(one=f'ssh = "root@{bare.hosts["one"].address}"\nenv = {{TASKYARD_LEASE = "soon"}}')
    said = bare("deploy", code=5)
    assert "TASKYARD_LEASE" in said and "the one of before works on" in said
    eventually(lambda: running(bare) == before, "they are back", 60)
    assert bare.completed() == [10]
    bare.inventory()
    bare("deploy")
    assert bare.joined() == ALL


def test_a_host_is_powered_off_in_the_middle(bare: Project) -> None:
    """The other finishes its tasks; when it is back Swarm gives it its workers again."""
    bare("deploy", "hosts.toml", "--engine", "swarm")
    job = bare("submit", "jobs:slow", "--range", "0:240").strip()
    two = bare.hosts["two"]
    eventually(lambda: any(w["leased"] for w in bare.status()["workers"] if w["host"] == "two"), "it works")
    two.power_off()
    results = bare.results(job)
    assert [result["value"][0] for result in results] == list(range(240))
    assert bare.joined() == ["three", "three"]
    two.power_on()
    eventually(lambda: bare.joined() == ALL, "two is back", 90)
    bare("deploy")
    assert "nothing is to do" in bare.said


def test_hosts_that_differ_and_one_that_goes(bare: Project) -> None:
    """As hosts.toml says; one that is taken out leaves the Swarm when its workers are done."""
    three = bare.hosts["three"]
    three.run("mkdir -p /srv/data && echo hello >/srv/data/file && chmod 755 /srv/data")
    three.run("hostname otherwise && kill $(cat /run/docker.pid)")
    three.wait()
    more = 'workers = 3\nmounts = ["/srv/data"]\nlimits = {memory = "200m"}\nlabels = {disk = "fast"}'
    bare.inventory(three=f'ssh = "root@{three.address}"\n{more}')
    bare("deploy", "hosts.toml", "--engine", "swarm")
    assert bare.joined() == ["three", "three", "three", "two", "two"]
    assert len(services(bare, "worker")) == 2
    labels = json.loads(bare.hosts["one"].docker("node inspect otherwise -f '{{json .Spec.Labels}}'"))
    assert labels["taskyard.flock.label.disk"] == "fast"
    before = running(bare)
    bare.inventory(three=f'ssh = "root@{three.address}"\n{more.replace("3", "1")}')
    bare("deploy")
    assert bare.joined() == ["three", "two", "two"]
    assert running(bare).items() <= before.items()
    gone = bare.hosts.pop("three")
    try:
        bare.inventory()
        bare("deploy")
        assert bare.joined() == ["two", "two"] and running(bare).items() <= before.items()
        assert not gone.docker("ps -aq") and not gone.docker("volume ls -q")
        assert gone.docker("info -f '{{.Swarm.LocalNodeState}}'") == "inactive"
        bare("deploy")
        assert "nothing is to do" in bare.said
    finally:
        bare.hosts["three"] = gone
        gone.run("hostname three && kill $(cat /run/docker.pid)")
        gone.wait()


def test_what_swarm_cannot_do_is_said_at_once(bare: Project) -> None:
    """And nothing was done."""
    one, two = bare.hosts["one"], bare.hosts["two"]
    bare.inventory('gpus = "all"')
    assert "Swarm hands no graphics cards" in bare("deploy", "hosts.toml", "--engine", "swarm", code=5)
    bare.inventory()
    two.docker(f"swarm init --advertise-addr {two.address}")
    assert "is in another Swarm than one" in bare("deploy", "hosts.toml", "--engine", "swarm", code=5)
    assert one.docker("info -f '{{.Swarm.LocalNodeState}}'") == "inactive"
    two.docker("swarm leave --force")
    bare("deploy", "hosts.toml", "--engine", "ssh")
    assert "runs without Swarm there" in bare("deploy", "--engine", "swarm", code=5)
    bare("run", "jobs:square", "--range", "0:5")
    bare("down")
    bare("deploy", "--engine", "swarm")
    assert bare.joined() == ALL and bare.completed() == [5]
