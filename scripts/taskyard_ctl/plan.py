"""What a deploy has to do: a pure function of the inventory, of what runs now, and of the version wanted.

The same list is what `--dry-run` prints and what is performed. It has stages: within
one, hosts work side by side, and the next begins when all are through. That
the first new worker is a stage of its own keeps a version that does not start from all others.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

from taskyard_ctl.inventory import Host, Inventory

KEPT = 3  # versions, the current one included: what `rollback` can go back to
RUNS = ("running", "restarting")

Role = Literal["master", "worker"]


@dataclass(frozen=True, slots=True)
class Version:
    """Two images that belong together; the names of images hold their content."""

    id: str
    master: str
    worker: str
    others: tuple[tuple[str, str, str], ...] = ()  # architecture, master, worker: for hosts of other kinds

    def image(self, role: Role, architecture: str = "") -> str:
        """For hosts of an architecture; where there is none for it, and for "", the one made here."""
        for other, master, worker in self.others:
            if other == architecture:
                return master if role == "master" else worker
        return self.master if role == "master" else self.worker

    @property
    def images(self) -> tuple[str, ...]:
        return self.master, self.worker, *(name for other in self.others for name in other[1:])


@dataclass(frozen=True, slots=True)
class Running:
    """A container of the yard on a host, whether it runs or not."""

    name: str
    role: Role
    number: int  # of a worker on its host; 0 for a master
    shape: str  # digest of all that it was made from
    version: str
    state: str = "running"
    id: str = ""
    authority: str = ""  # names the certificate authority of the yard that it is of
    service: str = ""  # of Swarm, which made it


@dataclass(frozen=True, slots=True)
class HostNow:
    """What is on a host."""

    cpus: int = 1
    architecture: str = "amd64"
    images: frozenset[str] = frozenset()  # names of this yard's
    containers: tuple[Running, ...] = ()
    network: bool = False
    keys: frozenset[str] = frozenset()  # names of the volumes that hold keys and certificates
    revoked: str = ""  # digest of the list of revoked certificates that the master has


@dataclass(frozen=True, slots=True)
class Shape:
    """What a host's container of a role has to be made from, as digests."""

    digest: str
    keys: str  # name of its volume of keys


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a deploy should lead to; `kept` are the versions whose images stay, the wanted one first."""

    version: Version
    shapes: Mapping[tuple[str, Role], Shape]
    kept: tuple[Version, ...] = ()
    revoked: str = ""  # digest of the list of revoked certificates; "" where that is not the question
    registry: str = ""  # where hosts pull images from; "" = they are sent


class Stage(IntEnum):
    """In this order."""

    CLUSTER = 0  # with Swarm only
    PREPARE = 1
    MASTER = 2
    FIRST = 3  # one worker, which opens the way for the others
    WORKERS = 4
    CLEAN = 5


Kind = Literal[
    "send", "network", "keys", "list", "start", "replace", "again", "retire", "remove", "forget", "leave",
    "swarm", "join", "label", "thin",  # with Swarm only
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Action:
    """One step on one host; its text is for people."""

    stage: Stage
    host: str
    kind: Kind
    text: str
    role: Role = "worker"
    numbers: tuple[int, ...] = ()  # of workers to start; with Swarm, how many
    names: tuple[str, ...] = ()  # of containers, images, volumes or services that it is about

    def __str__(self) -> str:
        return f"{self.host}: {self.text}"


def plan(inventory: Inventory, now: Mapping[str, HostNow], wanted: Wanted) -> list[Action]:
    """The actions in their order; hosts that are not in `now` are left out. Empty: nothing is to do."""
    hosts = [host for host in inventory.hosts if host.name in now]
    actions: list[Action] = []
    for host in hosts:
        here = now[host.name]
        for role in roles(host, here):
            actions += _prepare(host, role, here, wanted)
        if host.role == "master":
            actions += _master(host, here, wanted)
        else:
            actions += _no_master(host, here)
    open_way = any(_joined(host, now[host.name], wanted) for host in hosts)
    for host in hosts:
        here = now[host.name]
        shape = wanted.shapes[host.name, "worker"].digest
        starting, retiring = _workers(host, here, shape, wanted.version)
        if starting.numbers and not open_way:
            open_way = True
            actions.append(_start(Stage.FIRST, host, starting.numbers[:1], wanted.version))
            starting = _start(Stage.WORKERS, host, starting.numbers[1:], wanted.version)
        actions += [action for action in (starting, *retiring) if action.numbers or action.names]
        actions += _leave(host, here) if host.leaving else _clean(host, here, wanted)
    return sorted(actions, key=lambda action: action.stage)


def roles(host: Host, here: HostNow) -> list[Role]:
    """What a host has to run."""
    found: list[Role] = ["master"] if host.role == "master" else []
    return [*found, "worker"] if count(host, here) else found


def count(host: Host, here: HostNow) -> int:
    """How many workers a host should have."""
    return here.cpus if host.workers == "auto" else host.workers


def strangers(now: Mapping[str, HostNow], authority: str) -> list[str]:
    """Hosts with containers of another yard that has the same name."""
    return [
        f"{name}: a yard of this name is there already, with other certificates: name this one otherwise in"
        " hosts.toml, or bring back its folder of certificates"
        for name, here in now.items()
        if any(one.authority not in ("", authority) for one in here.containers)
    ]


def mixed(now: Mapping[str, HostNow], swarm: bool) -> list[str]:
    """Hosts on which the yard runs, and in the other way."""
    way = "without Swarm" if swarm else "on Swarm"
    return [
        f"{name}: this yard runs {way} there: 'taskyard down' first; the queue stays"
        for name, here in now.items()
        if any(bool(one.service) != swarm for one in here.containers)
    ]


def with_architectures(inventory: Inventory, now: Mapping[str, HostNow]) -> Inventory:
    """The same, with what was found out of the hosts' CPUs."""
    hosts = tuple(
        replace(host, architecture=now[host.name].architecture if host.name in now else host.architecture)
        for host in inventory.hosts
    )
    return replace(inventory, hosts=hosts)


