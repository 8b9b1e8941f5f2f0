"""A slot: the process that runs tasks, started by the agent as `python -m taskyard_worker.slot`.

It reads the number of a batch from a pipe, finds the batch in the shared memory (see
memory.py), runs the function over it, and leaves outcome after outcome there. A bell,
sixteen bytes on another pipe, says that the batch has ended; what is done before that,
the agent sees for itself. All else is the agent's: timeouts, deaths, retries, printing.

Whatever a task does here must cost only that task. Exceptions of every kind are its
outcome. A forked child that comes back from the function ends. The slot's descriptors
lie high, where code that closes or reuses low numbers does not meet them, and stdout
and stderr are put back after a task has closed them. It imports little, to start fast.
"""

import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import taskyard
from taskyard import batch, functions, values
from taskyard.allow import Allow
from taskyard.errors import FunctionError, PayloadError
from taskyard_worker import failures, memory
from taskyard_worker.memory import DONE, FAILED, REFUSED, Memory, Region
from taskyard_worker.output import Output, Stream, high

LIMIT_SECONDS = 0.003  # of work between two looks at whether the agent has taken tasks back
QUIET_SECONDS = 20e-6  # a shorter task is only asked whether it printed by way of Python
_OOM_SCORE = 500  # the kernel takes a slot before it takes the agent
_BARE = 0x80  # first byte of a payload that is one argument
_REFUSE = "\0"  # the name under which a task is refused
_SET_SIGNAL = 10  # F_SETSIG of Linux, which the fcntl module lacks


class Slot:
    """Runs batches until the agent closes the pipe that they are announced on."""

    def __init__(
        self, bell: int, mapped: Memory, folder: Path, limit: int, allow: Allow, out: Output
    ) -> None:
        self._bell = bell
        self._memory = mapped
        self._folder = folder
        self._limit = limit  # bytes of a value
        self._allow = allow
        self._out = out
        self._found: dict[str | None, Callable[..., Any]] = {_REFUSE: _refuse}
        self._child: list[bool] = []  # not empty in a child that a task has forked
        os.register_at_fork(after_in_child=lambda: self._child.append(True))

    def serve(self, orders: int) -> None:
        """Say that the slot is ready, then work."""
        self._ring(0, 0)
        while order := self._read(orders):
            (seq,) = memory.ORDER.unpack(order)
            region = self._memory.regions[seq & 1]
            if region.state[memory.LIMIT] > 0:
                self._run(region)
            self._end(region)
            self._ring(seq, region.state[DONE])

    def _end(self, region: Region) -> None:
        """No task runs any more: whatever happens from here on, nobody is charged for it."""
        state = region.state
        state[memory.PHASE] = memory.ENDED
        self._out.restore()
        if state[memory.LIMIT] > 0:
            job = bytes(region.text[: state[memory.TEXT_SIZE]]).partition(b"\0")[0].decode()
            self._out.mark(job, state[memory.FIRST] + max(state[DONE], 1) - 1)

    def _read(self, orders: int) -> bytes:
        try:
            return os.read(orders, memory.ORDER.size)
        except OSError:
            os._exit(memory.CLOSED)

    def _ring(self, seq: int, done: int) -> None:
        try:
            os.write(self._bell, memory.BELL.pack(seq, done))
        except BlockingIOError:
            pass  # the agent has bells enough to wake up
        except OSError:  # a task has closed it; no other task is to answer for that
            self._memory.regions[seq & 1].state[memory.PHASE] = memory.ENDED
            os._exit(memory.CLOSED)

    def _run(self, region: Region) -> None:
        """Run a batch: import and decode before the first task begins, then task by task."""
        state = region.state
        state[memory.PHASE] = memory.LOADING
        job, _, name = bytes(region.text[: state[memory.TEXT_SIZE]]).decode().partition("\0")
        self._found[None] = self._find(name)
        tasks = self._tasks(bytes(region.input[: state[memory.SIZE]]), state[memory.COUNT])
        region.began[0] = time.monotonic()
        state[memory.PHASE] = memory.RUNNING
        self._loop(region, tasks, job, state[memory.FIRST])

    def _loop(self, region: Region, tasks: Iterator[Any], job: str, first: int) -> None:
        """The inside of it all: every task pays for what is called here. `tasks` runs the next one."""
        state, ends, times, kinds, output = (
            region.state, region.ends, region.times, region.kinds, region.output,
        )  # fmt: skip
        dumps, limit, clock = values.dumps, self._limit, time.monotonic
        child, run = self._child, tasks.__next__
        full = len(output) - self._memory.room
        before = region.began[0]
        due = before + LIMIT_SECONDS
        count = state[memory.COUNT]
        start = 0
        for done in range(1, count + 1):
            try:
                value = run()
            except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are outcomes too
                if child:
                    _leave_child(error)
                kinds[done - 1], data = _failure(error)
            else:
                if child:
                    _leave_child(None)
                try:
                    data = dumps(value, limit)
                except BaseException as error:  # noqa: BLE001 - what pickling runs is the user's, too
                    kinds[done - 1], data = REFUSED, failures.refused(error)
            now = clock()
            if Stream.printed or now - before > QUIET_SECONDS:
                self._out.mark(job, first + done - 1)
            end = start + len(data)
            output[start:end] = data
            times[done - 1] = now
            ends[done] = end
            state[DONE] = done  # from here on the outcome is safe, and the next task is the one that runs
            if end > full:
                return
            if now >= due:
                if done >= state[memory.LIMIT]:
                    return
                due = now + LIMIT_SECONDS
            start, before = end, now

    def _tasks(self, block: bytes, count: int) -> Iterator[Any]:
        """Each step runs the next task of a block, gives what it returns and raises what it raises."""
        with contextlib.suppress(PayloadError):
            if block[4 * (count + 1)] == _BARE:  # most likely they all are, and this takes half the time
                return map(self._found[None], values.loads_block(block, count, self._allow))
            return map(self._call, self._named(values.parse_block(block, count, self._allow)))
        return map(self._call, self._named([self._parse(payload) for payload in batch.unpack(block, count)]))

    def _call(self, call: values.Call) -> Any:
        name, args, kwargs = call  # the batch's own function has the name None
        return self._found[name](*args, **kwargs)

    def _named(self, calls: list[values.Call]) -> list[values.Call]:
        """Find the functions that payloads name, so that none is imported while tasks are timed."""
        for name in {call[0] for call in calls}:
            self._find(name)
        return calls

    def _parse(self, payload: bytes) -> values.Call:
        try:
            return values.parse(payload, self._allow)
        except PayloadError as error:
            return _REFUSE, (failures.refused(error),), {}

    def _find(self, name: str | None) -> Callable[..., Any]:
        """The function of this name; where there is none, one that refuses each task."""
        if name not in self._found:
            try:
                if not name:
                    raise FunctionError("the task names no function: set TASKYARD_FUNCTION for such tasks")
                self._found[name] = functions.resolve(self._folder, name)
            except FunctionError as error:
                data = failures.refused(error, shown=True)
                self._found[name] = lambda *args, **kwargs: _refuse(data)
        return self._found[name]


