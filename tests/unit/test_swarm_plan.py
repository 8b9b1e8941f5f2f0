"""Deploying to Swarm, without a Swarm: the plan's sentences, and what services are made from."""

import json
from dataclasses import replace
from typing import Any

from taskyard_ctl.inventory import Inventory, parse
from taskyard_ctl.plan import HostNow, Running, Version, mixed
from taskyard_ctl.swarmplan import Cluster, Seat, ServiceNow, SwarmWanted, plan, refusals
from taskyard_ctl.swarmspec import Service, master, worker

V1, V2 = Version("v1", "master:1", "worker:1"), Version("v2", "master:2", "worker:2")
KEY = b"a key of sixteen or more"
HOSTS = """
[defaults]
workers = 2
[hosts.one]
ssh = "one"
role = "master"
address = "192.0.2.1:5001"
[hosts.two]
ssh = "two"
labels = {disk = "fast"}
[hosts.three]
ssh = "three"
"""
ENVIRON = {"TASKYARD_LOG": "json", "TASKYARD_WEB_TOKEN": "t"}


def inventory(text: str = HOSTS) -> Inventory:
    return parse(text, "yard")


def files(whose: str, revoked: bytes = b"") -> dict[str, bytes]:
    own = {"cert.pem": f"cert {whose}".encode(), "key.pem": f"key {whose}".encode()}
    return {"ca.pem": b"ca", "revoked.pem": revoked, "authkey": KEY, **own}


def want(yard: Inventory, version: Version = V1, revoked: bytes = b"", **environ: str) -> SwarmWanted:
    env = {**ENVIRON, **environ}
    workers = {
        host.name: worker(yard, host, version, env, files(host.name, revoked), "a")
        for host in yard.hosts
        if host.workers
    }
    return SwarmWanted(
        version, master(yard, version, env, files("master", revoked), "a"), workers, (version,)
    )


def seats(yard: Inventory, **other: Seat) -> dict[str, Seat]:
    found = {host.name: Seat("active", f"node-{host.name}", host.name) for host in yard.hosts}
    chief = yard.master.name
    return {**found, chief: replace(found[chief], manager=True), **other}


def deployed(yard: Inventory, wanted: SwarmWanted, running: dict[str, int]) -> tuple[Any, Cluster]:
    """Hosts and Swarm after a deploy; `running` are workers by host."""
    now: dict[str, HostNow] = {}
    services = [_now(wanted.master)]
    labels = {}
    for host in yard.hosts:
        here = wanted.workers.get(host.name)
        many = running.get(host.name, 0)
        boxes = [
            Running(f"{host.name}-{n}", "worker", n, here.digest, here.version, service=here.name)
            for n in range(many)
            if here
        ]
        if here:
            services.append(replace(_now(here), replicas=many, live=many))
        images = frozenset({*wanted.version.images})
        now[host.name] = HostNow(2, "amd64", images, tuple(boxes))
        labels[f"node-{host.name}"] = {"taskyard.yard.host": host.name, "mine": "1"}
    labels["node-one"] |= {"taskyard.yard.master": "yes", "taskyard.yard.made": "yes"}
    labels["node-two"] |= {"taskyard.yard.label.disk": "fast", "taskyard.yard.joined": "yes"}
    kept = frozenset(name for one in (wanted.master, *wanted.workers.values()) for name in one.files.values())
    return now, Cluster(seats(yard), labels, tuple(services), True, kept)


def _now(service: Service) -> ServiceNow:
    return ServiceNow(service.name, service.role, service.host, service.digest, service.version)


def said(yard: Inventory, now: Any, cluster: Cluster, wanted: SwarmWanted) -> list[str]:
    return [str(action) for action in plan(yard, now, cluster, wanted)]


# ---------------------------------------------------------------- the plan


def test_the_first_deploy_makes_a_swarm() -> None:
    """The others join it, are labelled, and one worker opens the way."""
    yard = inventory()
    now = {host.name: HostNow(2) for host in yard.hosts}
    nowhere = Cluster({host.name: Seat("inactive", "", host.name) for host in yard.hosts})
    assert said(yard, now, nowhere, want(yard)) == [
        "one: make a Swarm, with this host as its manager",
        "one: send image master:1",
        "one: label its node (host, master)",
        "two: join the Swarm of one",
        "two: send image worker:1",
        "two: label its node (host, disk)",
        "three: join the Swarm of one",
        "three: send image worker:1",
        "three: label its node (host)",
        "one: make the yard's overlay network",
        "one: keep key and certificates as secrets and configs of the Swarm",
        "one: start the master (v1)",
        "two: start 1 worker first (v1)",
        "two: start 1 worker (v1)",
        "three: start 2 workers (v1)",
    ]


