"""The worker's health probe: did its agent beat lately? Exit code 0 or 1.

The agent touches its file at every heartbeat, connected or not: a worker that
waits for its master is healthy. Run as a file, never imported, and itself
importing only the standard library.
"""

import os
import sys
import time

BEAT_FILE = "/run/taskyard/worker.json"
STALE_S = 45.0


def probe(path: str, now: float) -> str:
    """What is wrong with the worker that keeps the file at `path`, or an empty string."""
    try:
        age = now - os.stat(path).st_mtime  # noqa: PTH116 - pathlib would cost more than the probe
    except OSError as fault:
        return f"no heartbeat: {fault}"
    return f"the last heartbeat is {age:.0f} s old" if age > STALE_S else ""


if __name__ == "__main__":
    sys.exit(probe(sys.argv[1] if len(sys.argv) > 1 else BEAT_FILE, time.time()) or 0)
