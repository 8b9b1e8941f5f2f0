"""A yard that runs already: the one that the TASKYARD_* settings of the environment name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskyard import Yard
from taskyard_ctl.measuring import YardSide

TASKS = 1_000_000
KEEPS = "every task, fsynced before the answer"


@contextmanager
def running(workers: int, folder: Path) -> Iterator[YardSide]:
    with Yard.from_env(patience=30) as yard:
        side = YardSide(yard, "work:square")
        yield side
        side.clear()
