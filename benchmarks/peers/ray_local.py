"""Ray: `ray.init` on this machine with as many CPUs as there are workers."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from work import square

TASKS = 4000
KEEPS = "nothing"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


class Side:
    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._square = ray.remote(square)

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._ray.get([self._square.remote(n) for n in inputs]))

    def one(self, n: int) -> int:
        return int(self._ray.get(self._square.remote(n)))


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    import ray

    work = str(Path(__file__).resolve().parent.parent / "tasks")
    ray.init(
        num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": work}},
    )  # fmt: skip
    try:
        yield Side(ray)
    finally:
        ray.shutdown()
