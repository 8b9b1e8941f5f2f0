"""This yard over mutual TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import yard
from taskyard_ctl.measuring import YardSide

TASKS = 1_000_000
KEEPS = "every task, fsynced before the answer"


@contextmanager
def running(workers: int, folder: Path) -> Iterator[YardSide]:
    with yard.running(workers, folder, tls=True) as side:
        yield side
