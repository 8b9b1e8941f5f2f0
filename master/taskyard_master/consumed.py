"""Rows that go before their job does: what was taken of `plain` and of executors (rule 17).

Such a job is open for weeks. A row of it goes when all its tasks are completed or cancelled, so that
nobody can give them another round, when its results were taken, and when it was written longer than the
job's retention ago. The journal's rows carry no time; so the snapshots of the ledger are noted with the
time they were seen on disk: what is older than such a mark was written before it, and is not read by a
start either.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from taskyard import failpoints
from taskyard_master.commits import Commits
from taskyard_master.results import Results

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 1.0  # seconds
LOOKS = 16  # in the time of the shortest retention, but none sooner than TICK after another
RARELY = 60.0  # seconds between two looks at most
HOURLY = 3600.0  # seconds between two snapshots at most, while anything changes
DEAR = 50  # times what it took passes before the next snapshot
MARKS = 500
ROWS = 200  # of a step
BYTES = 4 << 20  # of their blocks, about
IDLE = 100  # pages of which nothing goes, in one look at one job: what is dead stays for good
SLACK = 8  # the part of the file that may be free pages: new rows take them
PAGES = 2000  # given back in a step
PAUSE = 4  # times what a step took passes before the next: commits have the disk meanwhile

# Of kind 6 in order of seq, of kind 2 in order of index, which is the same.
_ENDINGS = (
    "SELECT seq, first, count, length(block), seq FROM log INDEXED BY ending_seq "
    f"WHERE kind = 6 AND job = ? AND seq > ? ORDER BY seq LIMIT {ROWS}"
)
_CHUNKS = (
    "SELECT seq, first, count, length(block), first FROM log INDEXED BY chunk_at "
    f"WHERE kind = 2 AND job = ? AND first > ? ORDER BY first LIMIT {ROWS}"
)
Found = tuple[int, int, int, int, int]  # seq, first, count, bytes, place in the order
_decoder = msgspec.json.Decoder(list[tuple[float, int]])


class Consumed:
    """Drops these rows, in steps of the journal's writing thread that hold up no commit for long."""

    def __init__(self, commits: Commits, results: Results, loop: asyncio.AbstractEventLoop) -> None:
        results.observers.append(self._read_to)
        self._commits = commits
        self._ledger = commits.ledger
        self._journal = commits.journal
        self._loop = loop
        self._read: dict[str, int] = {}  # by job: its own submitter has all rows up to this seq
        self._places: dict[tuple[str, str], int] = {}  # where the last look at a job's rows ended
        self._marks = self._known_marks()  # (Unix seconds, seq): what is up to it was written before that
        self._due = 0.0  # monotonic seconds
        self._save_due = 0.0

    def _read_to(self, job: str, boot: str, seq: int) -> None:
        """The process `boot` asks for rows after `seq`; if the job is its own, it has those before."""
        if boot and self._ledger.consumer(job) == boot:
            self._read[job] = max(self._read.get(job, 0), min(seq, self._commits.applied))

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            await asyncio.sleep(TICK)
            if time.monotonic() < self._due:
                continue
            try:
                await self.look()
            except (sqlite3.Error, OSError) as error:
                log.warning("what was taken long ago stays in the journal for now: %s", error)
                self._due = time.monotonic() + RARELY

    async def look(self) -> None:
        """Drop what may go now, and prepare for what may go later."""
        jobs = self._ledger.consuming()
        if not jobs:
            return
        shortest = min(job.retention for job in jobs)
        self._due = time.monotonic() + min(shortest / LOOKS, RARELY)
        names = {job.job for job in jobs}
        self._read = {job: seq for job, seq in self._read.items() if job in names}
        self._places = {place: at for place, at in self._places.items() if place[1] in names}
        await self._mark(max(job.retention for job in jobs))
        self._save(shortest)
        for job in jobs:
            cut = self._cut(job.retention)
            taken = max(job.taken - 1, self._read.get(job.job, 0))
            await self._pass(_ENDINGS, job.job, min(cut, taken))
            await self._pass(_CHUNKS, job.job, cut)  # what only the tasks needed goes with them
        while took := await self._aside(_give_back):
            await asyncio.sleep(PAUSE * took)

    async def _pass(self, page: str, job: str, upto: int) -> None:
        """Drop what may go of a job's rows up to a seq; those that stay are looked at again in turn."""
        place = self._places.pop((page, job), -1)
        idle = 0
        while idle < IDLE:
            rows = await self._aside(partial(_page, page, job, place, upto))
            if not rows:
                return
            place = rows[-1][4]
            gone = [seq for seq, first, count, *_ in rows if self._ledger.settled(job, first, count)]
            if gone:
                took = await self._aside(partial(_drop, gone))
                await asyncio.sleep(PAUSE * took)
            else:
                idle += 1
        self._places[page, job] = place

    # ------------------------------------------------------------ the age of rows

    def _known_marks(self) -> list[tuple[float, int]]:
        """Those of the master before this one; without them all rows count as written now."""
        found = self._journal.read.execute("SELECT value FROM meta WHERE key = 'marks'").fetchone()
        try:
            return _decoder.decode(found[0]) if found else []
        except (msgspec.MsgspecError, TypeError):
            return []

    def _cut(self, retention: float) -> int:
        """The seq up to which all rows are older than that; 0 if none is known to be."""
        oldest = time.time() - retention
        return next((seq for wall, seq in reversed(self._marks) if wall <= oldest), 0)

    async def _mark(self, longest: float) -> None:
        """Note a snapshot that has come to the disk; forget marks that older ones make needless."""
        marks = self._marks
        if self._journal.saved <= (marks[-1][1] if marks else 0):
            return
        marks.append((time.time(), self._journal.saved))
        cut = self._cut(longest)
        del marks[: next((at for at, (_, seq) in enumerate(marks) if seq >= cut), 0)]
        if len(marks) > MARKS:
            del marks[1 : MARKS // 2 : 2]  # the older half is as good with every second
        await self._aside(partial(_write_marks, msgspec.json.encode(marks).decode()))

    def _save(self, shortest: float) -> None:
        """Have a snapshot taken, if there is anything new: only the rows up to one can go."""
        began = time.monotonic()
        if self._journal.rows_since_snapshot and began >= self._save_due:
            self._commits.save()
            took = time.monotonic() - began
            self._save_due = began + max(min(shortest / LOOKS, HOURLY), DEAR * took)

    # ------------------------------------------------------------ in the writing thread

    def _aside(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self._loop.create_future()

        def done(found: T, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(found)
            else:
                future.set_exception(error)

        self._journal.aside(work, done)
        return future


def _page(statement: str, job: str, place: int, upto: int, connection: sqlite3.Connection) -> list[Found]:
    found: list[Found] = []
    size = 0
    for row in connection.execute(statement, (job, place)).fetchall():
        if row[0] > upto or size >= BYTES:
            break
        found.append(row)
        size += row[3]
    return found


def _drop(seqs: list[int], connection: sqlite3.Connection) -> float:
    """Returns the seconds that it took, as does the next."""
    began = time.monotonic()
    failpoints.passing("drop.before")
    connection.execute(f"DELETE FROM log WHERE seq IN ({', '.join(map(str, seqs))})")
    failpoints.passing("drop.after")
    return time.monotonic() - began


def _give_back(connection: sqlite3.Connection) -> float:
    """Make the file shorter by some of its free pages; 0 seconds if there are few."""
    began = time.monotonic()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free <= pages // SLACK:
        return 0.0
    connection.executescript(f"PRAGMA incremental_vacuum({min(PAGES, free - pages // SLACK)})")
    return time.monotonic() - began


def _write_marks(text: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('marks', ?)", (text,))