def test_the_second_deploy_is_empty() -> None:
    """And so is one while a host does not answer."""
    yard = inventory()
    wanted = want(yard)
    now, cluster = deployed(yard, wanted, {"two": 2, "three": 2})
    assert said(yard, now, cluster, wanted) == []
    del now["three"]
    assert said(yard, now, replace(cluster, seats=seats(yard)), wanted) == []


def test_a_new_version_is_a_new_service_beside_the_old_one() -> None:
    """Only the master's service is changed in its place."""
    yard = inventory()
    now, cluster = deployed(yard, want(yard), {"two": 2, "three": 2})
    wanted = replace(want(yard, V2), kept=(V2, V1))
    assert said(yard, now, cluster, wanted) == [
        "one: send image master:2",
        "two: send image worker:2",
        "three: send image worker:2",
        "one: replace the master (v1 by v2); workers keep what they hold",
        "two: start 1 worker first (v2)",
        "two: start 1 worker (v2)",
        "two: drain and remove 2 workers (v1)",
        "three: start 2 workers (v2)",
        "three: drain and remove 2 workers (v1)",
    ]


def test_other_numbers_change_nothing_else() -> None:
    """More by another number of replicas; fewer by draining some; what ended is started again."""
    yard = inventory(HOSTS.replace('ssh = "three"', 'ssh = "three"\nworkers = 1'))
    wanted = want(yard)
    now, cluster = deployed(yard, wanted, {"two": 1, "three": 3})
    assert said(yard, now, cluster, wanted) == [
        "two: start 1 worker (v1)",
        "three: drain and remove 2 workers (v1)",
    ]
    now, cluster = deployed(yard, wanted, {"two": 2, "three": 1})
    ended = tuple(replace(one, live=one.live - (one.host == "two")) for one in cluster.services)
    assert said(yard, now, replace(cluster, services=ended), wanted) == ["two: keep 2 workers (v1)"]


def test_a_host_without_workers_any_more() -> None:
    yard = inventory()
    now, cluster = deployed(yard, want(yard), {"two": 2, "three": 2})
    fewer = inventory(HOSTS.replace('ssh = "three"', 'ssh = "three"\nworkers = 0'))
    assert said(fewer, now, cluster, want(fewer)) == [
        "three: drain and remove 2 workers (v1)",
        "one: remove old keys and certificates from the Swarm",
    ]


def test_a_host_that_is_taken_out() -> None:
    """Drained and left; the service of one that is lost goes, too."""
    yard = inventory()
    now, cluster = deployed(yard, want(yard), {"two": 2, "three": 2})
    hosts = tuple(replace(h, leaving=True, workers=0) if h.name == "three" else h for h in yard.hosts)
    leaving = replace(yard, hosts=hosts)
    wanted = replace(want(leaving), kept=())
    assert said(leaving, now, cluster, wanted) == [
        "three: drain and remove 2 workers (v1)",
        "one: remove old keys and certificates from the Swarm",
        "three: remove everything but a journal: it is not in hosts.toml any more",
    ]
    lost = replace(yard, hosts=hosts[:2])
    del now["three"]
    assert said(lost, now, cluster, want(lost))[-1] == "one: remove the service for three"


def test_labels_of_others_are_left_alone() -> None:
    """Ours follow hosts.toml; the marks of what we made stay."""
    yard = inventory(HOSTS.replace('disk = "fast"', 'zone = "b"'))
    now, cluster = deployed(yard, want(yard), {"two": 2, "three": 2})
    [action] = plan(yard, now, cluster, want(yard))
    assert action.names == ("taskyard.yard.label.zone=b", "taskyard.yard.label.disk=")


def test_what_swarm_cannot_do() -> None:
    """One line each, with the way out; nothing is said of hosts that do not answer."""
    yard = inventory(HOSTS.replace('labels = {disk = "fast"}', 'gpus = "all"'))
    other = Seat("active", "elsewhere", "two")
    found = refusals(yard, Cluster(seats(yard, two=other, three=Seat("locked")), {"node-one": {}}))
    assert [line.partition(":")[0] for line in found] == ["hosts.two.gpus", "two", "three"]
    assert "--engine ssh" in found[0] and "another Swarm than one" in found[1] and "unlock" in found[2]
    alone = refusals(inventory(), Cluster(seats(yard, one=Seat("active", "n", "uno"))))
    assert len(alone) == 1 and "docker node promote uno" in alone[0]
    one = Running("x", "worker", 1, "s", "v1")
    assert "without Swarm" in mixed({"two": HostNow(containers=(one,))}, swarm=True)[0]
    assert "on Swarm" in mixed({"two": HostNow(containers=(replace(one, service="s"),))}, swarm=False)[0]


