"""One slot as the agent holds it: a child process with up to two batches.

While it works on one batch the next lies ready, so it never waits between them.
Outcomes are taken when a bell says that a batch has ended, and besides at a look every few
milliseconds, so that what is finished never waits behind a task that takes long. The look also kills what
ran too long, and takes back what lies behind a long task, for other slots to run.

What a look at the memory finds is believed at the next one: by then the slot's writes
have arrived on any processor, and so has what was written for the slot.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from taskyard import log
from taskyard.backoff import delay
from taskyard.messages import Held, Outcome, Running
from taskyard_worker import memory
from taskyard_worker.ending import Ending
from taskyard_worker.pieces import Batch, Piece, fits, place
from taskyard_worker.prints import Listener, Prints
from taskyard_worker.process import Process, Start
from taskyard_worker.reasons import Cgroup, death

RECALL_SECONDS = 0.05  # a task that runs longer keeps nothing waiting behind it
LOADING_SECONDS = 300.0  # how long a slot may import and decode before its first task begins
RETIRE_SECONDS = 5.0  # how long a process may take to end by itself
_CLOSED = "a task closed the pipes that its process works with"

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Whom a slot tells what happens."""

    def settled(self, piece: Piece, outcomes: list[Outcome], /) -> None:
        """Some tasks of a piece have come to their end."""

    def returned(self, piece: Piece, /) -> None:
        """These have not begun and are not the slot's any more."""

    def hungry(self) -> None:
        """A slot takes a batch."""


