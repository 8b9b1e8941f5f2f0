"""IPython Parallel: a cluster of engines behind a load-balanced view."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from work import square

TASKS = 1500
KEEPS = "nothing"


class Side:
    def __init__(self, view: Any) -> None:
        self._view = view

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._view.map_sync(square, inputs))

    def one(self, n: int) -> int:
        return int(self._view.apply_sync(square, n))


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    import os

    os.environ["IPYTHONDIR"] = str(folder)
    work = str(Path(__file__).resolve().parent.parent / "tasks")
    os.environ["PYTHONPATH"] = os.pathsep.join([work, os.environ.get("PYTHONPATH", "")])
    import ipyparallel

    with ipyparallel.Cluster(n=count, log_level=40) as client:
        yield Side(client.load_balanced_view())
