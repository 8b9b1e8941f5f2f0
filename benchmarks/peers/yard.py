"""This yard: a master and workers as processes, with the settings' defaults. Every task is on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yardlab import running_yard

from taskyard_ctl.measuring import YardSide

TASKS = 1_000_000
KEEPS = "every task, fsynced before the answer"


@contextmanager
def running(workers: int, folder: Path, tls: bool = False) -> Iterator[YardSide]:
    with running_yard(folder, workers, tls) as lab, lab.yard() as yard:
        side = YardSide(yard, "work:square")
        yield side
        side.clear()
