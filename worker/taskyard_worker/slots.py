"""The slots of a worker: how many there are, when they are looked at, when they end."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from taskyard.messages import Held, Running
from taskyard_worker.pieces import Piece
from taskyard_worker.process import Start
from taskyard_worker.reasons import Cgroup
from taskyard_worker.slot_handle import Owner, Slot

TICK = 0.015  # seconds between two looks at slots that work
IDLE_TICK = 0.25  # and at slots that do not


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say about slots."""

    slots: int = 1
    recycle: int = 0  # tasks after which a process is renewed; 0 = never
    prints: int = 65536  # bytes kept of what one task prints


class Slots:
    """All slots of this worker. Everything here belongs to the event loop's thread."""

    def __init__(self, start: Start, limits: Limits, owner: Owner, emit: Callable[[str, str], None]) -> None:
        self._cgroup = Cgroup.find()
        self._timer: asyncio.TimerHandle | None = None
        self._looked = time.monotonic()
        self.all = [
            Slot(number, start, owner, emit, limits.recycle, limits.prints, self._cgroup, self._busy_beside)
            for number in range(limits.slots)
        ]

    def start(self) -> None:
        """Start the processes and the tick; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        for slot in self.all:
            slot.start()
        self._arm(TICK)

    def free(self) -> list[Slot]:
        """Slots that take a batch now, those that have none first."""
        return sorted((slot for slot in self.all if slot.takes), key=lambda slot: len(slot.batches))

    def give(self, slot: Slot, piece: Piece) -> None:
        """Hand a piece to a slot that takes it; it must fit (see `Slot.fits`)."""
        slot.give(piece)
        if self._timer is None or self._timer.when() - self._loop.time() > TICK:
            self._arm(TICK)

    def hasten(self, hurry: bool) -> None:
        """Take back at once what has not begun, and go on so until told otherwise."""
        for slot in self.all:
            slot.hurry = hurry

    def drop(self, leases: set[int]) -> None:
        """Forget leases: what of them has not begun must not run, and a slot that runs one is killed."""
        for slot in self.all:
            slot.drop(leases)

    def renew(self, python: str) -> None:
        """Replace each process by one of this interpreter, once it has finished what it was given."""
        for slot in self.all:
            slot.renew(python)

    def held(self) -> Iterator[Held]:
        """The ranges in slots whose outcomes were not taken yet."""
        for slot in self.all:
            yield from slot.held()

    def running(self) -> list[Running]:
        """What each slot does at the moment."""
        now = time.time() - time.monotonic()
        return [running for slot in self.all if (running := slot.running(now)) is not None]

    @property
    def busy(self) -> bool:
        """Whether any slot has a batch."""
        return any(slot.batches for slot in self.all)

    @property
    def idle(self) -> int:
        """How many slots have none and take one."""
        return sum(1 for slot in self.all if slot.takes and not slot.batches)

    @property
    def down(self) -> bool:
        """Whether no slot has a process, because none can be started at the moment."""
        return all(slot.process is None for slot in self.all)

    @property
    def suspect(self) -> bool:
        """Whether a slot has a task that may kill this worker."""
        return any(batch.piece.suspect for slot in self.all for batch in slot.batches)

    def stuck(self, function: str) -> float:
        """Seconds that all slots have been at one task each of this function; 0 if one has not."""
        return min(slot.elapsed(function) for slot in self.all)

    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self.all if slot.process is not None]

    async def stop(self, seconds: float = 5.0) -> None:
        """Kill all, return what ran and what waited to the owner, and wait for their end, so long at most."""
        if self._timer is not None:
            self._timer.cancel()
        for slot in self.all:
            slot.stop()
        deadline = time.monotonic() + seconds
        while any(slot.process for slot in self.all) and time.monotonic() < deadline:
            for slot in self.all:
                slot.look(time.monotonic(), 0.0)
            await asyncio.sleep(0.002)

    def _busy_beside(self, one: Slot) -> bool:
        return any(slot.working for slot in self.all if slot is not one)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        lost = max(0.0, now - self._looked - 1.0)  # the whole worker was stopped: nobody's time ran
        self._looked = now
        for slot in self.all:
            slot.look(now, lost)
        self._arm(TICK if any(slot.restless for slot in self.all) else IDLE_TICK)