def refusals(now: Mapping[str, HostNow], architectures: Collection[str]) -> list[str]:
    """Hosts on which none of the images would run."""
    return [
        f"{name}: its CPU is {here.architecture}, and there are images for {' and '.join(architectures)}:"
        f" name some for it in hosts.toml (images = {{{here.architecture} = ...}}), or take the host out"
        for name, here in now.items()
        if here.architecture not in architectures
    ]


# ---------------------------------------------------------------- by host


def _prepare(host: Host, role: Role, here: HostNow, wanted: Wanted) -> list[Action]:
    shape, image = wanted.shapes[host.name, role], wanted.version.image(role, here.architecture)
    if not _lacks(host, role, here, shape.digest):
        return []
    found = []
    if image not in here.images:
        text = f"pull image {image} from {wanted.registry}" if wanted.registry else f"send image {image}"
        found.append(Action(Stage.PREPARE, host.name, "send", text, role, names=(image,)))
    if not here.network and role == roles(host, here)[0]:
        found.append(Action(Stage.PREPARE, host.name, "network", "make the yard's network", role))
    if shape.keys not in here.keys:
        text = f"put the {role}'s key and certificates"
        found.append(Action(Stage.PREPARE, host.name, "keys", text, role, names=(shape.keys,)))
    return found


def _lacks(host: Host, role: Role, here: HostNow, shape: str) -> bool:
    """Whether containers of a role will be made on a host."""
    good = sum(c.role == role and c.shape == shape and c.state in RUNS for c in here.containers)
    return good < (1 if role == "master" else count(host, here))


def _joined(host: Host, here: HostNow, wanted: Wanted) -> bool:
    """Whether a worker of the wanted shape runs already."""
    shape = wanted.shapes[host.name, "worker"].digest
    return any(c.role == "worker" and c.shape == shape and c.state in RUNS for c in here.containers)


