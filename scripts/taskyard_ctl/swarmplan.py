"""What a deploy to Swarm has to do: a pure function of inventory, hosts, Swarm, and services wanted.

Swarm starts the workers, again when they end, and replaces the master. Each host has a service of its own:
of one for several nodes, Swarm takes whom it likes when there are to be fewer. A new version of the workers
is another service, and the old one drains through the master: Swarm itself would end a task that takes long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from taskyard_ctl.inventory import Host, Inventory
from taskyard_ctl.plan import KEPT, RUNS, Action, HostNow, Stage, Version, count, plural
from taskyard_ctl.swarmspec import Service, label


@dataclass(frozen=True, slots=True)
class Seat:
    """A host's place in a Swarm, as its own engine tells."""

    state: str = "inactive"  # or active, pending, error, locked
    node: str = ""  # id
    hostname: str = ""
    manager: bool = False


@dataclass(frozen=True, slots=True)
class ServiceNow:
    """A service of this yard; that of workers is for one host."""

    name: str
    role: str
    host: str
    shape: str
    version: str
    replicas: int = 1
    live: int = 1  # tasks that Swarm wants to run


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Swarm as it is, as far as the master's host can tell."""

    seats: Mapping[str, Seat]  # by name of the host, of those that answer
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # labels by id; none: no Swarm yet
    services: tuple[ServiceNow, ...] = ()
    network: bool = False
    kept: frozenset[str] = frozenset()  # names of this yard's secrets and configs

    def service(self, name: str) -> ServiceNow | None:
        return next((one for one in self.services if one.name == name), None)

    def labels(self, yard: str, host: str) -> dict[str, str]:
        """Those of a host's node that are this yard's."""
        there = self.nodes.get(self.seats[host].node, {})
        return {key: value for key, value in there.items() if key.startswith(label(yard, ""))}


@dataclass(frozen=True, slots=True)
class SwarmWanted:
    """Where a deploy should lead to: the master's service, and one of workers a host."""

    version: Version
    master: Service
    workers: Mapping[str, Service]  # by host
    kept: tuple[Version, ...] = ()
    registry: str = ""


def plan(
    inventory: Inventory, now: Mapping[str, HostNow], cluster: Cluster, wanted: SwarmWanted
) -> list[Action]:
    """The actions in their order; hosts that are not in `now` are left out. Empty: nothing is to do."""
    hosts = [host for host in inventory.hosts if host.name in now]
    boss = inventory.master.name
    actions: list[Action] = []
    for host in hosts:
        actions += _join(inventory, host, cluster)
        actions += _images(host, now[host.name], wanted)
        actions += _label(inventory, host, cluster)
    actions += _shared(boss, cluster, wanted)
    actions += _master(boss, cluster, wanted)
    open_way = any(_running(now[host.name], wanted.workers.get(host.name)) for host in hosts)
    for host in hosts:
        here, service = now[host.name], wanted.workers.get(host.name)
        found = _workers(host, here, cluster, service)
        if service is not None and cluster.service(service.name) is None and found and not open_way:
            open_way = True
            found[0] = _start(Stage.WORKERS, host, service, 1, found[0].numbers[0])
            actions.append(_start(Stage.FIRST, host, service, 0, 1))
            found = found if found[0].numbers != (1,) else found[1:]
        actions += found
        actions += _leave(inventory, host, here, cluster) if host.leaving else _clean(host, here, wanted)
    actions += _orphans(inventory, cluster)
    return sorted(actions, key=lambda action: action.stage)


def refusals(inventory: Inventory, cluster: Cluster) -> list[str]:
    """What Swarm cannot do, each with the way out."""
    found = []
    chief = cluster.seats[inventory.master.name]
    known = chief.manager or chief.state == "inactive"  # whether we see who is in it
    for host in inventory.hosts:
        if host.gpus:
            found.append(
                f"hosts.{host.name}.gpus: Swarm hands no graphics cards to containers: leave it out, or use"
                " --engine ssh"
            )
        seat, boss = cluster.seats.get(host.name), host.role == "master"
        if seat is None or host.leaving:
            continue
        if seat.state not in ("inactive", "active"):
            cure = "'docker swarm unlock' there" if seat.state == "locked" else "'docker swarm leave' there"
            found.append(f"{host.name}: its place in a Swarm is {seat.state}: say {cure}")
        elif boss and seat.state == "active" and not seat.manager:
            found.append(
                f"{host.name}: is no manager of its Swarm, as the master's host has to be: 'docker node"
                f" promote {seat.hostname}' on one that is"
            )
        elif not boss and seat.state == "active" and known and seat.node not in cluster.nodes:
            found.append(
                f"{host.name}: is in another Swarm than {inventory.master.name}: 'docker swarm leave' there,"
                " or take it out of hosts.toml"
            )
    return found


# ---------------------------------------------------------------- hosts and nodes


def _join(inventory: Inventory, host: Host, cluster: Cluster) -> list[Action]:
    if cluster.seats[host.name].state != "inactive" or host.leaving:
        return []
    if host.role == "master":
        return [Action(Stage.CLUSTER, host.name, "swarm", "make a Swarm, with this host as its manager")]
    return [Action(Stage.PREPARE, host.name, "join", f"join the Swarm of {inventory.master.name}")]


def _images(host: Host, here: HostNow, wanted: SwarmWanted) -> list[Action]:
    images = [wanted.master.image] if host.role == "master" else []
    images += [wanted.workers[host.name].image] if host.name in wanted.workers and count(host, here) else []
    text = f"pull image {{}} from {wanted.registry}" if wanted.registry else "send image {}"
    return [
        Action(Stage.PREPARE, host.name, "send", text.format(image), names=(image,))
        for image in images
        if image not in here.images
    ]


