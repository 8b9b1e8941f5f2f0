"""The journal: one SQLite log of records with their blocks, written in group commits.

One writer thread takes whatever is queued, writes it in one transaction with
`synchronous=FULL`, and says so; an answer leaves only after that. If a commit
fails, everything queued behind it fails too, in order, because it may have been
judged on top of what failed. Reading happens on connections of its own.
"""

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from taskyard import failpoints
from taskyard.errors import EXIT_INTERNAL, StorageError
from taskyard.messages import Chunked, Granting, Record, decode_record, encode
from taskyard_master import schema
from taskyard_master.reader import Block, Reader
from taskyard_master.rows import Entry, arrange

log = logging.getLogger(__name__)

Done = Callable[[Exception | None, int, int], None]  # error, seq of the row, offset within the row
Aside = Callable[[sqlite3.Connection], Any]
PURGE_ROWS = 200  # removed in a step at most,
PURGE_PAGES = 4000  # and pages given back; a row may have had 64 of them
PURGE_SECONDS = 0.02  # that a step should take: commits wait for it
RESTS = 4  # times as long as work aside took there is no other, while there is something to commit


class Journal:
    """An open journal; `deliver` runs a callable in the owner's thread, in order."""

    def __init__(self, path: Path, deliver: Callable[[Callable[[], None]], Any]) -> None:
        """Open or create; raises StorageError if it is locked, damaged or of another version."""
        self.path = path
        self._deliver = deliver
        self.delivered: Callable[[], None] = lambda: None  # called after the `done` of a commit's entries
        self._lock_file = schema.lock(path)
        try:
            self._writer, self.boot = schema.open_database(path)
            self.read = Reader(path)
        except BaseException:
            self._lock_file.close()
            raise
        self._queue: list[tuple[Entry, Done]] = []
        self._grants: dict[int, Entry] = {}  # by lease; they ride in the next commit
        self._asides: deque[tuple[Aside, Callable[[Any, Exception | None], None] | None]] = deque()
        self._snapshot: tuple[int, bytes] | None = None
        self._mutex = threading.Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()  # wakes the thread sooner than an Event
        self._failed = False
        self._closing = False
        self._rest = 0.0  # no work aside is done before, monotonic
        self._stride = 1.0  # of what a step of a purge removes at most
        self.commits = 0
        self.trouble = ""  # why the last commit failed; "" after one that did not
        self.rows_since_snapshot = 0
        self.last = 0  # seq of the last row that was replayed
        self.saved = 0  # seq that the snapshot on disk holds everything up to
        self._compacted = 0  # up to here there is nothing that a snapshot makes needless
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    # ------------------------------------------------------------ start

    def replay(self) -> Iterator[tuple[int, Record | bytes]]:
        """What was recorded: first (seq, bytes) of the latest snapshot if there is one, then
        (seq, record) of every row after it; raises StorageError if a row is damaged."""
        try:
            last = 0
            found = self.read.execute("SELECT seq, data, crc FROM snapshot ORDER BY seq DESC LIMIT 1")
            for last, data, crc in found.fetchall():
                if zlib.crc32(data) != crc:
                    raise schema.damaged(self.path, f"snapshot {last}")
                self.last = self.saved = last
                yield last, data
            deleted = {row[0] for row in self.read.execute(schema.DELETED)}
            for seq, kind, job, crc, data in self.read.execute(schema.AFTER, (last,)):
                if zlib.crc32(data) != crc:
                    raise schema.damaged(self.path, f"record {seq}")
                self.last = seq
                if job not in deleted or kind == schema.DELETING:
                    self.rows_since_snapshot += 1
                    yield seq, decode_record(data)
            for job in deleted:
                self.purge(job)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise schema.damaged(self.path, str(error)) from error

    def start(self) -> None:
        """Begin to write; call after the replay."""
        self._thread.start()
        self._bell.put(None)

    # ------------------------------------------------------------ writing

    def append(self, entries: Sequence[tuple[Entry, Done]]) -> None:
        """Queue records that belong into one commit; each `done(error, seq, offset)` runs after it,
        in the owner's thread."""
        with self._mutex:
            self._queue.extend(entries)
        if not self._failed:
            self._bell.put(None)

    def ride(self, record: Granting) -> None:
        """Queue a grant for the next commit that happens anyway; nobody waits for it."""
        self._grants[record.lease] = Entry(record, b"")

    def forget(self, lease: int) -> None:
        """A grant whose outcome is there before it was written need not be written."""
        self._grants.pop(lease, None)

    def flush_grants(self) -> None:
        """Commit riding grants now: called after a moment without any other commit."""
        if self._grants:
            self._bell.put(None)

    def purge(self, job: str) -> None:
        """Remove a deleted job's rows bit by bit and give the disk back."""
        self.aside(partial(self._purge_some, job))

    def aside(self, work: Aside, done: Callable[[Any, Exception | None], None] | None = None) -> None:
        """Run `work(connection)` in the writing thread between two commits, which wait for it: so it is
        short. What came of it, or the error, is for `done`, in the owner's thread."""
        with self._mutex:
            self._asides.append((work, done))
        self._bell.put(None)

    def save_snapshot(self, seq: int, data: bytes) -> None:
        """Keep the ledger's state as of `seq`, so that a start reads only what came later."""
        with self._mutex:
            self._snapshot = (seq, data)
        self.rows_since_snapshot = 0
        self._bell.put(None)

    def close(self) -> None:
        """Commit what is queued, then close; safe to call twice."""
        with self._mutex:
            self._closing = True
        self._bell.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self.read.close()
        self._writer.close()
        self._lock_file.close()

    def _run(self) -> None:
        try:
            self._write_on()
        except BaseException:  # a mistake of ours: without this thread every request would wait for ever
            log.critical("the journal's thread failed; what was answered is safe, start anew", exc_info=True)
            os._exit(EXIT_INTERNAL)

    def _write_on(self) -> None:
        while True:
            self._await_bell()
            with self._mutex:
                entries = [] if self._failed else self._queue
                if not self._failed:
                    self._queue = []
                grants, self._grants = self._grants, {}
                snapshot, self._snapshot = self._snapshot, None
                closing = self._closing
            work = bool(entries or grants or snapshot)
            if work:
                self._commit(entries, list(grants.values()), snapshot)
            if closing and not self._queue:
                return
            if self._asides and not self._failed and (began := time.monotonic()) >= self._rest:
                self._do_aside()
                if work:
                    ended = time.monotonic()
                    self._rest = ended + RESTS * (ended - began)

    def _await_bell(self) -> None:
        """Wait until there is something to do, or until what waits aside has its turn."""
        aside = bool(self._asides) and not self._failed
        with suppress(Empty):
            self._bell.get(timeout=max(0.0, self._rest - time.monotonic()) if aside else None)
        while not self._bell.empty():
            self._bell.get()

    def _commit(
        self, entries: list[tuple[Entry, Done]], grants: list[Entry], snapshot: tuple[int, bytes] | None
    ) -> None:
        rows, places = arrange([entry for entry, _ in entries], grants)
        try:
            seqs = self._write(rows, snapshot)
        except (sqlite3.Error, OSError) as error:
            self._rollback()
            self._failed = bool(entries)
            problem = StorageError(
                f"the journal {self.path} cannot be written ({error}): nothing of this request was "
                "accepted; make room or mend the disk, the master goes on by itself"
            )
            log.error("%s", problem)
            self.trouble = str(problem)
            self._deliver(lambda: self._fail(entries, problem))
            return
        self.commits += 1
        self.trouble = ""
        if snapshot is not None:
            self.saved = self._compacted = snapshot[0]
        written = [(seqs[row], offset) for row, offset in places]
        fresh = [
            Block(row.record.first, row.record.count, row.block)
            for row in rows
            if isinstance(row.record, Chunked)
        ]
        jobs = [row.record.job for row in rows if isinstance(row.record, Chunked)]
        self._deliver(lambda: self._succeed(entries, written, jobs, fresh, len(rows)))

    def _write(self, rows: list[Entry], snapshot: tuple[int, bytes] | None) -> list[int]:
        execute = self._writer.execute
        failpoints.passing("commit.begin")
        execute("BEGIN IMMEDIATE")
        seqs = []
        for record, block in rows:
            data = encode(record)
            kind = schema.kind_of(record)
            first, count = getattr(record, "first", 0), getattr(record, "count", 0)
            values = (kind, record.job, first, count, zlib.crc32(data), data, zlib.crc32(block), block)
            seqs.append(execute(schema.INSERT, values).lastrowid or 0)
        if snapshot:
            failpoints.passing("snapshot.before")
            seq, data = snapshot
            execute("DELETE FROM snapshot")
            execute("INSERT INTO snapshot VALUES (?, ?, ?)", (seq, data, zlib.crc32(data)))
            execute(schema.COMPACT, (self._compacted, seq))
            failpoints.passing("snapshot.after")
        failpoints.passing("commit.before")
        execute("COMMIT")
        failpoints.passing("commit.after")
        return seqs

    def _rollback(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.warning("the journal's transaction was already undone: %s", error)

    def _succeed(
        self,
        entries: list[tuple[Entry, Done]],
        written: list[tuple[int, int]],
        jobs: list[str],
        fresh: list[Block],
        rows: int,
    ) -> None:
        for job, block in zip(jobs, fresh, strict=True):
            self.read.remember(job, block)
        self.rows_since_snapshot += rows
        for (_, done), (seq, offset) in zip(entries, written, strict=True):
            done(None, seq, offset)
        self.delivered()

    def _fail(self, entries: list[tuple[Entry, Done]], error: Exception) -> None:
        with self._mutex:
            behind, self._queue = self._queue, []
            self._failed = False
        self._bell.put(None)
        self.rows_since_snapshot += 1  # if one was lost with the commit, there is reason for another
        for _, done in (*entries, *behind):
            done(error, 0, 0)
        self.delivered()

    def _do_aside(self) -> None:
        with self._mutex:
            work, done = self._asides.popleft()
        found, error = None, None
        try:
            found = work(self._writer)
        except (sqlite3.Error, OSError) as problem:
            self._rollback()
            error = problem
        if done is not None:
            self._deliver(lambda: done(found, error))
        if self._asides:
            self._bell.put(None)

    def _purge_some(self, job: str, connection: sqlite3.Connection) -> None:
        """One step of a purge; the next one waits its turn again."""
        rows, pages = (max(1, int(most * self._stride)) for most in (PURGE_ROWS, PURGE_PAGES))
        began = time.monotonic()
        try:
            failpoints.passing("purge.before")
            gone = connection.execute(schema.PURGE, (job, rows)).rowcount
            failpoints.passing("purge.after")
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")  # execute() frees one page
            if gone == rows or connection.execute("PRAGMA freelist_count").fetchone()[0]:
                self.purge(job)
            else:
                schema.trim(connection, self.path)
        except (sqlite3.Error, OSError) as error:
            log.warning("the rows of deleted job %s stay for now: %s", job, error)
        change = PURGE_SECONDS / max(1e-6, time.monotonic() - began)
        self._stride = min(1.0, max(1 / PURGE_ROWS, self._stride * min(2.0, change)))

    def size(self) -> int:
        """Bytes on disk, write-ahead log included."""
        total = 0
        for suffix in ("", "-wal"):
            path = Path(f"{self.path}{suffix}")
            total += path.stat().st_size if path.exists() else 0
        return total

    def backup(self, target: Path) -> None:
        """Copy the journal, consistent, to a new file; runs in any thread."""
        try:
            with closing(schema.connect(self.path)) as source, closing(sqlite3.connect(target)) as copy:
                source.backup(copy)  # in one step: in several, every write in between would begin it anew
        except sqlite3.Error as error:
            raise StorageError(f"backup to {target} failed: {error}") from error
