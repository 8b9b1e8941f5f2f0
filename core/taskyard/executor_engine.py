"""What an executor does behind its futures: a line of calls, a window of tasks in the yard, one reader.

Calls wait in line here, where they can still be cancelled, and go to the yard as far as its slots have
use for them: a quarter of a second of work ahead, and two a slot at least. All outcomes come by one
cursor over the job's rows, read by one thread, which also fills the window again. Nothing polls; while
calls wait in line, the number of slots is looked up once a second.
"""

import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat

from taskyard.client import Yard
from taskyard.errors import PayloadError, ProtocolError, TaskyardError
from taskyard.executor_units import BrokenYardError, Source, Unit, breakage
from taskyard.job import HOLD, SPACE, outcomes
from taskyard.messages import Cancel, Close, Ok, Options, Results, Row, Rows, Status, StatusReply
from taskyard.pending import Pending
from taskyard.values import loads_block

log = logging.getLogger(__name__)

AHEAD = 0.25  # seconds of work that the yard holds beyond what runs
EACH = 2  # tasks a slot that it holds in any case
MOST = 1 << 16  # tasks that it holds at most
# Bytes of tasks that the yard holds at most. The submitter makes callers wait once it has 6 chunks without
# an answer, none of them under half of 256 KiB; with less than that on its way, `submit` never waits.
MOST_BYTES = 6 * (128 << 10)
LOOK = 1.0  # seconds between looks at the yard's slots while calls wait in line
GOODBYE = 3.0  # seconds for closing the job
QUEUED = 64  # units in line at which a shutdown reads no more inputs for the moment
_FADE = 0.8  # how much of what is known of a task's duration stays with each new row
_PRESENT = ("idle", "running")  # states of workers whose slots count