def _label(inventory: Inventory, host: Host, cluster: Cluster) -> list[Action]:
    if host.leaving:
        return []
    yard = inventory.name
    there, want = cluster.labels(yard, host.name), labels(yard, host)
    new = {key: value for key, value in want.items() if there.get(key) != value}
    ours = {label(yard, key) for key in ("joined", "made")}  # which tell what we did
    changes = {**new, **{key: "" for key in there if key not in want and key not in ours}}
    if not changes:
        return []
    words = (key.removeprefix(label(yard, "")).removeprefix("label.") for key in changes)
    text = f"label its node ({', '.join(words)})"
    pairs = tuple(f"{key}={value}" for key, value in changes.items())
    return [Action(Stage.PREPARE, host.name, "label", text, names=pairs)]


def labels(yard: str, host: Host) -> dict[str, str]:
    """Those that the node of a host has to have."""
    found = {"host": host.name} | {f"label.{key}": value for key, value in host.labels.items()}
    if host.role == "master":
        found["master"] = "yes"
    return {label(yard, key): value for key, value in found.items()}


def _leave(inventory: Inventory, host: Host, here: HostNow, cluster: Cluster) -> list[Action]:
    there = here.containers or here.images or here.keys or cluster.labels(inventory.name, host.name)
    if not there:
        return []
    text = "remove everything but a journal: it is not in hosts.toml any more"
    return [Action(Stage.CLEAN, host.name, "leave", text)]


def _clean(host: Host, here: HostNow, wanted: SwarmWanted) -> list[Action]:
    kept = {image for version in (wanted.version, *wanted.kept[:KEPT]) for image in version.images}
    images = tuple(sorted(here.images - kept))
    if not images:
        return []
    text = f"remove {plural(len(images), 'old image')}"
    return [Action(Stage.CLEAN, host.name, "forget", text, names=images)]


# ---------------------------------------------------------------- what the Swarm holds


def _shared(boss: str, cluster: Cluster, wanted: SwarmWanted) -> list[Action]:
    found = []
    if not cluster.network:
        found.append(Action(Stage.PREPARE, boss, "network", "make the yard's overlay network"))
    services = (wanted.master, *wanted.workers.values())
    needed = {name for service in services for name in service.files.values()}
    missing, stale = (tuple(sorted(names)) for names in (needed - cluster.kept, cluster.kept - needed))
    if missing:
        text = "keep key and certificates as secrets and configs of the Swarm"
        found.append(Action(Stage.PREPARE, boss, "keys", text, names=missing))
    if stale:
        text = "remove old keys and certificates from the Swarm"
        found.append(Action(Stage.CLEAN, boss, "keys", text, names=stale))
    return found


def _master(boss: str, cluster: Cluster, wanted: SwarmWanted) -> list[Action]:
    service, version = wanted.master, wanted.version.id
    there = cluster.service(service.name)
    if there is None:
        text = f"start the master ({version})"
        return [Action(Stage.MASTER, boss, "start", text, "master", names=(service.name,))]
    if there.shape == service.digest:
        return []
    text = f"replace the master ({there.version} by {version}); workers keep what they hold"
    return [Action(Stage.MASTER, boss, "replace", text, "master", names=(service.name,))]


def _workers(host: Host, here: HostNow, cluster: Cluster, service: Service | None) -> list[Action]:
    """New ones first, then those leave that are too many, then those of other shapes."""
    target = count(host, here) if service else 0
    found: list[Action] = []
    good = ""
    if service is not None and target:
        good = service.name
        there = cluster.service(good)
        spare = max(0, _running(here, service) - target)
        goal = target + spare
        if there is None or (there.replicas, there.live) != (goal, goal):
            found.append(_start(Stage.WORKERS, host, service, there.replicas if there else 0, goal))
        if spare:
            text = f"drain and remove {plural(spare, 'worker')} ({service.version})"
            found.append(Action(Stage.WORKERS, host.name, "thin", text, numbers=(spare,), names=(good,)))
    old = [s for s in cluster.services if s.role == "worker" and s.host == host.name and s.name != good]
    if old:
        versions = ", ".join(sorted({one.version for one in old}))
        text = f"drain and remove {plural(sum(one.replicas for one in old), 'worker')} ({versions})"
        names = tuple(one.name for one in old)
        found.append(Action(Stage.WORKERS, host.name, "retire", text, names=names))
    return found


def _start(stage: Stage, host: Host, service: Service, before: int, goal: int) -> Action:
    first = " first" if stage is Stage.FIRST else ""
    verb = f"start {plural(goal - before, 'worker')}" if goal > before else f"keep {plural(goal, 'worker')}"
    text = f"{verb}{first} ({service.version})"
    return Action(stage, host.name, "start", text, numbers=(goal,), names=(service.name,))


def _orphans(inventory: Inventory, cluster: Cluster) -> list[Action]:
    """Services of hosts that are not in the inventory any more and do not answer."""
    known = {host.name for host in inventory.hosts}
    found = [one for one in cluster.services if one.role == "worker" and one.host not in known]
    boss = inventory.master.name
    return [
        Action(Stage.CLEAN, boss, "retire", f"remove the service for {one.host}", names=(one.name,))
        for one in found
    ]


def _running(here: HostNow, service: Service | None) -> int:
    name = service.name if service else None
    return sum(one.service == name and one.state in RUNS for one in here.containers)
