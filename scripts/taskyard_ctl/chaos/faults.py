"""Faults at random, in an order that the seed decides: kills of workers and of the master, and stops."""

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass

from taskyard_ctl.chaos.victims import Victim, Yards
from taskyard_ctl.interface import Say

SETTLE_S = 10.0  # how long the last victims may take to be started again


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds between two faults of a kind; 0 = none."""

    worker: float = 0.5
    master: float = 10.0
    stop: float = 5.0
    longest_stop: float = 8.0  # seconds for which a process is stopped


class Faults:
    """Runs until `finish`; `happened` counts what has really happened."""

    def __init__(self, yard: Yards, plan: Plan, seed: int, say: Say) -> None:
        self.sent: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._yard = yard
        self._plan = plan
        self._random = random.Random(f"faults {seed}")
        self._say = say
        self._over = threading.Event()
        self._stopped: list[tuple[float, Victim]] = []  # until when, monotonic
        self._before: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="chaos faults", daemon=True)
        self.error: BaseException | None = None

    def start(self) -> None:
        self._before = self._yard.restarts()
        self._thread.start()

    def finish(self) -> None:
        """Hit nobody any more, let who was stopped go on, and count."""
        self._over.set()
        self._thread.join()
        for _, victim in self._stopped:
            self._yard.hit(victim, signal.SIGCONT)
        if self.error is not None:
            raise self.error
        self._count()

    def _run(self) -> None:
        plan, now = self._plan, time.monotonic()
        due = {
            kind: now + every
            for kind, every in (("worker", plan.worker), ("master", plan.master), ("stop", plan.stop))
            if every
        }
        try:
            while not self._over.wait(max(0.0, self._next(due) - time.monotonic())):
                now = time.monotonic()
                self._go_on(now)
                for kind in [kind for kind, at in due.items() if at <= now]:
                    due[kind] = max(now, due[kind] + getattr(plan, kind))
                    self._strike(kind, now)
        except BaseException as error:  # noqa: BLE001 - it is raised by finish
            self.error = error

    def _next(self, due: dict[str, float]) -> float:
        return min([*due.values(), *(until for until, _ in self._stopped), time.monotonic() + 1.0])

    def _strike(self, kind: str, now: float) -> None:
        running = sorted(self._yard.running(), key=lambda victim: victim.name)
        stopped = {victim for _, victim in self._stopped}
        if kind == "master":
            running = [victim for victim in running if victim.role == "master"]
        elif kind == "worker":
            running = [victim for victim in running if victim.role == "worker"]
        else:  # one at a time, so that somebody works
            running = [victim for victim in running if victim not in stopped] if not stopped else []
        if not running:
            return
        victim = self._random.choice(running)
        number = signal.SIGSTOP if kind == "stop" else signal.SIGKILL
        if not self._yard.hit(victim, number):
            return
        self.sent[kind] += 1
        if kind == "stop":
            self.happened[f"{victim.role} stops"] += 1
            most = self._plan.longest_stop if victim.role == "worker" else self._plan.longest_stop / 4
            self._stopped.append((now + self._random.uniform(0.1, most), victim))
        if kind == "master":
            self._say(f"killed the master ({self.sent['worker']} workers so far)")

    def _go_on(self, now: float) -> None:
        for until, victim in list(self._stopped):
            if until <= now:
                self._stopped.remove((until, victim))
                self._yard.hit(victim, signal.SIGCONT)

    def _count(self) -> None:
        """A kill has happened if what died was started again."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            after = self._yard.restarts()
            grown = {name: count - self._before.get(name, 0) for name, count in after.items()}
            master = grown.get("master", 0)
            workers = sum(count for name, count in grown.items() if name != "master")
            if (workers, master) >= (self.sent["worker"], self.sent["master"]) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.happened["worker kills"] = min(workers, self.sent["worker"])
        self.happened["master kills"] = min(master, self.sent["master"])