class _Refused(Exception):
    """Carries the bytes of a failure that was found before the function could be called."""


def _refuse(data: bytes) -> NoReturn:
    raise _Refused(data)


def _failure(error: BaseException) -> tuple[int, bytes]:
    if isinstance(error, _Refused):
        return REFUSED, error.args[0]
    return FAILED, failures.raised(error)


def _leave_child(error: BaseException | None) -> NoReturn:
    """End a process that a task has forked and that came back from the function: the batch is not its own."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _die_with_agent(life: int) -> None:
    """Have the kernel kill this process group once the agent, which holds the pipe's other end, is gone."""
    if sys.platform == "linux":
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, _SET_SIGNAL, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def main(arguments: list[str]) -> None:
    """`slot ORDERS BELL MEMORY LIFE TOKEN PAYLOAD FOLDER ALLOW...`, the first four descriptors."""
    orders, bell, shared, life = (high(int(argument)) for argument in arguments[:4])
    token, payload, folder, *allow = arguments[4:]
    _die_with_agent(life)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        score = max(int(file.read()), _OOM_SCORE)
        file.seek(0)
        file.write(str(score))
    mapped = Memory(shared, int(payload))
    mapped.close()
    out = Output(token.encode(), mapped.head)
    os.set_blocking(bell, False)
    faulthandler.enable(file=2)
    signal.signal(signal.SIGINT, lambda *_: None)  # stopping is the agent's affair
    sys.argv[:] = [folder]
    taskyard.inside_task = True
    functions.open_folder(Path(folder))
    Slot(bell, mapped, Path(folder), int(payload), Allow(allow), out).serve(orders)


if __name__ == "__main__":
    main(sys.argv[1:])
