"""Points in the code at which tests make a process die, or an operation fail.

`passing("commit.before")` does nothing, until TASKYARD_FAILPOINT names that point: at the n-th passing
the process then ends at once, as by kill -9, or an OSError is raised there. Where the name has to be
made, ask `armed` first, so that nothing is paid for it in the ordinary case.
"""

import errno
import os
import sys
import threading

from taskyard.errors import SettingsError

EXIT_FIRED = 86  # of a process that ended at its point: a test knows by it that its fault has happened

_REQUESTS = ("Open", "Chunk", "Close", "Lease", "Begin", "Settle", "Beat", "Results", "Requeue", "Delete")
MASTER = (
    "replay.after",  # everything is read, nobody is served
    "commit.begin", "commit.before", "commit.after",  # around a group commit; .before: all rows are written
    "snapshot.before", "snapshot.after",  # around saving the ledger's state and dropping rows, same commit
    "apply.before", "apply.after",  # around the ledger's knowing of a commit
    "read.before",  # tasks or results are about to be read from the journal
    "purge.before", "purge.after",  # around removing some rows of a deleted job
    "drop.before", "drop.after",  # around removing some rows whose results were taken long ago
    "grant.before",  # a lease is given, and nobody was told
    "hello.before",  # a worker said what it holds, and was not answered
    "lost.before",  # a worker is gone, and its leases are not taken back
    "expired.before",  # leases ran out, and are not taken back
    "stop.before",  # told to stop
    *(f"reply.{name}.{when}" for name in _REQUESTS for when in ("before", "after")),
)  # fmt: skip
WORKER = (
    "joined.after",  # the master has welcomed it
    "leased.before",  # tasks have come, and are not looked at
    "slot.after",  # a slot has said what became of tasks
    "settle.before", "settle.after",  # around sending outcomes
    "settled.before",  # they were answered, and that is not noted
    "beat.after",  # a heartbeat was sent
    "begin.before",  # about to ask whether a suspect may run
    "drain.before",  # told to drain
)  # fmt: skip
POINTS = (*MASTER, *WORKER)

armed = False
_name = ""
_left = 0
_raise = False
_lock = threading.Lock()


def arm(spec: str) -> None:
    """Take what TASKYARD_FAILPOINT says: name[:n][:error]; raises SettingsError if that is no point."""
    global armed, _name, _left, _raise
    name, *rest = spec.split(":")
    error = rest[-1:] == ["error"]
    numbers = rest[:-1] if error else rest
    if spec and (name not in POINTS or len(numbers) > 1 or not all(n.isdigit() and int(n) for n in numbers)):
        raise SettingsError(
            f"TASKYARD_FAILPOINT: must be name[:n][:error] (is {spec!r}); the names are in"
            " core/taskyard/failpoints.py"
        )
    _name, _left, _raise, armed = name, int(numbers[0]) if numbers else 1, error, bool(spec)


def passing(name: str) -> None:
    """A point: the process may end here, or an OSError be raised."""
    global _left
    if not armed or name != _name:
        return
    with _lock:
        _left -= 1
        due = _left == 0
    if due:
        sys.stderr.write(f"failpoint {name}: {'an I/O error' if _raise else 'the end'}\n")
        sys.stderr.flush()
        if _raise:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (failpoint {name})")
        os._exit(EXIT_FIRED)
