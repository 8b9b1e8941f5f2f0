"""`YardExecutor.map`: inputs are read as results are used, many tasks at a time and without futures.

Inputs are read in the threads that call `map`, `next` and `shutdown`, never in one of ours. Each piece
that was read becomes a `Chunk` in the engine's line, which is also where its results arrive.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any

from taskyard.clock import Deadline
from taskyard.errors import PayloadError
from taskyard.executor_engine import Engine
from taskyard.values import dumps, dumps_many

BOUND = 1 << 15  # inputs read beyond the results that were used, unless told otherwise
_FIRST = 64  # inputs in the first chunk, so that work begins
_STEP = 4096  # and in a later one
_SLOW = 0.005  # seconds of reading after which what was read is sent
_PATIENCE = 0.05  # seconds of reading before `map` returns
_MISSING: Any = object()


class _Raised:
    """In the place of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Chunk:
    """Neighbouring tasks of a map, and what comes of them."""

    __slots__ = ("_feed", "_payloads", "base", "cost", "left", "values")

    def __init__(self, feed: "Feed", payloads: list[bytes]) -> None:
        self.base = -1
        self.left = len(payloads)
        self.cost = sum(map(len, payloads)) // max(1, self.left)
        self.values: list[Any] = [_MISSING] * self.left
        self._payloads = payloads
        self._feed = feed

    def take(self, count: int) -> list[bytes]:
        if self._feed.dropped:
            self.left = 0
        if not self.left:
            return []
        start = len(self._payloads) - self.left
        taken = self._payloads[start : start + count]
        self.left -= len(taken)
        if not self.left:
            self._payloads = []
        return taken

    def fill(self, at: int, values: list[Any]) -> None:
        if not self._feed.orphaned:
            self.values[at : at + len(values)] = values
        del values[:]  # whoever made the list shall not keep a result alive
        self._feed.wake()

    def fail(self, at: int, error: BaseException) -> None:
        self.fill(at, [_Raised(error)])

    def cancel(self) -> None:
        self._end(CancelledError())

    def abort(self, error: BaseException) -> None:
        self._end(error)

    def _end(self, error: BaseException) -> None:
        left, self.left, self._payloads = self.left, 0, []
        self.fill(len(self.values) - left, [_Raised(error)] * left)


class Feed:
    """One map: its inputs as far as they are read, its results until they are used."""

    def __init__(
        self, engine: Engine, function: str, kwargs: dict[str, Any], inputs: Iterator[tuple[Any, ...]],
        limit: int, buffersize: int | None,
    ) -> None:  # fmt: skip
        self.dropped = False  # nobody wants the results: what is in line need not run
        self.orphaned = False  # nobody can want them, but it is to run
        self._engine = engine
        self._function = function
        self._kwargs = kwargs
        self._inputs = inputs
        self._limit = limit
        self._bound = buffersize or BOUND
        self._exact = buffersize is not None
        self._step = max(1, min(_STEP, self._bound // 8))
        self._reading = threading.RLock()
        self._exhausted = False
        self._read = 0
        self._chunks: deque[Chunk] = deque()
        self._changed = threading.Condition()
        self._iterator: weakref.ref[Generator[Any, None, None]] | None = None

    def start(self, deadline: Deadline) -> Iterator[Any]:
        """Read as much as the bound allows, or as comes quickly, and return the results."""
        patience = Deadline.after(None if self._exact else _PATIENCE)
        if not self._exact:
            self._engine.sources.add(self)
        size = _FIRST
        try:
            while self._read < self._bound and not patience.passed and self.read(
                min(size, self._bound - self._read)
            ):  # fmt: skip
                size = self._step
        except BaseException:
            self._exhaust()
            raise
        iterator = self._results(deadline)
        self._iterator = weakref.ref(iterator, self._orphan)
        return iterator

    # ------------------------------------------------------------ inputs

    def read(self, count: int, late: bool = False) -> bool:
        """Read up to `count` inputs, fewer from a slow source, and put them in line; False at the end."""
        with self._reading:
            if self._exhausted:
                return False
            rows: list[tuple[Any, ...]] = []
            end = time.monotonic() + _SLOW
            try:
                for row in islice(self._inputs, count):
                    rows.append(row)
                    if time.monotonic() > end:
                        break
                else:
                    if len(rows) < count:
                        self._exhaust()
            except BaseException:
                self._exhaust()
                raise
            self._read += len(rows)
            calls = [(self._function, row, self._kwargs) for row in rows]
            try:
                self._add(dumps_many(calls, self._limit), late)
            except PayloadError:  # one by one: the error is in the place of its result
                for row in rows:
                    self._add_one(row, late)
            return not self._exhausted

    def read_rest(self, wait: bool) -> None:
        """For a shutdown: as with the standard library's executors, all inputs will have been done."""
        while self.read(self._step, late=True):
            if wait:
                self._engine.wait_for_room()

    def _add(self, data: list[bytes], late: bool) -> None:
        if not data:
            return
        chunk = Chunk(self, [b"f" + call for call in data])
        if not self.orphaned:
            self._chunks.append(chunk)
        self._engine.add(chunk, late)

    def _add_one(self, row: tuple[Any, ...], late: bool) -> None:
        try:
            data = dumps((self._function, row, self._kwargs), self._limit)
        except PayloadError as error:
            chunk = Chunk(self, [b""])
            self._chunks.append(chunk)
            chunk.abort(error)
        else:
            self._add([data], late)

    def _exhaust(self) -> None:
        self._exhausted = True
        self._inputs = iter(())
        self._engine.sources.discard(self)

    # ------------------------------------------------------------ results

    def _results(self, deadline: Deadline) -> Generator[Any, None, None]:
        used = 0
        try:
            while self._chunks or (not self._exhausted and self._more(used)):
                if not self._chunks:
                    continue
                values = self._chunks.popleft().values
                for at in range(len(values)):
                    if values[at] is _MISSING:
                        self._wait(values, at, used, deadline)
                    used += 1
                    if not self._exhausted:
                        self._more(used)
                    yield _taken(values, at)
        finally:
            self.dropped = True
            self._exhaust()

    def _more(self, used: int) -> bool:
        """Read on if so much was used that there is room for it; whether it did."""
        if self._read - used + self._step > self._bound:
            return False
        self.read(self._step)
        return True

    def _wait(self, values: list[Any], at: int, used: int, deadline: Deadline) -> None:
        """Return when the result is there; until then there is time to read on."""
        while values[at] is _MISSING and not self._exhausted and self._more(used):
            pass
        with self._changed:
            while values[at] is _MISSING:
                if not self._changed.wait(deadline.timeout()) and values[at] is _MISSING:
                    raise TimeoutError

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _orphan(self, iterator: object) -> None:
        """The results were thrown away without a look. May be called anywhere."""
        self.orphaned = True
        self._chunks.clear()


def _taken(values: list[Any], at: int) -> Any:
    """The result, which nobody here holds any more; raises what is in its place."""
    value, values[at] = values[at], None
    if type(value) is _Raised:
        try:
            raise value.error
        finally:
            del value  # the error would hold this frame, and the frame the error
    return value
