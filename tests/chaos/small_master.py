"""The master, with a snapshot every few records and purges of a few rows, so that tests meet both.

CHAOS_SYNC=NORMAL makes it the one that does not wait for the disk: the control of the power cuts.
"""

import os
import sqlite3
import sys
from pathlib import Path

from taskyard_master import __main__ as master
from taskyard_master import commits, journal, schema

commits.SNAPSHOT_ROWS = int(os.environ.get("CHAOS_SNAPSHOT", "40"))
journal.PURGE_ROWS = 5
connect = schema.connect


def connect_without_sync(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


if os.environ.get("CHAOS_SYNC") == "NORMAL":
    schema.connect = connect_without_sync

if __name__ == "__main__":
    sys.exit(master.main())
