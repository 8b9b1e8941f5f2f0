"""dask.distributed: a LocalCluster of worker processes with one thread each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from work import square

TASKS = 2000
KEEPS = "nothing"


class Side:
    def __init__(self, client: Any) -> None:
        self._client = client

    def many(self, inputs: Sequence[int]) -> list[int]:
        return list(self._client.gather(self._client.map(square, inputs, pure=False)))

    def one(self, n: int) -> int:
        return int(self._client.submit(square, n, pure=False).result())


@contextmanager
def running(count: int, folder: Path) -> Iterator[Side]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, local_directory=str(folder)
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Side(client)
