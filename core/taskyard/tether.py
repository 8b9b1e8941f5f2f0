"""`python -m taskyard.tether MODULE`: run a module as a program that ends with the process that started it.

Its standard input is a pipe whose other end that process holds. When the pipe ends, or the parent is
another one, the program gets a SIGTERM, as from somebody who waits for a clean end.
"""

import os
import runpy
import select
import signal
import sys
import threading

LOOK = 1.0  # seconds between looks at who the parent is: a forked child may hold the pipe open, too


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        ready, _, _ = select.select([0], [], [], LOOK)
        if ready and not os.read(0, 64):
            break
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(os.getppid(),), name="tether", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