class Engine:
    """The one open job of an executor; safe for use by many threads.

    It outlives the executor until every call has its outcome: its thread is what keeps it.
    """

    def __init__(self, yard: Yard, name: str, options: Options, cap: int | None) -> None:
        self._yard = yard
        self._cap = cap
        self._submitter = yard.open("", name=name, options=options)
        self.job = self._submitter.job
        self.sources: set[Source] = set()  # maps that are to be read to their end
        self._inbox: queue.SimpleQueue[Pending | TaskyardError | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self._submitter.failed = self._inbox.put
        self._feeding = threading.Lock()  # guards the line, and makes indices and owners agree
        self._line: deque[Unit] = deque()
        self._owners: dict[int, Unit] = {}  # of the tasks in the yard; the thread alone takes them out
        self._bytes = 0  # of these tasks
        self._slots = max(1, self._submitter.workers)
        self._spent, self._count = 0.0, 0.0  # seconds that tasks took lately, and how many those were
        self._watched = False  # the thread knows that there is a line
        self._look_at = 0.0  # the next look at the slots, in monotonic seconds
        self._cursor = 0
        self._closed = False  # takes no more calls
        self._complete = False  # and nothing comes from maps either
        self._broken: TaskyardError | None = None
        self._process = os.getpid()
        self._shorter = threading.Condition()  # the line is
        self._thread = threading.Thread(target=self._run, name="taskyard executor", daemon=True)
        self._thread.start()
        _engines.add(self)

    # ------------------------------------------------------------ of callers

    def add(self, unit: Unit, late: bool = False) -> None:
        """Put it in line; raises RuntimeError once closed, unless it is `late` work of a map."""
        if self._process != os.getpid():
            raise RuntimeError("this executor belongs to the parent process: make a new one after a fork")
        with self._feeding:
            if self._broken is not None:
                raise breakage(self._broken)
            if (self._closed and not late) or self._complete:
                what = "interpreter shutdown" if _exiting else "shutdown"
                raise RuntimeError(f"cannot schedule new futures after {what}")
            self._line.append(unit)
            self._pump()
            wake = bool(self._line) and not self._watched
            self._watched = self._watched or wake
        if wake:
            self._inbox.put(None)

    def wait_for_room(self) -> None:
        """Return when the line is short, or nothing will come of it any more."""
        with self._shorter:
            while len(self._line) >= QUEUED and self._broken is None:
                self._shorter.wait()

    def shutdown(self, wait: bool, cancel: bool) -> None:
        """Take no more calls, and end when the last has its outcome.

        `cancel`: what is still in line ends here. Raises what the inputs of a map raise that are read
        only now.
        """
        if self._process != os.getpid():
            return
        wait = wait and threading.current_thread() is not self._thread  # a callback does not wait for itself
        self._closed = True
        try:
            if not cancel:
                with suppress(BrokenYardError):
                    for source in list(self.sources):
                        source.read_rest(wait)
        finally:
            with self._feeding:
                self._complete = True
                dropped = list(self._line) if cancel else []
                if cancel:
                    self._line.clear()
            for unit in dropped:
                unit.cancel()
            self._inbox.put(None)
            if wait:
                self._thread.join()

    def release(self) -> None:
        """The executor was collected. May be called anywhere, so the thread does the rest."""
        self._inbox.put(self.leave)

    def leave(self, wait: bool = False) -> None:
        """A shutdown that nobody has asked for, and that has nobody to raise anything to."""
        try:
            self.shutdown(wait, cancel=False)
        except Exception:  # of the inputs of a map
            log.exception("an executor was left with inputs that could not be read")

    # ------------------------------------------------------------ with `_feeding` held

    def _window(self) -> int:
        """How many tasks the yard should hold."""
        window = EACH * self._slots
        if self._count:
            window += int(self._slots * AHEAD / max(self._spent / self._count, 1e-6))
        return min(window, MOST, self._cap or MOST)

    def _pump(self) -> None:
        """Send what the yard has use for."""
        room = self._window() - len(self._owners)
        first = self._submitter.next
        payloads: list[bytes] = []
        while room > len(payloads) and self._line:
            unit = self._line[0]
            count = min(unit.left, room - len(payloads), (MOST_BYTES - self._bytes) // (unit.cost + 1))
            if count < 1:
                if self._owners:
                    break
                count = 1  # larger than what the yard should hold: it goes alone
            start = first + len(payloads)
            taken = unit.take(count)
            if taken:
                unit.base = start if unit.base < 0 else unit.base
                self._owners.update(zip(range(start, start + len(taken)), repeat(unit), strict=False))
                self._bytes += unit.cost * len(taken)
                payloads += taken
            if not unit.left:
                self._line.popleft()
        if payloads and self._broken is None:
            with suppress(TaskyardError):  # the submission has failed: the thread hears of it
                self._submitter.extend(payloads)

    # ------------------------------------------------------------ of the thread

    def _run(self) -> None:
        try:
            self._follow()
        except TaskyardError as error:
            self._break(error)
        except BaseException as error:  # nobody may wait for ever for a thread that is gone
            self._break(TaskyardError(f"internal error in the executor: {error!r}"))
            raise
        finally:
            self._yard.close()
            _engines.discard(self)

    def _follow(self) -> None:
        """Read rows and keep the window filled until all is done; raises why the yard is of no use."""
        self._ask()
        while True:
            freed = 0
            with suppress(queue.Empty):
                item = self._inbox.get(timeout=LOOK if self._watched else None)
                if isinstance(item, TaskyardError):
                    with suppress(TaskyardError):
                        self._yard.call(Cancel(0, self.job), Ok, GOODBYE)
                    raise item
                if isinstance(item, Pending):
                    freed = self._receive(item)
                elif item is not None:
                    item()
                del item
            with self._feeding:
                self._bytes -= freed
                self._pump()
                self._watched = bool(self._line)
                over = self._complete and not self._line and not self._owners
            with self._shorter:
                self._shorter.notify_all()
            if over:
                with suppress(TaskyardError):  # else the master closes it in time
                    self._yard.call(Close(0, self.job, self._submitter.next), Ok, GOODBYE)
                return
            if self._watched and time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK
                self._yard.connection.send(Status(0, self.job), self._looked)

    def _ask(self) -> None:
        request = Results(0, self.job, self._cursor, wait=HOLD, space=SPACE)
        self._yard.connection.send(request, self._inbox.put)

    def _looked(self, pending: Pending) -> None:
        """In the connection's thread: how many slots there are."""
        reply = pending.reply
        if isinstance(reply, StatusReply):
            self._slots = max(1, sum(w.slots for w in reply.workers if w.state in _PRESENT))
            self._inbox.put(None)

    def _receive(self, pending: Pending) -> int:
        """Give rows to their owners, and return how many bytes of tasks those were."""
        rows = pending.reply
        if not isinstance(rows, Rows):
            pending.wait()  # raises what the master said, or why it says nothing
            raise ProtocolError(f"the master answered Results with {type(rows).__name__}")
        if rows.done:
            raise BrokenYardError(f"job {self.job} of this executor was cancelled or closed by somebody else")
        self._cursor = rows.cursor
        self._ask()
        freed = 0
        for row in rows.rows:
            self._spent = self._spent * _FADE + row.seconds
            self._count = self._count * _FADE + row.count
            freed += self._deliver(row)
        return freed

    def _deliver(self, row: Row) -> int:
        allow = self._yard.allow
        units = list(map(self._owners.pop, range(row.first, row.first + row.count), repeat(None)))
        unit = units[0]
        if unit is not None and units.count(unit) == row.count:
            freed = unit.cost * row.count
            if row.state == "completed":
                with suppress(PayloadError):
                    unit.fill(row.first - unit.base, loads_block(row.block, row.count, allow))
                    return freed
        else:
            freed = sum(unit.cost for unit in units if unit is not None)
        for unit, outcome in zip(units, outcomes(row, allow), strict=True):
            if unit is None:
                continue  # somebody gave it another round, and it is over here
            error = outcome.exception
            if error is None:
                unit.fill(outcome.index - unit.base, [outcome.result])
            else:
                unit.fail(outcome.index - unit.base, error)
        return freed

    def _break(self, error: TaskyardError) -> None:
        """Nothing more will come: everybody who waits hears why."""
        with self._feeding:
            self._broken = error
            owners, line = dict(self._owners), list(self._line)
            self._owners.clear()
            self._line.clear()
        with self._shorter:
            self._shorter.notify_all()
        for index, unit in owners.items():
            unit.fail(index - unit.base, breakage(error))
        for unit in line:
            unit.abort(breakage(error))


_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_exiting = False


def _at_exit() -> None:
    """As the executors of the standard library: what was submitted is done before the program ends."""
    global _exiting
    _exiting = True
    for engine in list(_engines):
        engine.leave(wait=True)


# Before the atexit handlers run, and while new threads may still be started; in the standard library,
# concurrent.futures uses it too.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
