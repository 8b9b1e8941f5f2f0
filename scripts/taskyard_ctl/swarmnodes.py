"""Which hosts are in a Swarm, and as what: making one, joining, labels, and leaving again.

All that is done to a Swarm goes through the engine of one of its managers, the host of the yard's master.
"""

import contextlib
import socket
import time
from collections.abc import Mapping

import docker.errors  # type: ignore[import-untyped]

from taskyard.clock import Deadline
from taskyard.errors import HostError
from taskyard.settings import split_address
from taskyard_ctl.engine import FAULTS, HostEngine, reason, told
from taskyard_ctl.inventory import Host
from taskyard_ctl.swarmplan import Seat
from taskyard_ctl.swarmspec import label

PORT = 2377  # of a manager, for nodes
PORTS = f"TCP {PORT}, TCP and UDP 7946 and UDP 4789"
WAIT_S = 30.0
POLL_S = 0.1


def seat(engine: HostEngine) -> Seat:
    """A host's place in a Swarm."""
    with told(engine.name):
        info = engine.api.info()
    swarm = info.get("Swarm") or {}
    state = swarm.get("LocalNodeState") or "inactive"
    return Seat(state, swarm.get("NodeID", ""), info["Name"], bool(swarm.get("ControlAvailable")))


def raced(fault: docker.errors.APIError) -> bool:
    """Whether somebody else changed the same thing in between."""
    return "out of sequence" in str(fault)


class Nodes:
    """The nodes of a Swarm, as its manager sees them; of their labels it touches only this yard's."""

    def __init__(self, boss: HostEngine) -> None:
        self._boss = boss

    def make(self, host: Host) -> None:
        """Make a Swarm; other nodes reach it where workers would reach the master without one."""
        own = split_address(host.address)[0].strip("[]")
        with contextlib.suppress(OSError):
            own = str(socket.getaddrinfo(own, PORT, type=socket.SOCK_STREAM)[0][4][0])
        with told(self._boss.name):
            self._boss.api.init_swarm(advertise_addr=own)
            node = self._boss.api.info()["Swarm"]["NodeID"]
        self.label(node, {label(self._boss.yard, "made"): "yes"})

    def join(self, engine: HostEngine) -> None:
        """Make a host a node that works, and remember that it was us."""
        with told(self._boss.name):
            token = self._boss.api.inspect_swarm()["JoinTokens"]["Worker"]
            own = self._boss.api.info()["Swarm"]["NodeAddr"]
        place = f"[{own}]:{PORT}" if ":" in own else f"{own}:{PORT}"
        try:
            engine.api.join_swarm(remote_addrs=[place], join_token=token)
        except FAULTS as fault:
            raise HostError(
                f"{engine.name}: it cannot join the Swarm at {place} ({reason(fault)}): let {PORTS} through"
                " between the hosts"
            ) from None
        self.label(seat(engine).node, {label(self._boss.yard, "joined"): "yes"})

    def label(self, node: str, pairs: Mapping[str, str]) -> None:
        """Set labels of a node; an empty value takes one away. Waits for a node that is just joining."""
        deadline = Deadline.after(WAIT_S)
        with told(self._boss.name):
            while True:
                try:
                    there = self._boss.api.inspect_node(node)
                    spec = dict(there["Spec"])
                    merged = {**(spec.get("Labels") or {}), **pairs}
                    spec["Labels"] = {key: value for key, value in merged.items() if value}
                    self._boss.api.update_node(node, there["Version"]["Index"], spec)
                    return
                except docker.errors.APIError as fault:
                    if deadline.passed or not (fault.status_code == 404 or raced(fault)):
                        raise
                time.sleep(POLL_S)

    def release(self, engine: HostEngine) -> bool:
        """Take the yard's labels from a host's node, and it out of the Swarm if only we brought it there.

        Returns whether it left.
        """
        own = seat(engine)
        if own.state == "inactive":
            return False
        start, boss = label(self._boss.yard, ""), engine.name == self._boss.name
        with told(self._boss.name):
            there = self._boss.api.inspect_node(own.node)["Spec"].get("Labels") or {}
            foreign = len(self._boss.api.services()) - len(self._boss.api.services(filters=self._boss.mine))
            more = boss and len(self._boss.api.nodes()) > 1
        if foreign or more or start + ("made" if boss else "joined") not in there:
            self.label(own.node, {key: "" for key in there if key.startswith(start)})
            return False
        with told(engine.name):
            engine.api.leave_swarm(force=True)
        with told(self._boss.name), contextlib.suppress(docker.errors.NotFound):
            if not boss:
                self._boss.api.remove_node(own.node, force=True)
        with contextlib.suppress(*FAULTS):  # Docker leaves it behind
            engine.api.remove_network("docker_gwbridge")
        return True
