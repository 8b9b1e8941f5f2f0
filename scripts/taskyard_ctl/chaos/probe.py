"""The task of a chaos run: sleeps a little, writes down that it ran, returns what nobody can guess.

It has to be defined in the tasks folder, as all functions are that workers run; it is put there for the
run and removed after it.
"""

import hashlib
import random
import secrets
from pathlib import Path

PREFIX = "taskyard_chaos_"
_SOURCE = '''"""Put here by 'taskyard chaos' for as long as it runs; remove it if it was left behind."""

import hashlib
import os
import time

LOG = {log!r}


def note(n, what):
    """One line in one write, so that it is there whole or not at all, whatever dies now."""
    if LOG:
        fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, b"%d %s\\n" % (n, what))
        finally:
            os.close(fd)


def probe(task):
    n, seconds, salt = task
    note(n, b"begun")
    time.sleep(seconds)
    result = hashlib.blake2b(f"{{n}} {{salt}}".encode(), digest_size=8).hexdigest()
    note(n, b"ended")
    return result
'''


def write(folder: Path, log: Path | None) -> Path:
    """Put the module into a tasks folder; `log` is where its executions are noted, if workers see it.

    Each run has one of its own: what a worker has imported for another run writes to another log.
    """
    for left in folder.glob(f"{PREFIX}*.py"):  # by a run that was killed
        left.unlink()
    path = folder / f"{PREFIX}{secrets.token_hex(4)}.py"
    path.write_text(_SOURCE.format(log=str(log) if log else ""))
    return path


def function(module: Path) -> str:
    """The name of the function in a module that `write` has made."""
    return f"{module.stem}:probe"


class Tasks:
    """The tasks of a run: their arguments and results follow from the seed and the index."""

    def __init__(self, seed: int, shortest: float = 0.005, longest: float = 0.05) -> None:
        self._seed = seed
        self._range = (shortest, longest)

    def argument(self, n: int) -> tuple[int, float, str]:
        seconds = random.Random(f"{self._seed} {n}").uniform(*self._range)
        return (n, round(seconds, 4), self._salt)

    def result(self, n: int) -> str:
        return hashlib.blake2b(f"{n} {self._salt}".encode(), digest_size=8).hexdigest()

    @property
    def _salt(self) -> str:
        return f"salt {self._seed}"
