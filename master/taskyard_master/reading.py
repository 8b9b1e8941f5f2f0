"""How much a peer gets in one answer: little at first, more as it shows that it reads."""

from taskyard.messages import Results, Rows

FIRST_SPACE = 1 << 16  # bytes of rows in a peer's first answer
_MOST = 1 << 10  # answers remembered; who has so many under way is no hurry


class Reading:
    """The answers to one peer's `Results`.

    Making a large answer costs the master milliseconds, so many peers that ask for much and read nothing
    would hold up all others. A peer that asks for what comes after an answer has read that answer, and
    gets twice as much from then on: the slow start of TCP (RFC 5681).
    """

    __slots__ = ("_ends", "_space")

    def __init__(self) -> None:
        self._space = FIRST_SPACE
        self._ends: set[tuple[str, int]] = set()  # (job, cursor) where answers ended that it may not have yet

    def limit(self, request: Results) -> None:
        """Ask for no more than the peer may get now."""
        goes_on = (request.job, request.cursor)
        if goes_on in self._ends:
            self._ends.discard(goes_on)
            self._space = max(self._space, min(2 * self._space, request.space))
        request.space = min(request.space, self._space)

    def answered(self, request: Results, rows: Rows) -> None:
        """These rows go to the peer."""
        if rows.rows and len(self._ends) < _MOST:
            self._ends.add((request.job, rows.cursor))