class Slot:
    """A slot; its process is replaced whenever it ends. Belongs to the event loop's thread."""

    def __init__(
        self, number: int, start: Start, owner: Owner, emit: Callable[[str, str], None], recycle: int,
        prints: int, cgroup: Cgroup, beside: Callable[["Slot"], bool],
    ) -> None:  # fmt: skip
        self.number = number
        self.process: Process | None = None
        self.batches: deque[Batch] = deque()
        self.hurry = False  # take back what has not begun at once
        self._start = start
        self._owner = owner
        self._emit = emit
        self._recycle = recycle
        self._print_limit = prints
        self._cgroup = cgroup
        self._beside = beside  # whether other slots run something
        self._seq = 0
        self._deaths = 0  # in a row, before it was ready
        self._stopped = False
        self._restart: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ its process

    def start(self) -> None:
        """Start the process; what it is given meanwhile waits for it."""
        self._restart = None
        self._fate = ""  # why it is being killed by us, if it is
        self._late: tuple[int, int] | None = None  # the task that it is killed for
        self._ready = False
        self._retiring = 0.0  # since when it has been asked to end, monotonic
        self._renew = False
        self._left = self._recycle or 1 << 62  # tasks until the process is renewed
        self._key: tuple[int, int, int] | None = None  # what it was doing at the last look
        self._key_since = 0.0
        self._excused = 0.0  # seconds of the present task in which the whole worker was stopped
        self._kills = self._cgroup.kills()
        loop = asyncio.get_running_loop()
        try:
            process = Process(self._start)
        except OSError as error:
            log.event(logger, "slot-not-started", f"slot {self.number} cannot start: {error}", logging.ERROR)
            self._start_later()
            return
        self.process = process
        prints = Prints(process.token, self._print_limit, self._emit)
        self._listener = Listener(process.prints, process.memory.head, prints)
        loop.add_reader(process.bell, self._on_bell)
        loop.add_reader(process.prints, self._on_prints)
        if process.gone >= 0:
            loop.add_reader(process.gone, self._on_end)

    def _start_later(self) -> None:
        self._deaths += 1
        seconds = delay(self._deaths, random.random(), base=0.1, cap=10.0)
        self._restart = asyncio.get_running_loop().call_later(seconds, self.start)

    def renew(self, python: str) -> None:
        """Replace the process by one of this interpreter, once it has finished what it was given."""
        self._start = replace(self._start, python=python)
        self._renew = True
        self._retire_if_due()

    def stop(self) -> None:
        """Kill the process and start no other."""
        self._stopped = True
        if self._restart is not None:
            self._restart.cancel()
        self._kill("stop")

    def _kill(self, fate: str) -> None:
        if self.process is not None:
            self._fate = self._fate or fate
            self.process.kill()

    def _retire_if_due(self) -> None:
        due = self._renew or self._left <= 0
        if due and self.process and not self.batches and not self._retiring:
            self._retiring = asyncio.get_running_loop().time()
            self.process.retire()

    # ------------------------------------------------------------ batches in and out

    @property
    def takes(self) -> bool:
        """Whether it takes a batch: it has one at most, and is not held up in a long task."""
        held_up = bool(self.batches) and self.batches[0].recalling >= 0
        usable = self.process is not None and not self._fate and not self._renew and self._left > 0
        return usable and len(self.batches) < 2 and not held_up

    def fits(self, piece: Piece) -> int:
        """How many tasks of a piece it takes at once; 0 if the first is too large for any slot."""
        assert self.process is not None
        return min(self._left, fits(piece, self.process.memory.regions[0]))

    def give(self, piece: Piece) -> None:
        """Run a piece after what it has already. Only if `takes`, and no more tasks than `fits`."""
        assert self.process is not None
        self._seq += 1
        self._left -= piece.count
        self.batches.append(place(piece, self._seq, self.process.memory.regions[self._seq & 1]))
        with contextlib.suppress(BrokenPipeError):  # it has just died: its end returns the piece
            os.write(self.process.orders, memory.ORDER.pack(self._seq))

    def drop(self, leases: set[int]) -> None:
        for batch in self.batches:
            if batch.piece.lease in leases:
                batch.dropped = True
                batch.region.state[memory.LIMIT] = 0

    def held(self) -> Iterator[Held]:
        for batch in self.batches:
            piece = batch.piece
            if batch.taken < batch.limit and not batch.dropped:
                count = batch.limit - batch.taken
                yield Held(piece.lease, piece.job, piece.first + batch.taken, count)

    def running(self, epoch: float) -> Running | None:
        """What it does; `epoch`: Unix seconds at monotonic zero."""
        index = self.batches[0].running if self.batches else None
        if index is None:
            return None
        batch = self.batches[0]
        return Running(self.number, batch.piece.job, batch.piece.first + index, epoch + batch.since(index))

    def elapsed(self, function: str) -> float:
        """Seconds that it runs a task of this function already; 0 if it does not."""
        index = self.batches[0].running if self.batches else None
        if index is None or self.batches[0].piece.function != function:
            return 0.0
        return max(0.0, time.monotonic() - self.batches[0].since(index))

    @property
    def working(self) -> bool:
        """Whether a task runs in it."""
        return bool(self.batches) and self.batches[0].running is not None

    @property
    def restless(self) -> bool:
        """Whether it should be looked at often."""
        return bool(
            self.batches or (self.process and (self._fate or self._retiring or self._listener.unmarked))
        )

    def _on_bell(self) -> None:
        assert self.process is not None
        data = self.process.read_bells()
        if data == b"":
            asyncio.get_running_loop().remove_reader(self.process.bell)
            self._on_end()  # or a task has closed it: then looks have to do
            return
        for seq, done in memory.BELL.iter_unpack(data or b""):
            if not seq:
                self._ready = True
                self._deaths = 0
            elif self.batches and self.batches[0].seq == seq:
                batch = self.batches[0]
                if done > batch.taken:
                    self._owner.settled(batch.piece, batch.outcomes(done))
                self._finish()
        if self.takes:
            self._owner.hungry()

    def _finish(self) -> None:
        """The first batch has ended."""
        batch = self.batches.popleft()
        rest = batch.rest()
        if rest is not None:
            self._left += rest.count
            if not batch.dropped:
                self._owner.returned(rest)
        self._retire_if_due()

    # ------------------------------------------------------------ the look every few milliseconds

    def look(self, now: float, lost: float) -> None:
        """Look after it at monotonic `now`; `lost`: seconds in which this process itself was stopped."""
        if self.process is None:
            return
        if self.process.ended():
            self._on_end()
            return
        if self._retiring and now - self._retiring > RETIRE_SECONDS:
            self._kill("stop")
        batch = self.batches[0] if self.batches else None
        key = self._doing()
        same, self._key = key == self._key, key
        if not same:
            self._key_since, self._excused = now, 0.0
        self._excused += lost
        if same:
            self._listener.look(key, self._tag())
        if batch is None or self._fate:
            return
        seen, batch.seen = batch.seen, key[2]
        if seen > batch.taken:
            self._owner.settled(batch.piece, batch.outcomes(seen))
        if same:
            self._attend(batch, key[1], key[2], now)

    def _attend(self, batch: Batch, phase: int, index: int, now: float) -> None:
        """It has been doing the same since the last look at least.

        `phase` and `index`, of its task, are those of both looks, and are not read again: a batch
        that has ended since has outcomes that nobody took yet, and a task that has begun since has
        a start that may not be visible.
        """
        if phase == memory.ENDED:  # and its bell was lost, because the pipe was full of bells
            self._finish()
            self._owner.hungry()
        elif phase == memory.LOADING and now - self._key_since > LOADING_SECONDS:
            self._late = (batch.seq, 0)
            self._kill("timeout")
        if phase != memory.RUNNING or index >= batch.piece.count:
            return
        seconds = now - batch.since(index) - self._excused
        if batch.dropped:
            self._kill("drop")
        elif 0 < batch.piece.timeout < seconds:
            self._late = (batch.seq, index)
            self._kill("timeout")
        elif self.hurry or seconds > RECALL_SECONDS:
            self._recall(batch, index)

    def _recall(self, batch: Batch, index: int) -> None:
        """Take back what lies behind a long task: first forbid it, and once that must be known, take it."""
        following = list(self.batches)[1:]
        if batch.recalling <= index:
            for each, limit in [(batch, index + 1), *((other, 0) for other in following)]:
                each.recalling = limit
                each.region.state[memory.LIMIT] = min(each.region.state[memory.LIMIT], limit)
            return
        for each in (batch, *following):
            if each.recalling < each.limit:
                back, each.limit = each.piece.cut(each.recalling, each.limit), each.recalling
                self._left += back.count
                if not each.dropped:
                    self._owner.returned(back)

    # ------------------------------------------------------------ its end

    def _on_end(self) -> None:
        """Its process has ended: read the memory once more, charge who is to be charged, begin anew."""
        process = self.process
        if process is None or not process.ended():
            return
        code = process.reap()
        ours = bool(self._fate or self._retiring)
        words = _CLOSED if code == memory.CLOSED else death(code, self._cgroup, self._kills)
        ending = Ending(code, words, ours, self._late, self._beside(self))
        loop = asyncio.get_running_loop()
        for fd in (process.bell, process.prints, process.gone):
            if fd >= 0:
                loop.remove_reader(fd)
        self._listener.finish(self._tag())
        self.process = None
        batches, self.batches = list(self.batches), deque()
        for batch in batches:
            outcomes, rest = ending.account(batch)
            if outcomes:
                self._owner.settled(batch.piece, outcomes)
            if rest is not None:
                self._owner.returned(rest)
        process.close()
        if self._stopped:
            return
        if not ours:
            log.event(logger, "slot-died", f"slot {self.number}: {words}", logging.WARNING, code=code)
        if self._ready or ours:
            self.start()
        else:
            self._start_later()
        self._owner.hungry()

    # ------------------------------------------------------------ what it prints

    def _doing(self) -> tuple[int, int, int]:
        """Changes with whatever the slot does next."""
        batch = self.batches[0] if self.batches else None
        return (batch.seq, batch.phase, batch.done) if batch else (0, 0, 0)

    def _tag(self) -> str:
        """Whose the output is that comes at this moment."""
        if not self.batches:
            return f"slot {self.number}"
        batch = self.batches[0]
        return f"{batch.piece.job}/{batch.piece.first + min(batch.done, batch.piece.count - 1)}"

    def _on_prints(self) -> None:
        assert self.process is not None
        if not self._listener.read(self._doing()):
            asyncio.get_running_loop().remove_reader(self.process.prints)
