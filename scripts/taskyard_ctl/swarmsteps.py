"""The steps of a deploy to Swarm, where they differ from those on hosts alone."""

import time
from collections.abc import Callable, Mapping, Sequence

from taskyard.clock import Deadline
from taskyard.errors import HostError, UnreachableError
from taskyard_ctl.containers import base
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hostprogress import Display
from taskyard_ctl.hoststeps import POLL_S, READY_S, WORKER_GRACE_S, Parts, Steps
from taskyard_ctl.interface import Member
from taskyard_ctl.plan import RUNS, Action, Running, Stage
from taskyard_ctl.scaling import idlest, status_of
from taskyard_ctl.swarm import Swarm, Trouble
from taskyard_ctl.swarmnodes import Nodes, seat
from taskyard_ctl.swarmspec import Service

FAILS = 2  # so many tasks that end at once, and a service does not start
BACK = ("rollback_started", "rollback_completed", "rollback_paused", "paused")
GONE_S = 90.0  # for the containers of a service that was removed


class SwarmSteps(Steps):
    """Performs actions through the Swarm's manager, which is on the master's host."""

    def __init__(
        self, parts: Parts, display: Display, boss: HostEngine, services: Mapping[str, Service],
        files: Mapping[str, bytes],
    ) -> None:  # fmt: skip
        super().__init__(parts, display)
        self._swarm, self._nodes = Swarm(boss), Nodes(boss)
        self._boss = boss
        self._services = services  # those wanted, by name
        self._files = files  # by the names of secrets and configs

    def kinds(self, action: Action) -> dict[str, Callable[[HostEngine, Action], str]]:
        more = {"swarm": self._make, "join": self._join, "label": self._label, "thin": self._thin}
        return {**super().kinds(action), **more}

    # ------------------------------------------------------------ the Swarm

    def _make(self, engine: HostEngine, action: Action) -> str:
        self._nodes.make(engine.link.host)
        return ""

    def _join(self, engine: HostEngine, action: Action) -> str:
        self._nodes.join(engine)
        return ""

    def _label(self, engine: HostEngine, action: Action) -> str:
        pairs = (name.partition("=") for name in action.names)
        self._nodes.label(seat(engine).node, {key: value for key, _, value in pairs})
        return ""

    def _network(self, engine: HostEngine, action: Action) -> str:
        self._swarm.make_network()
        return ""

    def _keys(self, engine: HostEngine, action: Action) -> str:
        if action.stage is Stage.CLEAN:
            self._swarm.drop(action.names)
        else:
            self._swarm.keep({name: self._files[name] for name in action.names})
        return ""

    def _leave(self, engine: HostEngine, action: Action) -> str:
        self._nodes.release(engine)
        engine.remove_all(keep=(f"{base(engine.yard)}-journal",), network=False)
        return ""

    # ------------------------------------------------------------ the master

    def _start_master(self, engine: HostEngine, action: Action) -> str:
        [name] = action.names
        self._swarm.create(self._services[name], 1)
        try:
            self._wait_for_master(engine, name)
        except BaseException:
            self._swarm.remove(name)
            raise
        return ""

    def _replace(self, engine: HostEngine, action: Action) -> str:
        """Swarm stops the old one, starts the new one, and goes back if that does not run."""
        [name] = action.names
        self._swarm.replace(self._services[name])
        self._wait_for_master(engine, name)
        return ""

    def _wait_for_master(self, engine: HostEngine, name: str) -> None:
        shape = self._services[name].digest
        before = {one.id for one in self._swarm.troubles(name)}
        deadline = Deadline.after(READY_S)
        while True:
            self.check()
            back = self._swarm.change_of(name) in BACK
            end = "; the one of before works on" if back else ""
            self._look_after(name, before, 1 if back else FAILS, end)
            masters = [one for one in engine.containers() if one.role == "master" and one.shape == shape]
            last = self._last_words(name)
            if any(one.state in RUNS for one in masters):
                try:
                    self.yard().status()
                    return
                except UnreachableError as error:
                    last = str(error)
            if deadline.passed:
                raise HostError(f"{engine.name}: {name} was not ready in {READY_S:.0f} s: {last}")
            time.sleep(POLL_S)

    # ------------------------------------------------------------ workers

    def _start_workers(self, engine: HostEngine, action: Action) -> str:
        """Have Swarm run so many, and wait until the master knows them."""
        [name], [many] = action.names, action.numbers
        before = {one.id for one in self._swarm.troubles(name)}
        new = all(one.name != name for one in self._swarm.services())
        if new:
            self._swarm.create(self._services[name], many)
        else:
            self._swarm.resize(name, many)
        try:
            self._wait_for_workers(engine, name, before, many)
        except BaseException:
            if new:
                self._swarm.remove(name)
            raise
        return ""

    def _wait_for_workers(self, engine: HostEngine, name: str, before: set[str], many: int) -> None:
        deadline = Deadline.after(READY_S)
        while True:
            self.check()
            members = [_member(one) for one in _of(engine, (name,))]
            workers = self.yard().status().workers
            known = [status_of(member, workers) for member in members]
            joined = sum(one is not None and one.state in ("idle", "running") for one in known)
            if joined >= many:
                return
            self._look_after(name, before, FAILS)
            if deadline.passed:
                raise HostError(
                    f"{engine.name}: {joined} of {many} workers joined within {READY_S:.0f} s"
                    f" ({self._last_words(name)}): 'docker service ps {name}' on {self._boss.name} tells"
                )
            time.sleep(POLL_S)

    def _look_after(self, name: str, before: set[str], fails: int, end: str = "") -> None:
        """Raise what keeps tasks of a service from running, with the end of one's log."""
        new = [one for one in self._swarm.troubles(name) if one.broken and one.id not in before]
        if len(new) < fails:
            return
        where, words = self._log(new[-1])
        raise HostError(f"{where}: {name} does not start: {words}{end}")

    def _last_words(self, name: str) -> str:
        """What Swarm says of a service that does not run."""
        said = [one.text for one in self._swarm.troubles(name)]
        return said[-1] if said else "Swarm says nothing"

    def _log(self, trouble: Trouble) -> tuple[str, str]:
        """Show what a task printed; returns its host and the last words."""
        for engine in self.parts.engines.values():
            if seat(engine).node == trouble.node:
                lines = engine.tail(trouble.container, 1) if trouble.container else []
                if lines:
                    self.show(engine, trouble.container)
                return engine.name, lines[-1] if lines else trouble.text
        return self._boss.name, trouble.text

    def _retire(self, engine: HostEngine, action: Action) -> str:
        """Let the workers of old services finish what they hold, then remove the services."""
        self._drain(engine, lambda: _of(engine, action.names), lambda one: None)
        for name in action.names:
            self._swarm.remove(name)
        deadline = Deadline.after(GONE_S)
        while _of(engine, action.names) and not deadline.passed:
            time.sleep(POLL_S)
        return ""

    def _thin(self, engine: HostEngine, action: Action) -> str:
        """Let the idlest workers finish what they hold, then have Swarm forget them."""
        [name], [many] = action.names, action.numbers
        members = [_member(one) for one in _of(engine, (name,))]
        ids = {member.container for member, _ in idlest(members, self.yard().status().workers, many)}

        def remove(one: Running) -> None:
            _, task = engine.task_of(one.id)
            engine.end(one.id, WORKER_GRACE_S)
            self._swarm.shrink(name, task)

        self._drain(engine, lambda: [one for one in _of(engine, (name,)) if one.id in ids], remove)
        return ""

    def _drain(
        self, engine: HostEngine, there: Callable[[], list[Running]], then: Callable[[Running], None]
    ) -> None:
        """Until all of `there` hold nothing; each is then given to `then`."""
        told, ordered, done = False, set[str](), set[str]()
        while True:
            workers = self.yard().status().workers
            busy = []
            for one in there():
                worker = status_of(_member(one), workers)
                if worker is not None and worker.state not in ("drained", "missing"):
                    busy.append(worker)
                elif one.id not in done:
                    done.add(one.id)
                    then(one)
            for worker in busy:
                if worker.id not in ordered:
                    ordered.add(worker.id)
                    self.yard().drain(worker.id)
            if not busy:
                return
            held = sum(worker.leased for worker in busy)
            if held and not told:
                told = True
                self.display.say(f"{engine.name}: {len(busy)} old workers finish {held} tasks first")
            if self.stop.is_set():
                self.display.say(f"{engine.name}: {len(busy)} old workers go on draining")
                self.check()
            time.sleep(POLL_S)


def _of(engine: HostEngine, services: Sequence[str]) -> list[Running]:
    """What runs of some services on a host."""
    return [one for one in engine.containers() if one.service in services and one.state in RUNS]


def _member(one: Running) -> Member:
    return Member(one.name, one.role, one.state, container=one.id)
