"""What is known of 65536 neighbouring tasks of one job, as maps of their indices.

One byte says everything of a task's state. The values from DELAYED on are
delays: each stands for one due time of this segment, so that a delay costs no
memory of its own and "all that are due" is one pass in C. A suspect range is a
SUSPECT followed by TAILs: its bounds are in the map, and halves never merge.
"""

from collections.abc import Iterator

from taskyard import batch
from taskyard.ranges import RangeMap, Runs, replacing

SHIFT = batch.SEGMENT_BITS
WIDTH = 1 << SHIFT  # indices a segment; no row, lease or record crosses its bounds

NONE, READY, LEASED, COMPLETED, DEAD, CANCELLED, SUSPECT, TAIL = range(8)
DELAYED = 16  # and all above
CODES = 256 - DELAYED

# The state that a byte counts as: TAIL as SUSPECT, every delay as DELAYED.
KIND = bytes([*range(TAIL), SUSPECT, *[NONE] * (DELAYED - TAIL - 1), *[DELAYED] * CODES])
FINISHED = frozenset((COMPLETED, DEAD, CANCELLED))
_OVER = FINISHED | {NONE}
CANCEL = replacing([READY, LEASED, SUSPECT, TAIL, *range(DELAYED, 256)], CANCELLED)
_REVIVE = replacing([DEAD], READY)
_ONE_IF_DEAD = bytes(1 if value == DEAD else 0 for value in range(256))
_KEEP_UNLESS_DEAD = bytes(0 if value == DEAD else 255 for value in range(256))

Piece = tuple[int, int, int, int, int, int]  # first, count, state, lease or 0, attempts, round


class Segment:
    """The maps of one segment; all indices here count from its start. Maps that are all 0 are None."""

    __slots__ = ("alarm", "attempts", "codes", "grain", "losses", "owner", "rounds", "state")

    def __init__(self) -> None:
        self.state = RangeMap(WIDTH)
        self.owner: Runs | None = None  # lease ids
        self.attempts: RangeMap | None = None
        self.rounds: RangeMap | None = None
        self.losses: RangeMap | None = None
        self.codes: dict[int, int] = {}  # due tick -> state byte
        self.grain = 1  # due ticks are multiples of it
        self.alarm = 0  # the tick at which to look for what is due; 0: nothing is delayed

    def pieces(self, first: int, count: int) -> Iterator[Piece]:
        """The runs over which state, holder, attempts and round are the same, in order."""
        end = first + count
        while first < end:
            state, stop = self.state.run(first)
            owner = attempts = round_ = 0
            if state == LEASED and self.owner is not None:
                owner, other = self.owner.run(first)
                stop = min(stop, other)
            if self.attempts is not None:
                attempts, other = self.attempts.run(first)
                stop = min(stop, other)
            if self.rounds is not None:
                round_, other = self.rounds.run(first)
                stop = min(stop, other)
            stop = min(stop, end)
            yield first, stop - first, state, owner, attempts, round_
            first = stop

    def unfinished(self, first: int, count: int) -> list[tuple[int, int]]:
        """The ranges in first..first + count that are not completed, dead or cancelled."""
        found: list[tuple[int, int]] = []
        for start, many, state in self.state.runs(first, count):
            if state in _OVER:
                continue
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + many)
            else:
                found.append((start, many))
        return found

    def piece(self, first: int = 0) -> tuple[int, int]:
        """(first, count) of the first suspect range that begins at `first` or later; (-1, 0) if none does."""
        first = self.state.find(SUSPECT, first)
        if first < 0:
            return -1, 0
        if first + 1 < WIDTH:
            value, end = self.state.run(first + 1)
            if value == TAIL:
                return first, end - first
        return first, 1

    def head(self, index: int) -> None:
        """After a change that ended before `index`: what is left of a suspect range gets its own start."""
        if TAIL in self.state.counts and index < WIDTH and self.state.run(index)[0] == TAIL:
            self.state.set(index, 1, SUSPECT)

    def delay(self, tick: int) -> int:
        """The state byte of a delay that ends at `tick`, or a little later.

        Where there are more due times than bytes, they are rounded up to a coarser
        grain, all alike: with delays of minutes that comes to a second or two.
        """
        while (due := -(-tick // self.grain) * self.grain) not in self.codes:
            if len(self.codes) == CODES:
                self._coarsen()
                continue
            used = set(self.codes.values())
            self.codes[due] = next(code for code in range(DELAYED, 256) if code not in used)
        return self.codes[due]

    def _coarsen(self) -> None:
        """Make room for due times: forget those that nothing waits for, else double the grain."""
        alive = {due: code for due, code in self.codes.items() if code in self.state.counts}
        if len(alive) > CODES // 2:
            self.grain *= 2
        self.codes = {}
        table = bytearray(range(256))
        for due, code in alive.items():
            table[code] = self.codes.setdefault(-(-due // self.grain) * self.grain, code)
        self.state.translate(bytes(table))

    def wake(self, tick: int) -> int:
        """What is delayed until `tick` or before is ready; returns how many."""
        over = {due: code for due, code in self.codes.items() if due <= tick}
        for due in over:
            del self.codes[due]
        if not self.codes:
            self.grain = 1
        return sum(many for _, many in self.state.translate(replacing(over.values(), READY)))

    def revive(self, first: int, count: int) -> int:
        """Dead tasks are ready again, one round on and without attempts or losses; returns how many."""
        image, end = self.state.image(), first + count
        part = image[first:end]
        many = part.count(DEAD)
        if many == 0:
            return 0
        self.state.load(image[:first] + part.translate(_REVIVE) + image[end:])
        one = bytes(first) + part.translate(_ONE_IF_DEAD) + bytes(WIDTH - end)
        self.rounds = self.counter(self.rounds)
        self.rounds.load(_join(_number(self.rounds.image()) + _number(one)))
        keep = b"\xff" * first + part.translate(_KEEP_UNLESS_DEAD) + b"\xff" * (WIDTH - end)
        for counter in (self.attempts, self.losses):
            if counter is not None:
                counter.load(_join(_number(counter.image()) & _number(keep)))
        return many

    @staticmethod
    def counter(found: RangeMap | None) -> RangeMap:
        """The map itself, or a new one in place of None."""
        return found if found is not None else RangeMap(WIDTH)

    def rest(self, closed: bool) -> None:
        """If all is finished and no more will come: keep what is left in as little as possible."""
        counts = self.state.counts
        if not _OVER.issuperset(counts) or (NONE in counts and not closed):
            return
        self.owner = None
        self.codes, self.grain, self.alarm = {}, 1, 0
        for each in (self.state, self.attempts, self.rounds, self.losses):
            if each is not None:
                each.compact()


def _number(image: bytes) -> int:
    """Bytes as one number: the whole segment is added or masked at once."""
    return int.from_bytes(image, "little")


def _join(number: int) -> bytes:
    return number.to_bytes(WIDTH, "little")
