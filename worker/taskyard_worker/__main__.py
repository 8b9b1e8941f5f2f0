"""`python -m taskyard_worker`.

SIGTERM is heard before anything else is imported: the first process of a container
ignores what it does not handle, and another one would end with a code that says crash.
"""

import signal
import sys
from typing import NoReturn

SWARM = "--swarm" in sys.argv[1:]  # see `lifecycle.main`


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number if SWARM and number == signal.SIGTERM else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    if SWARM:
        signal.signal(signal.SIGINT, _end)
    from taskyard_worker.lifecycle import main

    sys.exit(main(SWARM))
