"""What is done to a Swarm, through the engine of one of its managers: the host of the yard's master.

It touches only services, secrets, configs and networks with the yard's label. Images are on the nodes
already: no registry is asked for anything.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors  # type: ignore[import-untyped]

from taskyard.clock import Deadline
from taskyard.errors import HostError
from taskyard_ctl.containers import LABEL, base
from taskyard_ctl.engine import HostEngine, told
from taskyard_ctl.swarmnodes import POLL_S, WAIT_S, raced
from taskyard_ctl.swarmplan import Cluster, Seat, ServiceNow
from taskyard_ctl.swarmspec import PUBLIC, Service

SETTLE_S = 60.0  # engines before 25 take 30 s to call a worker running
TRIES = 10  # of a change that somebody else's change came before
LIVE = ("running", "ready")  # what Swarm wants of a task that counts
BROKEN = ("failed", "rejected")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A task that ended at once, or that no node can have."""

    id: str
    node: str
    container: str
    text: str
    broken: bool


class Swarm:
    """The Swarm of one yard, as its manager sees it."""

    def __init__(self, boss: HostEngine) -> None:
        self._boss = boss
        self._mine = {LABEL: boss.yard}

    # ------------------------------------------------------------ looking

    def look(self, seats: Mapping[str, Seat]) -> Cluster:
        """What there is now; with no manager here, nothing but the seats."""
        if not seats[self._boss.name].manager:
            return Cluster(seats)
        with told(self._boss.name):
            api = self._boss.api
            return Cluster(
                seats,
                {node["ID"]: node["Spec"].get("Labels") or {} for node in api.nodes()},
                tuple(self.services()),
                any(one["Name"] == base(self._boss.yard) for one in api.networks(filters=self._boss.mine)),
                frozenset(self._ids()),
            )

    def _live(self) -> dict[str, int]:
        """How many tasks Swarm wants to run, by the service's id."""
        slots = {
            (one["ServiceID"], one.get("Slot", 0))
            for one in self._boss.api.tasks(filters=self._boss.mine)
            if one["DesiredState"] in LIVE
        }
        found: dict[str, int] = {}
        for service, _ in slots:
            found[service] = found.get(service, 0) + 1
        return found

    def services(self) -> list[ServiceNow]:
        with told(self._boss.name):
            live = self._live()
            return [
                _service(one, live.get(one["ID"], 0))
                for one in self._boss.api.services(filters=self._boss.mine)
            ]

    def troubles(self, name: str) -> list[Trouble]:
        """Tasks of a service that do not run as they should, the oldest first."""
        with told(self._boss.name):
            tasks = self._tasks(name)
        found = []
        for one in sorted(tasks, key=lambda task: str(task["CreatedAt"])):
            status = one["Status"]
            broken = status["State"] in BROKEN
            if broken or status.get("Err"):
                container = (status.get("ContainerStatus") or {}).get("ContainerID", "")
                text = status.get("Err") or status["State"]
                found.append(Trouble(one["ID"], one.get("NodeID", ""), container, text, broken))
        return found

    def _tasks(self, name: str) -> list[Any]:
        """Of a service, the ended ones that Swarm remembers included; none if it is not there."""
        try:
            found: list[Any] = self._boss.api.tasks(filters={"service": name})
        except docker.errors.NotFound:
            return []
        return found

    def change_of(self, name: str) -> str:
        """How far the change of a service is: "updating", "completed", "rollback_started" and so on."""
        with told(self._boss.name):
            state: str = self._boss.api.inspect_service(name).get("UpdateStatus", {}).get("State", "")
        return state

    # ------------------------------------------------------------ what it holds

    def make_network(self) -> None:
        """Not encrypted: all that goes over it is TLS already, and not every kernel can."""
        with told(self._boss.name):
            self._boss.api.create_network(base(self._boss.yard), driver="overlay", labels=self._mine)

    def remove_network(self) -> None:
        """Once nothing uses it any more, which Swarm takes a moment to see."""
        deadline = Deadline.after(WAIT_S)
        with told(self._boss.name):
            while True:
                try:
                    self._boss.api.remove_network(base(self._boss.yard))
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError:
                    if deadline.passed:
                        raise
                time.sleep(POLL_S)

    def keep(self, contents: Mapping[str, bytes]) -> None:
        """Make secrets and configs, by the end of their names."""
        with told(self._boss.name):
            for name, content in contents.items():
                make = self._boss.api.create_config if name.endswith(PUBLIC) else self._boss.api.create_secret
                make(name, content, labels=self._mine)

    def _ids(self) -> dict[str, str]:
        found = [
            *self._boss.api.secrets(filters=self._boss.mine),
            *self._boss.api.configs(filters=self._boss.mine),
        ]
        return {one["Spec"]["Name"]: one["ID"] for one in found}

    def drop(self, names: tuple[str, ...] | None = None) -> None:
        """Remove secrets and configs, all by default; one that is still used stays."""
        with told(self._boss.name):
            for name, own in self._ids().items():
                if names is None or name in names:
                    remove = (
                        self._boss.api.remove_config
                        if name.endswith(PUBLIC)
                        else self._boss.api.remove_secret
                    )
                    with contextlib.suppress(docker.errors.APIError):
                        remove(own)

    # ------------------------------------------------------------ services

    def create(self, service: Service, replicas: int) -> None:
        with told(self._boss.name):
            body = service.body(self._ids(), replicas)
            self._boss.api.create_service(
                body["TaskTemplate"], body["Name"], body["Labels"], body["Mode"], body["UpdateConfig"],
                endpoint_spec=body["EndpointSpec"], rollback_config=body["RollbackConfig"],
            )  # fmt: skip

    def replace(self, service: Service) -> None:
        """Have Swarm bring a service to another shape, or back if that does not run."""
        with told(self._boss.name):
            body = service.body(self._ids(), 1)
            self._update(service.name, lambda spec: spec.update(body))

    def resize(self, name: str, replicas: int) -> None:
        """Another number of workers."""
        with told(self._boss.name):
            self._update(name, lambda spec: spec.update(Mode={"Replicated": {"Replicas": replicas}}))

    def shrink(self, name: str, task: str) -> None:
        """One worker less, after one has ended for good.

        Swarm prefers to let go who does not run. So it has to see first that this one ended, and that all
        others run.
        """
        deadline = Deadline.after(SETTLE_S)
        with told(self._boss.name):
            while True:
                tasks = [one for one in self._tasks(name) if one["DesiredState"] in LIVE]
                if all(one["ID"] != task and one["Status"]["State"] == "running" for one in tasks):
                    break
                if deadline.passed:
                    raise HostError(
                        f"{self._boss.name}: the workers of {name} do not settle within {SETTLE_S:.0f} s"
                    )
                time.sleep(POLL_S)
            there = self._boss.api.inspect_service(name)["Spec"]["Mode"]["Replicated"]["Replicas"]
        self.resize(name, max(0, there - 1))

    def remove(self, name: str) -> None:
        with told(self._boss.name), contextlib.suppress(docker.errors.NotFound):
            self._boss.api.remove_service(name)

    def _update(self, name: str, change: Any) -> None:
        for left in reversed(range(TRIES)):
            there = self._boss.api.inspect_service(name)
            spec = there["Spec"]
            change(spec)
            try:
                self._boss.api.update_service(
                    name, there["Version"]["Index"], spec["TaskTemplate"], spec["Name"], spec["Labels"],
                    spec["Mode"], spec["UpdateConfig"], endpoint_spec=spec["EndpointSpec"],
                    rollback_config=spec["RollbackConfig"],
                )  # fmt: skip
                return
            except docker.errors.APIError as fault:
                if not left or not raced(fault):
                    raise
            time.sleep(POLL_S)


def _service(raw: Mapping[str, Any], live: int) -> ServiceNow:
    spec = raw["Spec"]
    labels = spec["Labels"]
    return ServiceNow(
        spec["Name"], labels["taskyard.role"], labels["taskyard.host"], labels["taskyard.shape"],
        labels["taskyard.version"], spec["Mode"]["Replicated"]["Replicas"], live,
    )  # fmt: skip
