"""Whom chaos can hit: the processes of a yard, on this machine or inside its containers.

`docker kill` would cancel a container's restart policy, so the process inside is hit: the child of
init, found by its parent. Whether a kill has really happened is told by who starts things again.
"""

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from taskyard.errors import EngineError
from taskyard_ctl.interface import Member

if TYPE_CHECKING:
    from taskyard_ctl.yard import YardFolder

# Prints the state of the child of init after the signal. All in the shell itself: there is no `ps`.
_HIT = """
for stat in /proc/[0-9]*/stat; do
    read -r line <"$stat" || continue
    pid=${line%% *}; rest=${line##*) }; set -- $rest
    if [ "$2" = 1 ] && [ "$pid" != 1 ]; then kill -SIGNAL "$pid" && exit 0; fi
done
exit 1
"""


@dataclass(frozen=True, slots=True)
class Victim:
    """One process of the yard that runs."""

    name: str
    role: str
    pid: int = 0
    container: str = ""


class Yards(Protocol):
    """The processes of one yard."""

    logs_executions: bool  # whether tasks can write to a file of this machine

    def running(self) -> list[Victim]: ...

    def hit(self, victim: Victim, number: signal.Signals) -> bool:
        """Send a signal; whether it has reached a process."""
        ...

    def restarts(self) -> dict[str, int]:
        """How often each member was started again so far."""
        ...


def of(folder: "YardFolder") -> Yards:
    """The processes of the yard that runs here; raises EngineError if none does, or if it has others."""
    engine = folder.engine()
    if engine.name == "local":
        return LocalYard(folder)
    if engine.name == "compose":
        return ComposeYard(folder)
    raise EngineError(f"chaos works on processes and on Compose, not on {engine.name}")


class LocalYard:
    """Processes under the supervisor."""

    logs_executions = True

    def __init__(self, folder: "YardFolder") -> None:
        self._engine = folder.local()

    def _members(self) -> list[Member]:
        return self._engine.members()

    def running(self) -> list[Victim]:
        return [Victim(m.name, m.role, m.pid) for m in self._members() if m.state == "running" and m.pid]

    def hit(self, victim: Victim, number: signal.Signals) -> bool:
        try:
            os.kill(victim.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def restarts(self) -> dict[str, int]:
        return {member.name: member.restarts for member in self._members()}


class ComposeYard:
    """Containers of Compose, with init as their first process."""

    logs_executions = False  # the tasks folder and the root are read-only in them, as they should be

    def __init__(self, folder: "YardFolder") -> None:
        import docker  # type: ignore[import-untyped]

        self._engine = folder.compose()
        self._client: Any = docker.from_env()

    def running(self) -> list[Victim]:
        return [
            Victim(m.name, m.role, container=m.container)
            for m in self._engine.members()
            if m.state == "running"
        ]

    def hit(self, victim: Victim, number: signal.Signals) -> bool:
        import docker.errors  # type: ignore[import-untyped]

        script = _HIT.replace("SIGNAL", number.name.removeprefix("SIG"))
        try:
            code, _ = self._client.containers.get(victim.container).exec_run(["sh", "-c", script])
        except docker.errors.APIError:
            return False  # it is just ending, or starting
        return bool(code == 0)

    def restarts(self) -> dict[str, int]:
        return {
            member.name: self._client.containers.get(member.container).attrs["RestartCount"]
            for member in self._engine.members()
        }
