"""The workers that the master knows: who they are, what they run, when they were last heard."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Protocol

from taskyard.messages import Hello, Notice, Running, WorkerStatus


class Peer(Protocol):
    """One connection, as the service sees it."""

    id: str
    address: str
    hello: Hello | None

    def notify(self, notice: Notice) -> None: ...

    def close(self, reason: str) -> None: ...


@dataclass(slots=True)
class Worker:
    """One process of a worker, by its boot id, over all of its connections."""

    hello: Hello
    peer: Peer | None  # None: its connection dropped, and it may come back
    joined: float  # Unix seconds
    seen: float  # Unix seconds
    running: list[Running] = field(default_factory=list)
    draining: bool = False  # it was ordered to
    leaving: bool = False  # it does so, as it said last
    drained: bool = False
    functions: frozenset[str] = frozenset()  # of the hello, for quick looks
    completed: int = 0
    failed: int = 0
    memory: int = 0

    def status(self, leased: int) -> WorkerStatus:
        hello = self.hello
        state: Literal["idle", "running", "draining", "drained", "missing"]
        if self.peer is None:
            state = "missing"
        elif self.drained and not leased:
            state = "drained"
        elif self.draining or self.leaving or self.drained:
            state = "draining"
        else:
            state = "running" if leased else "idle"
        return WorkerStatus(
            id=hello.name, host=hello.host, pid=hello.pid, container=hello.container, state=state,
            slots=hello.slots, running=self.running, leased=leased, completed=self.completed,
            failed=self.failed, joined=self.joined, seen=self.seen, version=hello.version,
            python=hello.python, digest=hello.digest, functions=hello.functions, memory=self.memory,
            baked=hello.baked,
        )  # fmt: skip


class Roster:
    """All workers by boot id; the counts that sizing of leases needs are kept, not computed."""

    def __init__(self) -> None:
        self.by_boot: dict[str, Worker] = {}
        self._noted: dict[str, tuple[frozenset[str], int]] = {}  # functions and slots of those connected
        self._slots: Counter[frozenset[str]] = Counter()  # by functions, which most workers have in common

    def note(self, worker: Worker) -> None:
        """To be called after its connection, or what its hello says, has changed."""
        boot = worker.hello.boot
        if boot in self._noted:
            functions, slots = self._noted.pop(boot)
            self._slots[functions] -= slots
            if not self._slots[functions]:
                del self._slots[functions]
        if worker.peer is not None:
            self._noted[boot] = worker.functions, worker.hello.slots
            self._slots[worker.functions] += worker.hello.slots

    @property
    def joined(self) -> int:
        """How many are connected."""
        return len(self._noted)

    def named(self, name: str) -> list[Worker]:
        """Workers whose id is `name`, or begins with it if none is."""
        exact = [worker for worker in self.by_boot.values() if worker.hello.name == name]
        return exact or [w for w in self.by_boot.values() if name and w.hello.name.startswith(name)]

    def able(self, function: str) -> int:
        """How many joined workers can run a function."""
        return sum(1 for w in self.by_boot.values() if w.peer is not None and can_run(w.hello, function))

    def sharing(self, functions: frozenset[str]) -> int:
        """Slots of the joined workers that can run one of these functions, at least 1."""
        return max(1, sum(slots for their, slots in self._slots.items() if not their.isdisjoint(functions)))


def can_run(hello: Hello, function: str) -> bool:
    """Whether a worker lists a function; "" (each payload names its own) asks for any."""
    return function in hello.functions if function else bool(hello.functions)