def _master(host: Host, here: HostNow, wanted: Wanted) -> list[Action]:
    shape = wanted.shapes[host.name, "master"].digest
    masters = [c for c in here.containers if c.role == "master"]
    good = [c for c in masters if c.shape == shape]
    others = tuple(c.name for c in masters if c.shape != shape)
    running = [c for c in masters if c.shape != shape and c.state in RUNS]
    version = wanted.version.id
    found: list[Action] = []
    keys = wanted.shapes[host.name, "master"].keys
    if wanted.revoked and keys in here.keys and here.revoked != wanted.revoked:
        text = "give the master the list of revoked certificates"
        found.append(Action(Stage.PREPARE, host.name, "list", text, "master", names=(keys,)))
    if good and good[0].state in RUNS:
        if others:
            text = "remove the master of before"
            found.append(Action(Stage.CLEAN, host.name, "remove", text, "master", names=others))
    elif running:
        text = f"replace the master ({running[0].version} by {version}); workers keep what they hold"
        found.append(Action(Stage.MASTER, host.name, "replace", text, "master", names=others))
    elif good:
        text = "start the master again"
        found.append(Action(Stage.MASTER, host.name, "again", text, "master", names=(good[0].name,)))
    else:
        text = f"start the master ({version})"
        found.append(Action(Stage.MASTER, host.name, "start", text, "master", names=others))
    return found


def _no_master(host: Host, here: HostNow) -> list[Action]:
    """Another host is the master now: two would hand out the same work."""
    names = tuple(one.name for one in here.containers if one.role == "master")
    if not names:
        return []
    text = "stop the master that was here; its journal stays"
    return [Action(Stage.MASTER, host.name, "remove", text, "master", names=names)]


def _leave(host: Host, here: HostNow) -> list[Action]:
    if not (here.containers or here.images or here.network or here.keys):
        return []
    text = "remove everything but a journal: it is not in hosts.toml any more"
    return [Action(Stage.CLEAN, host.name, "leave", text)]


def _workers(host: Host, here: HostNow, shape: str, version: Version) -> tuple[Action, list[Action]]:
    """Which workers to start, and which to let finish and remove."""
    workers = [c for c in here.containers if c.role == "worker"]
    good = sorted(
        (c for c in workers if c.shape == shape and c.state in RUNS), key=lambda worker: worker.number
    )
    target = count(host, here)
    starting = _start(Stage.WORKERS, host, _free(workers, target - len(good)), version)
    leaving = [
        *(c for c in workers if c.state in RUNS and c.shape != shape),
        *good[target:],
    ]
    dead = tuple(c.name for c in workers if c.state not in RUNS)
    found = []
    if leaving:
        older = sorted({worker.version for worker in leaving})
        text = f"drain and remove {plural(len(leaving), 'worker')} ({', '.join(older)})"
        names = tuple(worker.name for worker in leaving)
        found.append(Action(Stage.WORKERS, host.name, "retire", text, names=names))
    if dead:
        text = f"remove {plural(len(dead), 'worker')} that stopped"
        found.append(Action(Stage.CLEAN, host.name, "remove", text, names=dead))
    return starting, found


def _start(stage: Stage, host: Host, numbers: tuple[int, ...], version: Version) -> Action:
    first = " first" if stage == Stage.FIRST else ""
    text = f"start {plural(len(numbers), 'worker')}{first} ({version.id})"
    return Action(stage, host.name, "start", text, numbers=numbers)


def _free(workers: Iterable[Running], many: int) -> tuple[int, ...]:
    """The lowest numbers that no worker has."""
    taken = {worker.number for worker in workers}
    found: list[int] = []
    number = 1
    while len(found) < many:
        if number not in taken:
            found.append(number)
        number += 1
    return tuple(found)


def _clean(host: Host, here: HostNow, wanted: Wanted) -> list[Action]:
    kept = {image for version in (wanted.version, *wanted.kept[:KEPT]) for image in version.images}
    keys = {wanted.shapes[host.name, role].keys for role in roles(host, here)}
    found = []
    images = tuple(sorted(here.images - kept))
    if images:
        text = f"remove {plural(len(images), 'old image')}"
        found.append(Action(Stage.CLEAN, host.name, "forget", text, names=images))
    volumes = tuple(sorted(here.keys - keys))
    if volumes:
        text = "remove old keys and certificates"
        found.append(Action(Stage.CLEAN, host.name, "keys", text, names=volumes))
    return found


def plural(many: int, word: str) -> str:
    return f"{many} {word}" if many == 1 else f"{many} {word}s"
