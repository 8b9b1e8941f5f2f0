"""The engine of a yard on several hosts: the same verbs, through one ssh connection a host.

A host that does not answer is named once and left out, so that one that is down keeps
nobody from looking at the others, or from stopping them.
"""

import atexit
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import docker  # type: ignore[import-untyped]

from taskyard.errors import EngineError, HostError, TaskyardError, UsageError
from taskyard.tls_files import REVOKED
from taskyard_ctl.cli import say as tell
from taskyard_ctl.containers import WEB
from taskyard_ctl.deploy import LAYERS
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hostlogs import HostLogs
from taskyard_ctl.hostrecord import Record
from taskyard_ctl.images import yard_image
from taskyard_ctl.interface import Line, Member, Say
from taskyard_ctl.inventory import Inventory
from taskyard_ctl.plan import RUNS, Action, HostNow, Running, Stage, Version, Wanted, plan, with_architectures
from taskyard_ctl.shipping import Hold
from taskyard_ctl.site import Site
from taskyard_ctl.ssh import Link, connect

if TYPE_CHECKING:
    from taskyard.client import Yard

T = TypeVar("T")
MASTER_GRACE_S = 15


class HostsEngine:
    """All hosts of a deployed yard, or one of them."""

    name = "hosts"
    containers = True

    def __init__(self, site: Site, only: str = "") -> None:
        self.site = site
        self._only = only  # the name of the host that verbs are about; "" = all
        self._links: dict[str, Link] = {}
        self._faults: dict[str, TaskyardError] = {}
        self._owners: dict[str, HostEngine] = {}  # of containers, by their id
        atexit.register(self.close)

    def only(self, host: str) -> "HostsEngine":
        """The same yard, seen as one host; it shares the connections."""
        self.site.inventory.host(host)
        view = type(self)(self.site, host)
        view._links, view._faults, view._owners = self._links, self._faults, self._owners
        return view

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()

    # ------------------------------------------------------------ connections

    def connect(self, patience: float, reconnect: float | None) -> "Yard":
        """The master, through its host."""
        port = self._master().ports[self.site.master_port]
        return self.site.connect(port, patience, reconnect)

    def _master(self) -> Link:
        host = self.site.inventory.master
        if host.name not in self._links:
            self._links[host.name] = Link(host, [self.site.master_port]).wait()
        return self._links[host.name]

    def _engines(self) -> dict[str, HostEngine]:
        """Of the hosts that answer; raises if none does."""
        inventory = self.site.inventory
        wanted = [host for host in inventory.hosts if self._only in ("", host.name)]
        new = [h for h in wanted if h.name not in self._links and h.name not in self._faults]
        links, faults = connect(new, {inventory.master.name: [self.site.master_port]})
        self._links |= links
        self._faults |= faults
        for fault in faults.values():
            tell(f"taskyard: {fault}; going on without it")
        found = {
            host.name: HostEngine(self._links[host.name], inventory.name)
            for host in wanted
            if host.name in self._links
        }
        if not found:
            raise HostError("no host answers; 'taskyard doctor' looks for the reason")
        return found

    def _each(self, do: Callable[[HostEngine], T]) -> dict[str, T]:
        """Do it on all hosts at once; a fault is told, and its host left out from then on."""
        engines = self._engines()
        done: dict[str, T] = {}

        def one(engine: HostEngine) -> None:
            try:
                done[engine.name] = do(engine)
            except HostError as fault:
                tell(f"taskyard: {fault}; going on without it")
                self._links.pop(engine.name).close()
                self._faults[engine.name] = fault

        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(one, engines.values()))
        return {name: done[name] for name in engines if name in done}

    @property
    def failed(self) -> list[str]:
        """The hosts that were left out."""
        return sorted(self._faults)

    # ------------------------------------------------------------ the verbs

    def check(self) -> None:
        self._engines()

    def running(self) -> bool:
        return any(member.state in RUNS for member in self.members())

    def members(self) -> list[Member]:
        found = self._each(lambda engine: (engine, engine.containers()))
        members = []
        for name, (engine, containers) in found.items():
            for one in containers:
                self._owners[one.id] = engine
                members.append(_member(name, one))
        return members

    def up(self, workers: int, say: Say) -> None:
        raise UsageError("this yard is on several hosts: 'taskyard deploy' starts it")

    def fault(self) -> str:
        return ""

    def grow(self, workers: int) -> None:
        """Start workers of the version that runs, where there are fewest."""
        now = self._each(lambda engine: engine.look())
        have = {name: _workers(here) for name, here in now.items()}
        working = [h for h in self.site.inventory.hosts if h.name in now and (h.workers or self._only)]
        if not working:
            raise HostError("no host that answers has workers in its inventory")
        counts = spread(workers, {host.name: have[host.name] for host in working})
        version, inventory = self.version(), with_architectures(self.site.inventory, now)
        hosts = [replace(host, workers=counts.get(host.name, host.workers)) for host in inventory.hosts]
        inventory = replace(inventory, hosts=tuple(hosts))
        boxes, keys = self.site.boxes(version, inventory)
        for action in _growth(inventory, now, Wanted(version, {key: b.shape for key, b in boxes.items()})):
            engine, box = self._engines()[action.host], boxes[action.host, "worker"]
            if action.kind == "network":
                engine.make_network()
            elif action.kind == "keys":
                engine.put(box.keys, box.image, keys[action.host, "worker"])
            else:
                for number in action.numbers:
                    engine.start(engine.create(box, number))

    def version(self) -> Version:
        """What was deployed last."""
        engine = HostEngine(self._master(), self.site.inventory.name)
        there = [image for image in engine.look().images if "-master:" in image]
        versions = Record(engine).versions(there[0]) if there else []
        if not versions:
            raise EngineError("no deploy of this yard was completed: 'taskyard deploy' first")
        return versions[0]

    def remove(self, member: Member, grace: float) -> None:
        self._owners[member.container].remove(member.container, max(1, round(grace)))

    def down(self, grace: float, say: Say) -> None:
        self._each(lambda engine: _clear(engine, "worker", round(grace)))
        self._each(lambda engine: _clear(engine, "master", MASTER_GRACE_S if grace else 1))
        self._each(lambda engine: engine.remove_network())
        self._raise_failed("still has what it had")

    def destroy(self, volumes: bool, say: Say) -> None:
        """Remove all that has the yard's label, and what was made here for it."""
        journal = f"taskyard-{self.site.inventory.name}-journal"

        def clear(engine: HostEngine) -> None:
            engine.remove_all(keep=() if volumes else (journal,))
            say(f"{engine.name}: removed containers, images and volumes")

        self._each(clear)
        self._raise_failed("still has what it had, and this folder its keys: run it again")
        for folder in (self.site.certs.path, self.site.folder.state / LAYERS):
            shutil.rmtree(folder, ignore_errors=True)

    def put_revoked(self) -> str:
        """Give the master the list of revoked certificates as it is now; returns its host's name."""
        engine = HostEngine(self._master(), self.site.inventory.name)
        here = engine.look()
        there = sorted(image for image in here.images if "-master:" in image)
        content = {REVOKED: (self.site.certs.path / REVOKED).read_bytes()}
        volumes = [name for name in here.keys if "-keys-master-" in name]
        if not there or not volumes:
            raise EngineError(f"{engine.name} has no master yet")
        for name in volumes:
            engine.put(name, there[0], content)
        return engine.name

    def _raise_failed(self, what: str) -> None:
        if self._faults:
            raise HostError(f"{', '.join(self.failed)} {what}")

    def open_web(self) -> tuple[Link, int]:
        """A connection to the dashboard, and the port of this machine at which a browser finds it."""
        engine = HostEngine(self._master(), self.site.inventory.name)
        masters = [one for one in engine.containers() if one.role == "master" and one.state in RUNS]
        port = engine.published(masters[0].name, WEB) if masters else 0
        if not port:
            raise EngineError("the master serves no dashboard: 'taskyard deploy' first")
        link = Link(self.site.inventory.master, [port]).wait()
        return link, link.ports[port]

    def restore(self, file: Path) -> str:
        """Put a backup in the journal's place on the master's host; the next deploy starts with it.

        Nothing has to be there yet: with another master in hosts.toml, that host takes the place.
        """
        running = [m for m in self.members() if m.role == "master" and m.state in RUNS]
        if running:
            raise UsageError("the master runs: 'taskyard down' first, so that nothing is lost by it")
        inventory = self.site.inventory
        engine = HostEngine(self._master(), inventory.name)
        there = sorted(image for image in engine.look().images if "-master:" in image)
        return engine.restore(there[0] if there else self._send_master(engine), file)

    def _send_master(self, engine: HostEngine) -> str:
        """Give a host the image that was deployed last from here; returns its name."""
        client = docker.from_env()
        found = client.images.list(name=yard_image(engine.yard, "master"))
        tags: list[str] = [tag for image in found for tag in image.tags if "-master:" in tag]
        if not tags:
            raise EngineError("there is no master's image here: 'taskyard deploy', then 'taskyard down'")
        hold = Hold(self.site.folder.state / LAYERS)
        self.site.folder.make_state()
        [cargo] = hold.load(client, tags[:1])
        engine.send(hold, cargo, lambda count: None, lambda count: None)
        return tags[0]

    def lines(self, since: str, follow: bool) -> Iterator[Line]:
        hosts = [host for host in self.site.inventory.hosts if self._only in ("", host.name)]
        logs = HostLogs(self._engines(), {host.name: host for host in hosts}, self.site.inventory.name)
        return logs.follow(since) if follow else logs.history(since)


