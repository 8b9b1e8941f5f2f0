"""An executor that is open for long: the journal does not grow with what it has received."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from lab import KEY, Lab, running_lab
from support import eventually

from taskyard import YardExecutor

TASKS = Path(__file__).resolve().parent.parent / "pool_tasks"
sys.path.append(str(TASKS))
import pooltasks  # noqa: E402

ROUNDS = 3
LEFT = "SELECT count(*) FROM log WHERE kind IN (2, 6)"
INPUTS = [bytes([n % 256]) * 4000 for n in range(1500)]


def asked(path: Path, what: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute(what).fetchone()[0]
        return found


def test_rounds_of_an_executor_take_the_room_of_one(tmp_path: Path) -> None:
    with running_lab(tmp_path, workers=1, tasks=TASKS) as lab:
        rounds_of_an_executor(lab, tmp_path)


def rounds_of_an_executor(lab: Lab, folder: Path) -> None:
    journal = folder / "journal.db"
    sizes = []
    with YardExecutor(lab.address, KEY, retention=0.5) as pool, lab.yard() as yard:
        for _ in range(ROUNDS):
            assert list(pool.map(pooltasks.identity, INPUTS)) == INPUTS
            sizes.append(asked(journal, "PRAGMA page_count"))
            eventually(lambda: asked(journal, LEFT) == 0, "what was received is dropped")
        assert sizes[-1] < 2 * sizes[0]
        job = yard.job(pool.job)
        assert job.status().completed == job.status().total == ROUNDS * len(INPUTS)
        assert list(job.rows()) == list(job.rows(ordered=True)) == []
        yard.backup(folder / "backup.db")
        assert asked(folder / "backup.db", LEFT) == 0
        lab.kill_master()
        lab.start_master()
        assert pool.submit(pooltasks.square, 7).result() == 49
        assert job.status().total == ROUNDS * len(INPUTS) + 1
