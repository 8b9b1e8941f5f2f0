"""`python -m taskyard_master.restore [FILE]`: puts a backup in the journal's place, from stdin unless told.

The copy is checked as a whole first; only then does it take the place, and what was there stays beside
it under another name. Nothing is touched while a master has the journal open.
"""

import os
import shutil
import sqlite3
import sys
import time
import zlib
from pathlib import Path
from typing import BinaryIO

from taskyard.errors import StorageError, TaskyardError
from taskyard.settings import Settings
from taskyard_master import schema

AHEAD = 1000  # starts of the master that may have come after the backup; their lease ids must not come again


def restore(source: BinaryIO, path: Path) -> str:
    """Replace the journal at `path`; returns what to say, or raises StorageError with nothing changed."""
    lock = schema.lock(path)
    part = path.with_name(f".{path.name}.restore")
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target)
        rows = _check(part, _boot(path) if path.exists() else 0)
        with part.open("rb+") as target:
            os.fsync(target.fileno())
        aside = _move_aside(path)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"the backup cannot be restored: {error}; nothing was changed") from error
    finally:
        for end in ("", "-wal", "-shm"):
            part.with_name(part.name + end).unlink(missing_ok=True)
        lock.close()
    kept = f"; the journal that was there is now {aside}" if aside else ""
    return f"restored {rows} records to {path}{kept}"


def _check(part: Path, boot: int) -> int:
    """Look at every byte of the copy, and number the next start; returns how many records it has."""
    connection = sqlite3.connect(part, isolation_level=None)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION:
            raise StorageError("this is no backup of a yard: nothing was changed")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != schema.VERSION:
            raise StorageError(
                f"the backup has version {version}, this master reads version {schema.VERSION}:"
                " restore it with the taskyard that made it"
            )
        faults = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if faults != "ok":
            raise StorageError(f"the backup is damaged ({faults}): nothing was changed; take another one")
        rows = 0
        for seq, crc, data, block_crc, block in connection.execute(
            "SELECT seq, crc, record, block_crc, block FROM log"
        ):
            rows += 1
            if zlib.crc32(data) != crc or zlib.crc32(block) != block_crc:
                raise StorageError(f"the backup is damaged (record {seq}): nothing was changed")
        own = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()[0]
        connection.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (max(own + AHEAD, boot),))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError as error:
        raise StorageError(f"this is no backup of a yard, or a damaged one ({error})") from error
    finally:
        connection.close()
    return rows


def _boot(path: Path) -> int:
    """The number of the last start, as far as the journal that is there can be read.

    It is made whole in one file, so that it stays usable whenever this process ends.
    """
    try:
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            found: int = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, TypeError):
        return 0
    return found


def _move_aside(path: Path) -> str:
    if not path.exists():
        return ""
    aside = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    os.link(path, aside)  # at no moment is there no journal: a master would begin an empty one
    for end in ("-wal", "-shm"):
        old = path.with_name(path.name + end)
        if old.exists():
            old.replace(aside.with_name(aside.name + end))
    return str(aside)


def main() -> int:
    """Exit code of the process; what was done, or why not, is one line."""
    try:
        settings = Settings.from_env(need_key=False)
        if len(sys.argv) > 1:
            with open(sys.argv[1], "rb") as source:
                said = restore(source, Path(settings.journal))
        else:
            said = restore(sys.stdin.buffer, Path(settings.journal))
    except TaskyardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"the backup cannot be read: {error}\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
