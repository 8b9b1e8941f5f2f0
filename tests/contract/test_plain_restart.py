"""What stdlib peers held when the master was killed is not lost, and nobody waits for a lease."""

from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from lab import KEY, Lab, running_lab


class Manager(BaseManager):
    """As the tutorials write it."""


Manager.register("get_task")
Manager.register("get_result")


def connect(lab: Lab) -> tuple[Any, Any]:
    manager = Manager(address=("127.0.0.1", lab.port), authkey=KEY.encode())
    manager.connect()
    return manager.get_task(), manager.get_result()  # type: ignore[attr-defined]


def test_tasks_and_results_survive_kill_9_of_the_master(tmp_path: Path) -> None:
    with running_lab(tmp_path) as lab:
        tasks, results = connect(lab)
        for n in range(5):
            tasks.put(n)
        got = [tasks.get(timeout=5), tasks.get(timeout=5)]
        results.put(("result of", got[0]))
        lab.kill_master()
        lab.start_master()
        tasks, results = connect(lab)
        left = sorted(tasks.get(timeout=5) for _ in range(4))
        assert left == [n for n in range(5) if n != got[0]], "the one with no result is there again"
        assert tasks.empty()
        assert results.get(timeout=5) == ("result of", got[0])
        assert results.qsize() == 0
