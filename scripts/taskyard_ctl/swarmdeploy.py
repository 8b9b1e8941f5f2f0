"""`deploy --engine swarm`: the same way as on hosts alone, with Swarm's plan and Swarm's steps."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from taskyard.errors import HostError
from taskyard_ctl import swarmplan, swarmspec
from taskyard_ctl.deploy import Deploy, Reached
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hostprogress import Display
from taskyard_ctl.hoststeps import Steps
from taskyard_ctl.plan import Action, HostNow, Version, Wanted
from taskyard_ctl.swarm import Swarm
from taskyard_ctl.swarmnodes import seat
from taskyard_ctl.swarmplan import Cluster, Seat
from taskyard_ctl.swarmspec import Service
from taskyard_ctl.swarmsteps import SwarmSteps

MASTER = ""  # no host has that name


class SwarmDeploy(Deploy):
    """One run for one site."""

    _cluster = Cluster({})
    _services: Mapping[str, Service] = {}  # those wanted, by name

    @cached_property
    def _files(self) -> dict[str, Mapping[str, bytes]]:
        """Key and certificates of the workers by host, and of the master."""
        site, inventory = self._site, self._inventory
        found = {host.name: site.keys(host, "worker") for host in inventory.hosts if host.workers}
        return {MASTER: site.keys(inventory.master, "master"), **found}

    def _want(self, reached: Reached, version: Version, kept: tuple[Version, ...]) -> Wanted:
        engines = [reached.engines[name] for name in self._now]
        seats: dict[str, Seat] = {}

        def look(engine: HostEngine) -> None:
            try:
                seats[engine.name] = seat(engine)
            except HostError as fault:
                reached.faults[engine.name] = fault
                del self._now[engine.name]

        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(look, engines))
        boss = self._inventory.master.name
        if boss not in seats:
            raise reached.faults[boss]
        self._cluster = Swarm(reached.engines[boss]).look(seats)
        wrong = swarmplan.refusals(self._inventory, self._cluster)
        if wrong:
            raise HostError("\n".join(wrong))
        return Wanted(version, {}, kept)

    def _actions(self, now: Mapping[str, HostNow], wanted: Wanted) -> list[Action]:
        inventory, environ = self._inventory, self._site.folder.environ
        authority, version = self._site.authority, wanted.version
        master = swarmspec.master(inventory, version, environ, self._files[MASTER], authority)
        workers = {
            host.name: swarmspec.worker(inventory, host, version, environ, self._files[host.name], authority)
            for host in inventory.hosts
            if host.name in self._files
        }
        self._services = {service.name: service for service in (master, *workers.values())}
        there = swarmplan.SwarmWanted(version, master, workers, wanted.kept, inventory.registry)
        return swarmplan.plan(inventory, now, self._cluster, there)

    def _steps(self, reached: Reached, wanted: Wanted, actions: list[Action], display: Display) -> Steps:
        boss = reached.engines[self._inventory.master.name]
        files = {}
        for whose, content in self._files.items():
            role = "worker" if whose else "master"
            for file, name in swarmspec.names_of(self._inventory.name, role, content).items():
                files[name] = content[file]
        return SwarmSteps(self._parts(reached, actions, {}, {}), display, boss, self._services, files)
