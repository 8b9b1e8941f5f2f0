"""The journal's file: tables, statements, versions, and the lock that keeps it to one master."""

import fcntl
import logging
import os
import secrets
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import IO

from taskyard import batch
from taskyard.errors import StorageError
from taskyard.messages import Ending, Record

log = logging.getLogger(__name__)

VERSION = 1
APPLICATION = 0x79617264  # "yard"
PAGE_BYTES = 4096  # of the file
CHECKED_BYTES = 256 << 20  # a file up to this size is checked as a whole at the start: about a second
AHEAD_BYTES = 8 << 20  # of the write-ahead log that are laid out at the start
WIDEST = 1 << batch.SEGMENT_BITS  # no row holds more tasks

# Never renumber: the numbers are in files.
KINDS = {
    "Opening": 1, "Chunked": 2, "Closing": 3, "Granting": 4, "Beginning": 5, "Ending": 6,
    "Retrying": 7, "Returning": 8, "Losing": 9, "Cancelling": 10, "Requeuing": 11, "Taking": 12,
    "Deleting": 13,
}  # fmt: skip
DELETING = 13
VOID = 14  # an Ending that gives no result: nobody looks it up


def kind_of(record: Record) -> int:
    """The number that stands for a record's class in the file."""
    if isinstance(record, Ending) and record.void:
        return VOID
    return KINDS[type(record).__name__]


# `block` comes last: SQLite then reads the other columns without touching its pages.
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL, job TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
    crc INTEGER NOT NULL, record BLOB NOT NULL, block_crc INTEGER NOT NULL, block BLOB NOT NULL
);
CREATE INDEX chunk_at ON log (job, first) WHERE kind = 2;
CREATE INDEX ending_seq ON log (job, seq) WHERE kind = 6;
CREATE INDEX ending_at ON log (job, first) WHERE kind = 6;
CREATE TABLE snapshot (seq INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL);
"""
INSERT = (
    "INSERT INTO log (kind, job, first, count, crc, record, block_crc, block) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
AFTER = "SELECT seq, kind, job, crc, record FROM log WHERE seq > ? ORDER BY seq"
DELETED = "SELECT job FROM log WHERE kind = 13"
CHUNK_AT = (
    "SELECT seq, first, count, block_crc, block FROM log "
    "WHERE kind = 2 AND job = ? AND first <= ? ORDER BY first DESC LIMIT 1"
)
ENDINGS = (
    "SELECT seq, crc, record, block_crc, block FROM log WHERE kind = 6 AND job = ? AND seq > ? ORDER BY seq"
)
ENDINGS_AT = (
    "SELECT seq, crc, record, block_crc, block FROM log "
    "WHERE kind = 6 AND job = ? AND first <= ? AND first > ? AND first + count > ?"
)
NEXT_ENDING = "SELECT min(first) FROM log WHERE kind = 6 AND job = ? AND first > ?"
# What a snapshot holds and nobody reads again, from the snapshot before it on.
COMPACT = "DELETE FROM log WHERE seq > ? AND seq <= ? AND kind IN (4, 5, 7, 8, 9, 12, 14)"
PURGE = "DELETE FROM log WHERE seq IN (SELECT seq FROM log WHERE job = ? AND kind != 13 LIMIT ?)"


def damaged(path: Path, what: str) -> StorageError:
    """The error for a journal that cannot be trusted, with the way out."""
    return StorageError(
        f"the journal {path} is damaged ({what}): nothing was changed; "
        "put a backup in its place with 'taskyard restore FILE', or move it away to start empty"
    )


def lock(path: Path) -> IO[str]:
    """Keep the journal to this process until the file is closed; raises StorageError naming the holder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(f"{path}.lock", "a+")  # noqa: SIM115 - the open file is the lock
    except OSError as error:
        raise StorageError(
            f"the journal {path} cannot be opened: {error}; check the folder's owner"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StorageError(
            f"the journal {path} is in use by {holder}: one master a journal; stop it first"
        ) from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}")
    handle.flush()
    return handle


def connect(path: Path) -> sqlite3.Connection:
    """A connection with our settings; every commit is on disk before it returns."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    connection.execute("PRAGMA cache_size = -16000")
    return connection


def open_database(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open or create the file; returns the connection and the number of this start."""
    try:
        size = path.stat().st_size if path.exists() else 0
        if 0 < size < PAGE_BYTES:  # to SQLite, such a stump is an empty database
            raise damaged(path, f"it is cut off after {size} bytes")
        connection = connect(path)
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables == 0 and application in (0, APPLICATION):  # new, or cut short while it was made
            _create(connection)
        elif application != APPLICATION:
            raise StorageError(f"{path} is not a journal of taskyard: point TASKYARD_JOURNAL elsewhere")
        elif version != VERSION:
            raise StorageError(
                f"the journal {path} has version {version}, this master reads version {VERSION}: "
                "run the taskyard that wrote it"
            )
        elif size <= CHECKED_BYTES:
            # The sums in the rows do not cover SQLite's indexes: a flipped bit there hides a row.
            fault = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if fault != "ok":
                raise damaged(path, " ".join(fault.split()))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'boot'")
        boot: int = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()[0]
        _lay_out(path)
    except sqlite3.Error as error:
        if "unable to open" in str(error) or "readonly" in str(error) or "full" in str(error):
            raise StorageError(
                f"the journal {path} cannot be opened: {error}; check disk and owner"
            ) from error
        raise damaged(path, str(error)) from error
    return connection, boot


def _lay_out(path: Path) -> None:
    """Make the write-ahead log's file as long as it soon will be anyway, with zeros, which are no frames.

    A commit that makes the file longer waits for the file system's own journal as well: measured on ext4,
    320 microseconds against 150 for one that writes over what is there. SQLite keeps the length from then on.
    """
    ahead = Path(f"{path}-wal")
    try:
        if not ahead.exists() or shutil.disk_usage(path.parent).free < 64 * AHEAD_BYTES:
            return
        with open(ahead, "r+b") as file:
            missing = AHEAD_BYTES - file.seek(0, os.SEEK_END)
            file.write(bytes(max(0, missing)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # it only makes commits quicker
        log.warning("the write-ahead log of %s was not laid out: %s", path, error)


def trim(connection: sqlite3.Connection, path: Path) -> None:
    """After much was removed: shorten the database's file and its write-ahead log to what they need."""
    if Path(f"{path}-wal").stat().st_size > AHEAD_BYTES:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        _lay_out(path)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has no effect once there is a table
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    meta = f"INSERT INTO meta VALUES ('boot', 0); INSERT INTO meta VALUES ('yard', '{secrets.token_hex(8)}');"
    connection.executescript(f"BEGIN; {TABLES} {meta} COMMIT;")
