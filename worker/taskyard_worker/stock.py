"""What a worker holds and has not begun: pieces of leases, in order, on their way to slots."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from taskyard.errors import PayloadError
from taskyard.messages import Failure, Held, Outcome
from taskyard_worker.pace import Paces
from taskyard_worker.pieces import Piece
from taskyard_worker.slots import Slots


class Stock:
    """The queue that all slots share.

    A *suspect* may be the task that kills whole workers: it runs while nothing else does.
    One that stands alone waits apart until the master knows that it is about to begin.
    """

    def __init__(self, paces: Paces, payload: int, timeout: Callable[[str], float]) -> None:
        self.alone: dict[int, Piece] = {}  # lease -> a suspect that must not begin yet
        self._queue: deque[Piece] = deque()
        self._paces = paces
        self._payload = payload  # bytes of a value, as set
        self._timeout = timeout  # seconds that a function asks for, where its job does not; 0 = none

    def add(self, piece: Piece) -> None:
        self._queue.append(piece)

    def put_back(self, piece: Piece) -> None:
        """A slot has not begun it: it is first again."""
        self._queue.appendleft(piece)

    def clear(self) -> list[Piece]:
        """Take all out."""
        pieces = [*self._queue, *self.alone.values()]
        self._queue.clear()
        self.alone.clear()
        return pieces

    def drop(self, leases: Collection[int]) -> None:
        """Forget what is held under these."""
        self._queue = deque(piece for piece in self._queue if piece.lease not in leases)
        for lease in leases:
            self.alone.pop(lease, None)

    def held(self) -> Iterator[Held]:
        for piece in (*self._queue, *self.alone.values()):
            yield Held(piece.lease, piece.job, piece.first, piece.count)

    def counts(self) -> Counter[str]:
        """Tasks by function."""
        counts: Counter[str] = Counter()
        for piece in (*self._queue, *self.alone.values()):
            counts[piece.function] += piece.count
        return counts

    def hand_out(self, slots: Slots) -> list[Outcome]:
        """Give to each slot that takes one a batch that suits the pace; returns what no slot can run."""
        refused: list[Outcome] = []
        if not self._queue:
            return refused
        counts = self.counts()
        for slot in slots.free():
            while self._queue and self._may_begin(self._queue[0], slots):
                piece = self._queue[0]
                if slot.batches and not self._paces.lies_ready(piece.function):
                    return refused
                most = min(piece.count, slot.fits(piece))
                if not most:
                    refused.append(self._refuse(piece))
                    self._advance(1)
                    continue
                wanted = 1 if piece.suspect else self._paces.batch(piece.function, counts[piece.function])
                count = min(most, wanted)
                counts[piece.function] -= count
                self._advance(count)
                slots.give(slot, self._timed(piece.cut(0, count)))
                break
        return refused

    def _timed(self, piece: Piece) -> Piece:
        seconds = 0.0 if piece.timeout else self._timeout(piece.function)
        return replace(piece, timeout=seconds) if seconds else piece

    def _may_begin(self, piece: Piece, slots: Slots) -> bool:
        return not slots.busy if piece.suspect else not slots.suspect

    def _advance(self, count: int) -> None:
        piece = self._queue.popleft()
        if count < piece.count:
            self._queue.appendleft(piece.cut(count, piece.count))

    def _refuse(self, piece: Piece) -> Outcome:
        words = f"its input does not fit: {self._payload:,} bytes is the most here (TASKYARD_PAYLOAD)"
        failure = Failure("refused", f"{PayloadError.__module__}.{PayloadError.__name__}", words)
        return piece.outcome("refused", failure=failure)

    def excess(self, slots: Slots) -> list[Piece]:
        """Take out what would wait here for long, from the end: others may be idle."""
        if not self._queue:
            return []
        if slots.down:
            return self.clear()
        excess: list[Piece] = []
        for function, queued in self.counts().items():
            count = self._paces.excess(function, queued, slots.stuck(function))
            excess += self._last(function, count)
        return excess

    def _last(self, function: str, count: int) -> list[Piece]:
        """Take out the last `count` tasks of a function."""
        taken: list[Piece] = []
        kept: list[Piece] = []
        while self._queue and count:
            piece = self._queue.pop()
            if piece.function != function or piece.suspect:
                kept.append(piece)
                continue
            keep = max(0, piece.count - count)
            count -= piece.count - keep
            taken.append(piece.cut(keep, piece.count))
            if keep:
                kept.append(piece.cut(0, keep))
        self._queue.extend(reversed(kept))
        return taken