# ---------------------------------------------------------------- the services


def body(service: Service) -> dict[str, Any]:
    return service.body({name: f"id of {name}" for name in service.files.values()}, 2)


def test_a_service_of_workers() -> None:
    """Pinned to its host by a label, hardened, restarted unless ended for good; nothing tells a secret."""
    text = HOSTS.replace("labels =", 'mounts = ["/d:rw"]\nlimits = {memory = "1g", cpus = 0.5}\nlabels =')
    yard = inventory(text.replace("labels =", 'env = {SHAPE = "{{x}}", TASKYARD_DRAIN = "300"}\nlabels ='))
    made = body(want(yard).workers["two"])
    task = made["TaskTemplate"]
    inside = task["ContainerSpec"]
    env = dict(one.split("=", 1) for one in inside["Env"])
    assert env["TASKYARD_ADDRESS"] == "taskyard-master:5000" and env["TASKYARD_HOST"] == "two"
    assert env["TASKYARD_TLS_CA"] == "/etc/taskyard/ca.pem" and env["TASKYARD_LOG"] == "json"
    assert env["SHAPE"] == '{{"{{"}}x}}'  # what Swarm makes "{{x}}" of again
    assert task["Placement"]["Constraints"] == ["node.labels.taskyard.yard.host==two"]
    assert task["RestartPolicy"]["Condition"] == "on-failure" and inside["Command"][-1] == "--swarm"
    assert task["Resources"]["Limits"] == {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 30, "Pids": 1024}
    assert inside["StopGracePeriod"] == 310 * 10**9
    assert inside["ReadOnly"] and inside["CapabilityDrop"] == ["ALL"] and inside["User"] == "10001:10001"
    assert [m["Target"] for m in inside["Mounts"]] == ["/tmp", "/run/taskyard", "/d"]
    assert {one["File"]["Name"] for one in inside["Secrets"]} == {"authkey", "key.pem"}
    assert {one["File"]["Mode"] for one in inside["Secrets"]} == {0o400}
    assert made["EndpointSpec"] == {"Mode": "dnsrr"} and made["Mode"]["Replicated"]["Replicas"] == 2
    assert KEY.decode() not in json.dumps(made) and "key two" not in json.dumps(made)
    assert len(made["Name"]) <= 63


def test_the_service_of_the_master() -> None:
    """On its host, with its journal; replaced by stopping first, put back if it does not run."""
    made = body(want(inventory()).master)
    task = made["TaskTemplate"]
    [port] = made["EndpointSpec"]["Ports"]
    assert (port["PublishedPort"], port["TargetPort"], port["PublishMode"]) == (5001, 5000, "host")
    assert task["Networks"] == [{"Target": "taskyard-yard", "Aliases": ["taskyard-master"]}]
    assert made["UpdateConfig"]["Order"] == "stop-first"
    assert made["UpdateConfig"]["FailureAction"] == "rollback"
    journal = task["ContainerSpec"]["Mounts"][-1]
    assert (journal["Source"], journal["Target"]) == ("taskyard-yard-journal", "/var/lib/taskyard")


def test_what_makes_another_service() -> None:
    """Settings and keys do, numbers and labels do not; a revoked worker concerns the master alone."""
    yard = inventory()
    before = want(yard)
    other = want(inventory(HOSTS.replace("workers = 2", "workers = 5").replace("fast", "slow")))
    assert other.workers["two"].name == before.workers["two"].name
    assert want(yard, TASKYARD_SLOTS="2").workers["two"].name != before.workers["two"].name
    revoked = want(yard, revoked=b"01 worker three\n")
    assert revoked.workers["two"].name == before.workers["two"].name
    assert revoked.master.digest != before.master.digest
    long = parse(HOSTS.replace("hosts.two", f"hosts.{'t' * 60}"), "y" * 40)
    names = [service.name for service in want(long).workers.values()]
    assert max(map(len, names)) <= 63 and len(set(names)) == 2
    kept = {name for service in want(long).workers.values() for name in service.files.values()}
    assert max(map(len, kept)) <= 64 and any(name.endswith("-revoked.pem") for name in kept)
