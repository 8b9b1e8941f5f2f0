"""The steps of a deploy, one method a kind of action; each is done whole or taken back."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskyard.clock import Deadline
from taskyard.errors import EXIT_INTERRUPTED, HostError, TaskyardError, UnreachableError
from taskyard.tls_files import REVOKED
from taskyard_ctl.containers import Box, base
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.hostprogress import Display
from taskyard_ctl.layout import Cargo
from taskyard_ctl.plan import RUNS, Action, Role, Stage
from taskyard_ctl.shipping import Hold

if TYPE_CHECKING:
    from taskyard.client import Yard

READY_S = 90.0
POLL_S = 0.1
MASTER_GRACE_S = 15
WORKER_GRACE_S = 15  # of one that has drained
STOP_S = 60  # of one that drains only now, more than TASKYARD_DRAIN
TAIL = 15  # lines of a container that does not start


class Stopped(TaskyardError):
    """Somebody pressed Ctrl-C; what was begun is finished or taken back."""

    exit_code = EXIT_INTERRUPTED


@dataclass(frozen=True, slots=True)
class Parts:
    """What is needed to perform a plan."""

    engines: Mapping[str, HostEngine]
    boxes: Mapping[tuple[str, Role], Box]
    keys: Mapping[tuple[str, Role], Mapping[str, bytes]]  # files
    hold: Hold
    cargos: Mapping[str, Cargo]  # by image
    connect: "Callable[[], Yard]"  # to the master, through its host
    registry: str = ""  # where hosts pull images from


class Steps:
    """Performs actions; several threads may, each on a host of its own."""

    def __init__(self, parts: Parts, display: Display) -> None:
        self.parts = parts
        self.display = display
        self.stop = threading.Event()
        self.bytes: dict[str, int] = {}  # sent, by host
        self._yard: Yard | None = None
        self._lock = threading.Lock()

    def perform(self, action: Action) -> str:
        """Do one step; returns a remark."""
        return self.kinds(action)[action.kind](self.parts.engines[action.host], action)

    def kinds(self, action: Action) -> dict[str, Callable[[HostEngine, Action], str]]:
        """What does each kind of action."""
        return {
            "send": self._send,
            "network": self._network,
            "keys": self._keys,
            "list": self._list,
            "start": self._start_master if action.role == "master" else self._start_workers,
            "again": self._again,
            "replace": self._replace,
            "retire": self._retire,
            "remove": self._remove,
            "forget": self._forget,
            "leave": self._leave,
        }

    def check(self) -> None:
        """Raise Stopped if somebody wants us to end."""
        if self.stop.is_set():
            raise Stopped("interrupted")

    def close(self) -> None:
        if self._yard is not None:
            self._yard.close()

    # ------------------------------------------------------------ one kind each

    def _network(self, engine: HostEngine, action: Action) -> str:
        engine.make_network()
        return ""

    def _keys(self, engine: HostEngine, action: Action) -> str:
        if action.stage is Stage.CLEAN:
            for name in action.names:
                engine.remove_volume(name)
        else:
            box = self.parts.boxes[action.host, action.role]
            engine.put(box.keys, box.image, self.parts.keys[action.host, action.role])
        return ""

    def _list(self, engine: HostEngine, action: Action) -> str:
        image = self.parts.boxes[action.host, "master"].image
        files = self.parts.keys[action.host, "master"]
        engine.put(action.names[0], image, {REVOKED: files[REVOKED]})
        return ""

    def _remove(self, engine: HostEngine, action: Action) -> str:
        for name in action.names:
            engine.remove(name, MASTER_GRACE_S if action.role == "master" else 0)
        return ""

    def _forget(self, engine: HostEngine, action: Action) -> str:
        for name in action.names:
            engine.remove_image(name)
        return ""

    def _leave(self, engine: HostEngine, action: Action) -> str:
        engine.remove_all(keep=(f"{base(engine.yard)}-journal",))
        return ""

    def _start_master(self, engine: HostEngine, action: Action) -> str:
        for name in action.names:  # of another shape, and stopped
            engine.remove(name)
        return self._ready(engine, engine.create(self.parts.boxes[engine.name, "master"], 0))

    def _again(self, engine: HostEngine, action: Action) -> str:
        return self._ready(engine, action.names[0])

    def _send(self, engine: HostEngine, action: Action) -> str:
        image = action.names[0]
        if self.parts.registry:
            engine.pull(self.parts.registry, image)
            return ""
        bar = self.display.bar(engine.name)

        def progress(count: int) -> None:
            self.check()
            bar.advance(count)

        with bar:
            sent = engine.send(self.parts.hold, self.parts.cargos[image], bar.total, progress)
        self.bytes[engine.name] = self.bytes.get(engine.name, 0) + sent
        return f"{sent:,} bytes"

    def _ready(self, engine: HostEngine, name: str) -> str:
        try:
            engine.start(name)
            self._wait_master(engine, name)
        except BaseException:
            self.show(engine, name)
            with contextlib.suppress(HostError):
                engine.stop(name, MASTER_GRACE_S)
            raise
        return ""

    def _replace(self, engine: HostEngine, action: Action) -> str:
        """The new one opens the journal when the old one has closed it; if it fails, the old one goes on."""
        old = action.names
        name = engine.create(self.parts.boxes[engine.name, "master"], 0)
        running = [one for one in old if engine.state(one)[0] in RUNS]
        try:
            for one in running:
                engine.stop(one, MASTER_GRACE_S)
            engine.start(name)
            self._wait_master(engine, name)
        except BaseException as fault:
            self.show(engine, name)
            engine.remove(name, MASTER_GRACE_S)
            for one in running:
                engine.start(one)
            if isinstance(fault, HostError) and running:
                raise HostError(f"{fault}; the one of before works on") from None
            raise
        for one in old:
            engine.remove(one)
        return ""

    def _wait_master(self, engine: HostEngine, name: str) -> None:
        deadline = Deadline.after(READY_S)
        while True:
            self.check()
            self._still_runs(engine, name)
            try:
                self.yard().status()
                return
            except UnreachableError as error:
                if deadline.passed:
                    raise HostError(
                        f"{engine.name}: {name} was not ready in {READY_S:.0f} s: {error}"
                    ) from None
            time.sleep(POLL_S)

    def _start_workers(self, engine: HostEngine, action: Action) -> str:
        """Start them, and wait until the master knows them; those that do not join are taken away again."""
        box = self.parts.boxes[engine.name, "worker"]
        made: list[str] = []
        try:
            for number in action.numbers:
                made.append(engine.create(box, number))
            for name in made:
                engine.start(name)
            self._wait_joined(engine, made)
        except BaseException:
            if made:
                self.show(engine, made[0])
            for name in made:
                with contextlib.suppress(HostError):
                    engine.remove(name, WORKER_GRACE_S)
            raise
        return ""

    def _wait_joined(self, engine: HostEngine, names: list[str]) -> None:
        ids = {one.id: one.name for one in engine.containers() if one.name in names}
        deadline = Deadline.after(READY_S)
        while True:
            self.check()
            joined = {w.container for w in self.yard().status().workers if w.state in ("idle", "running")}
            left = [name for full, name in ids.items() if not any(full.startswith(c) for c in joined if c)]
            if not left:
                return
            for name in left:
                self._still_runs(engine, name)
            if deadline.passed:
                raise HostError(f"{engine.name}: {', '.join(left)} did not join within {READY_S:.0f} s")
            time.sleep(POLL_S)

    def _still_runs(self, engine: HostEngine, name: str) -> None:
        state, restarts = engine.state(name)
        if state not in RUNS or restarts > 1:
            words = engine.tail(name, 1) if state != "gone" else []
            raise HostError(f"{engine.name}: {name} does not start: {words[-1] if words else state}")

    def show(self, engine: HostEngine, name: str) -> None:
        """Print the end of a container's log."""
        with contextlib.suppress(HostError):
            for line in engine.tail(name, TAIL):
                self.display.say(f"{engine.name}: {name} | {line}")

    def _retire(self, engine: HostEngine, action: Action) -> str:
        """Let workers finish what they hold, then remove them."""
        wanted = {one.id: one.name for one in engine.containers() if one.name in action.names}
        yard, told, drained = self.yard(), False, set[str]()
        while wanted:
            known = {w.container: w for w in yard.status().workers if w.container}
            held = 0
            for full, name in list(wanted.items()):
                worker = next((w for short, w in known.items() if full.startswith(short)), None)
                if (
                    worker is None
                    or worker.state in ("drained", "missing")
                    or engine.state(name)[0] not in RUNS
                ):
                    engine.remove(name, WORKER_GRACE_S)
                    del wanted[full]
                    continue
                if worker.id not in drained:
                    drained.add(worker.id)
                    yard.drain(worker.id)
                held += worker.leased
            if wanted and not told and held:
                told = True
                self.display.say(f"{engine.name}: {len(wanted)} old workers finish {held} tasks first")
            if wanted and self.stop.is_set():
                self.display.say(f"{engine.name}: {len(wanted)} old workers go on draining")
                self.check()
            time.sleep(POLL_S if wanted else 0)
        return ""

    def yard(self) -> "Yard":
        """The connection to the master, made when first asked for."""
        with self._lock:
            if self._yard is None:
                self._yard = self.parts.connect()
            return self._yard