# ---------------------------------------------------------------- inside


def spread(workers: int, have: dict[str, int]) -> dict[str, int]:
    """How many workers each host should have, so that there are `workers`; nobody gets fewer."""
    counts = dict(have)
    for _ in range(workers - sum(counts.values())):
        counts[min(counts, key=lambda name: counts[name])] += 1
    return counts


def _growth(inventory: Inventory, now: dict[str, HostNow], wanted: Wanted) -> list[Action]:
    """The part of a plan that starts workers; raises UsageError if there is more to it than that."""
    actions = [one for one in plan(inventory, now, wanted) if one.stage is not Stage.CLEAN]
    found = [one for one in actions if one.kind in ("start", "keys", "network") and one.role == "worker"]
    if len(found) < len(actions):
        raise UsageError("hosts.toml or the settings have changed: 'taskyard deploy' first")
    return found


def _workers(here: HostNow) -> int:
    return sum(one.role == "worker" and one.state in RUNS for one in here.containers)


def _member(host: str, one: Running) -> Member:
    name = one.role if one.role == "master" else f"{host}.worker-{one.number}"
    return Member(name, one.role, one.state, container=one.id)


def _clear(engine: HostEngine, role: str, grace: int) -> None:
    names = [one.name for one in engine.containers() if one.role == role]
    if names:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: engine.remove(name, grace), names))
