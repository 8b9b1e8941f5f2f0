"""Waiting until a yard is ready, and making it smaller without cutting a task.

Scale-down asks the master which workers have the least to do, drains those,
and removes each one only when it has finished what it holds.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskyard.clock import Deadline
from taskyard.errors import EngineError, TaskyardError, UnreachableError
from taskyard_ctl.interface import Engine, Member, Say
from taskyard_ctl.yard import YardFolder

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard.messages import StatusReply, WorkerStatus

READY_S = 90.0  # how long master and workers may take to get ready
POLL_S = 0.05
STOP_S = 15.0  # how long a drained worker may take to end

_JOINED = ("idle", "running")
# Who goes first. A missing one may hold tasks and be about to come back: last.
_ORDER = {"drained": 1, "draining": 2, "idle": 3, "running": 4, "missing": 5}


def status_of(member: Member, workers: Sequence["WorkerStatus"]) -> "WorkerStatus | None":
    """What the master knows of a member; None if it has not joined."""
    for worker in workers:
        if member.container and worker.container:
            if member.container.startswith(worker.container):
                return worker
        elif member.pid and member.pid == worker.pid and not worker.container:
            return worker
    return None


def idlest(
    members: Sequence[Member], workers: Sequence["WorkerStatus"], count: int
) -> list[tuple[Member, "WorkerStatus | None"]]:
    """The `count` workers that are missed least, those first that never joined or are drained already."""

    def key(pair: tuple[Member, "WorkerStatus | None"]) -> tuple[int, int, float]:
        worker = pair[1]
        return (0, 0, 0.0) if worker is None else (_ORDER[worker.state], worker.leased, -worker.joined)

    pairs = [(member, status_of(member, workers)) for member in members if member.role == "worker"]
    return sorted(pairs, key=key)[:count]


def wait_ready(folder: YardFolder, engine: Engine, workers: int, seconds: float = READY_S) -> "StatusReply":
    """Wait until the master answers and `workers` of the engine's own have joined."""
    deadline = Deadline.after(seconds)
    joined, last = 0, ""
    while not deadline.passed:
        fault = engine.fault()
        if fault:
            raise EngineError(fault)
        try:
            with folder.connect(patience=1.0) as master:
                while not deadline.passed:
                    status = master.status()
                    mine = (status_of(member, status.workers) for member in engine.members())
                    joined = sum(worker is not None and worker.state in _JOINED for worker in mine)
                    if joined >= workers:
                        return status
                    fault = engine.fault()
                    if fault:
                        raise EngineError(fault)
                    time.sleep(POLL_S)
        except UnreachableError as error:
            last = str(error)
        time.sleep(POLL_S)
    if not joined and last:
        raise EngineError(f"the master was not ready within {seconds:.0f} s ({last}): see 'taskyard logs'")
    raise EngineError(f"{joined} of {workers} workers joined within {seconds:.0f} s: see 'taskyard logs'")


def shrink(folder: YardFolder, engine: Engine, workers: int, say: Say) -> None:
    """Make the yard smaller, down to so many workers; a busy one finishes what it holds first."""
    members = [member for member in engine.members() if member.role == "worker"]
    with folder.connect() as master:
        leaving = idlest(members, master.status().workers, len(members) - workers)
        draining = {worker.id: member for member, worker in leaving if worker is not None}
        try:
            for name in draining:
                master.drain(name)
            for member, worker in leaving:
                if worker is None:
                    engine.remove(member, folder.basics.drain)
                    say(f"{member.name} removed")
            _remove_drained(master, engine, draining, say)
        except BaseException:
            for name in draining:  # who was not removed works on
                with contextlib.suppress(TaskyardError):
                    master.drain(name, undo=True)
            raise


def _remove_drained(master: "Yard", engine: Engine, draining: dict[str, Member], say: Say) -> None:
    """Remove each of them once it has drained, and from the dict too."""
    told = False
    while True:
        states = {worker.id: worker for worker in master.status().workers}
        for name, member in list(draining.items()):
            if name not in states or states[name].state == "drained":
                engine.remove(member, STOP_S)
                del draining[name]
                say(f"{member.name} removed")
        if not draining:
            return
        held = sum(states[name].leased for name in draining)
        if held and not told:
            told = True
            say(f"{len(draining)} of them are busy and finish {held} tasks first; Ctrl-C keeps them")
        time.sleep(POLL_S)
