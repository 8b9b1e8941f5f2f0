"""Performing a plan: hosts side by side, stage after stage, and never half a step.

A host that fails is left out from then on and named in the end; that of the master
stops everything, and so does the first worker if it does not join.
"""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from taskyard.errors import TaskyardError
from taskyard_ctl.hoststeps import Steps, Stopped
from taskyard_ctl.plan import Action, Stage


@dataclass(slots=True)
class Outcome:
    """What became of one host."""

    fault: str = ""
    bytes: int = 0
    seconds: float = 0.0
    actions: int = 0


class Performance:
    """One run of one plan."""

    def __init__(self, steps: Steps, master: str) -> None:
        self._steps = steps
        self._master = master
        self._display = steps.display
        self.outcomes = {name: Outcome() for name in steps.parts.engines}
        self.performed: list[Action] = []

    def run(self, actions: list[Action], again: Callable[[set[str]], list[Action]]) -> None:
        """Perform all; raises what stops everything, and leaves other faults in `outcomes`.

        `again` plans without the hosts that could not be prepared, so that another one opens the way.
        """
        try:
            for stage in Stage:
                self._stage(stage, [action for action in actions if action.stage is stage])
                gone = {name for name, outcome in self.outcomes.items() if outcome.fault}
                if stage is Stage.PREPARE and gone:
                    actions = again(gone)
        finally:
            self._steps.close()
            for name, count in self._steps.bytes.items():
                self.outcomes[name].bytes = count

    def _stage(self, stage: Stage, actions: list[Action]) -> None:
        by_host: dict[str, list[Action]] = {}
        for action in actions:
            if not self.outcomes[action.host].fault:
                by_host.setdefault(action.host, []).append(action)
        if not by_host:
            return
        with ThreadPoolExecutor(len(by_host)) as pool:
            futures = {pool.submit(self._host, name, its): name for name, its in by_host.items()}
            faults = self._faults(futures)
        if self._steps.stop.is_set():
            raise Stopped("interrupted; 'taskyard deploy' again goes on from here")
        for name, fault in faults.items():
            self.outcomes[name].fault = str(fault).removeprefix(f"{name}: ")
            if not isinstance(fault, TaskyardError):
                raise fault
        if stage in (Stage.CLUSTER, Stage.MASTER, Stage.FIRST) and faults:
            raise next(iter(faults.values()))
        if self._master in faults and stage is Stage.PREPARE:
            raise faults[self._master]

    def _faults(self, futures: "dict[Future[None], str]") -> dict[str, BaseException]:
        """Wait for all, also through a Ctrl-C, which asks them to end soon."""
        waiting = set(futures)
        while waiting:
            try:
                _, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                if self._steps.stop.is_set():
                    raise
                self._steps.stop.set()
                self._display.say(
                    "interrupted: ending what cannot be left as it is; Ctrl-C again cuts it short"
                )
        faults = {name: future.exception() for future, name in futures.items()}
        return {name: fault for name, fault in faults.items() if fault is not None}

    def _host(self, name: str, actions: list[Action]) -> None:
        """The steps of one host within a stage, one after the other."""
        outcome = self.outcomes[name]
        for action in actions:
            self._steps.check()
            started = time.monotonic()
            try:
                note = self._steps.perform(action)
            finally:
                outcome.seconds += time.monotonic() - started
            outcome.actions += 1
            self.performed.append(action)
            self._display.done(action, time.monotonic() - started, note)
