"""The engine of a yard on Docker Swarm: the verbs of several hosts, where Swarm runs the containers."""

import time

from taskyard.clock import Deadline
from taskyard.errors import EngineError, HostError
from taskyard_ctl.containers import WEB
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hosts import MASTER_GRACE_S, HostsEngine, spread
from taskyard_ctl.interface import Member, Say
from taskyard_ctl.plan import RUNS, HostNow
from taskyard_ctl.ssh import Link
from taskyard_ctl.swarm import Swarm
from taskyard_ctl.swarmnodes import POLL_S, Nodes, seat


class SwarmEngine(HostsEngine):
    """All hosts of a yard on Swarm, or one of them."""

    def members(self) -> list[Member]:
        """What runs; Swarm keeps some of what ran before."""
        return [member for member in super().members() if member.state in RUNS]

    def grow(self, workers: int) -> None:
        """Have Swarm run more, where there are fewest."""
        now = self._each(lambda engine: engine.look())
        swarm = Swarm(self._boss())
        services = {one.host: one for one in swarm.services() if one.role == "worker"}
        have = {name: _workers(now[name]) for name in now if name in services}
        if not have:
            raise HostError("no host that answers has workers: set hosts.NAME.workers, and 'taskyard deploy'")
        for name, goal in spread(workers, have).items():
            if goal > have[name]:
                swarm.resize(services[name].name, goal)

    def remove(self, member: Member, grace: float) -> None:
        """End exactly this worker; then the Swarm has one less to run, and touches no other."""
        owner = self._owners[member.container]
        service, task = owner.task_of(member.container)
        owner.end(member.container, max(1, round(grace)))
        Swarm(self._boss()).shrink(service, task)

    def down(self, grace: float, say: Say) -> None:
        boss = self._boss()
        if not seat(boss).manager:
            return
        swarm = Swarm(boss)
        services = swarm.services()
        for role, wait in (("worker", grace), ("master", MASTER_GRACE_S if grace else 0.0)):
            for one in services:
                if one.role == role:
                    swarm.remove(one.name)
            self._clear(role, wait)
        swarm.remove_network()
        self._raise_failed("still has what it had")

    def _clear(self, role: str, wait: float) -> None:
        """Wait for containers to end, and end those that take too long."""
        deadline = Deadline.after(wait)
        while not deadline.passed and any(member.role == role for member in self.members()):
            time.sleep(POLL_S)

        def clear(engine: HostEngine) -> None:
            for one in engine.containers():
                if one.role == role:
                    engine.remove(one.id)

        self._each(clear)

    def destroy(self, volumes: bool, say: Say) -> None:
        """Remove all of the yard, and take those hosts out of the Swarm that were in none before."""
        self.down(0.0, say)
        boss = self._boss()
        nodes = Nodes(boss)
        if seat(boss).manager:
            Swarm(boss).drop()
            for name, left in self._each(
                lambda engine: engine.name != boss.name and nodes.release(engine)
            ).items():
                if left:
                    say(f"{name}: left the Swarm")
        super().destroy(volumes, say)
        if nodes.release(boss):
            say(f"{boss.name}: left the Swarm, which is no more")

    def put_revoked(self) -> str:
        """The list is a config of the master's service, and those cannot be changed."""
        raise EngineError("on Swarm it comes with a deploy")

    def open_web(self) -> tuple[Link, int]:
        """As on hosts alone, but to the container itself: Swarm publishes to all the world or not at all."""
        boss = self._boss()
        masters = [one for one in boss.containers() if one.role == "master" and one.state in RUNS]
        address = boss.gateway_address(masters[0].id) if masters else ""
        if not address:
            raise EngineError("the master serves no dashboard: 'taskyard deploy' first")
        link = Link(self.site.inventory.master, [WEB], address).wait()
        return link, link.ports[WEB]

    def _boss(self) -> HostEngine:
        return HostEngine(self._master(), self.site.inventory.name)


def _workers(here: HostNow) -> int:
    return sum(one.role == "worker" and one.state in RUNS for one in here.containers)
