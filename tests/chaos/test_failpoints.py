"""One death at every named point, under load: nothing is lost, nothing doubled, and the point was reached."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import KEY
from rig import Rig, halt, held_by, running_rig
from support import eventually

from taskyard import Yard, YardExecutor
from taskyard.failpoints import MASTER, POINTS, WORKER
from taskyard_ctl.chaos.probe import Tasks

TASKS = 60


class Gated(Tasks):
    """Each task waits for a file, so that whoever has one keeps it until then."""

    def __init__(self, seed: int, gate: Path) -> None:
        super().__init__(seed, 0.0, 0.001)
        self._gate = str(gate)

    def argument(self, n: int) -> tuple[object, ...]:  # type: ignore[override]
        return (*super().argument(n), "wait", self._gate)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("failpoints"), workers=2, lease="1", grace="0.2") as running:
        yield running


def kill_a_worker(rig: Rig, yard: Yard) -> None:
    eventually(lambda: any(w.leased for w in yard.status().workers), "a worker holds tasks")
    rig.workers[0].kill()


def lose_a_task(rig: Rig, yard: Yard) -> None:
    """A task that was lost alone is a suspect: whoever gets it asks to begin it. That is who comes next."""
    first = rig.workers[0]
    eventually(lambda: held_by(rig, first.pid), "it holds a task")
    with rig.away():
        first.kill()
        eventually(lambda: any(job.suspect for job in yard.status().jobs), "its task is a suspect")


def stop_a_worker(rig: Rig, yard: Yard) -> None:
    """For longer than its lease."""
    eventually(lambda: all(w.leased for w in yard.status().workers), "both hold tasks")
    worker = rig.workers[0]
    halt(worker)
    eventually(lambda: rig.fired() > rig.before, "the point was passed")
    worker.send_signal(signal.SIGCONT)


def requeue(rig: Rig, yard: Yard) -> None:
    flag = rig.folder / f"flag-{rig.fired()}"
    job = yard.submit("work:until", [str(flag)], max_attempts=1)
    eventually(lambda: job.status().dead, "it is dead")
    flag.touch()
    job.requeue()
    eventually(lambda: job.status().completed == 1, "it completed in its second round")


def delete(rig: Rig, yard: Yard) -> None:
    job = yard.submit("work:until", ["/"] * 30)
    job.wait(30)
    job.delete()
    eventually(lambda: job.id not in {one.id for one in yard.status().jobs}, "the job is gone")


def consume(rig: Rig, yard: Yard) -> None:
    with YardExecutor(rig.address, KEY, retention=0.1, patience=20) as pool:
        assert list(pool.map("work:until", ["/"] * 30)) == ["done"] * 30
        eventually(lambda: rig.fired() > rig.before, "rows of what was read are dropped")
        assert list(pool.map("work:until", ["/"] * 30)) == ["done"] * 30


def end_the_master(rig: Rig, yard: Yard) -> None:
    assert rig.master is not None
    rig.master.terminate()


def drain_a_worker(rig: Rig, yard: Yard) -> None:
    rig.workers[0].terminate()


EXTRA: dict[str, Callable[[Rig, Yard], None]] = {
    "lost.before": kill_a_worker,
    "expired.before": stop_a_worker,
    "reply.Begin.before": lose_a_task,
    "reply.Begin.after": lose_a_task,
    "begin.before": lose_a_task,
    "reply.Requeue.before": requeue,
    "reply.Requeue.after": requeue,
    "reply.Delete.before": delete,
    "reply.Delete.after": delete,
    "purge.before": delete,
    "purge.after": delete,
    "drop.before": consume,
    "drop.after": consume,
    "stop.before": end_the_master,
    "drain.before": drain_a_worker,
}  # fmt: skip


def test_there_are_enough_points() -> None:
    assert len(POINTS) == len(set(POINTS)) >= 20


@pytest.mark.parametrize("point", MASTER)
def test_the_master_dies(rig: Rig, point: str) -> None:
    if EXTRA.get(point) is lose_a_task:
        rig.replace_worker(0, batch="1")
    run(rig, point, lambda: rig.replace_master(failpoint=point))


@pytest.mark.parametrize("point", WORKER)
def test_a_worker_dies(rig: Rig, point: str) -> None:
    if EXTRA.get(point) is lose_a_task:
        rig.new_workers = {"failpoint": point}
        run(rig, point, lambda: rig.replace_worker(0, batch="1"))
    else:
        run(rig, point, lambda: rig.replace_worker(0, failpoint=point))


def run(rig: Rig, point: str, arm: Callable[[], None]) -> None:
    rig.before = rig.fired()
    rig.seed += 1
    arm()
    extra = EXTRA.get(point)
    gate = rig.folder / f"gate-{rig.seed}"
    gated = extra in (kill_a_worker, lose_a_task, stop_a_worker)
    tasks = Gated(rig.seed, gate) if gated else Tasks(rig.seed, 0.001, 0.005)
    with rig.yard() as yard:
        eventually(lambda: rig.joined(yard), "both have joined")
        watched = rig.load(yard, tasks, TASKS)
        if extra is not None:
            extra(rig, yard)
        eventually(lambda: rig.fired() > rig.before, f"{point} is reached")
        rig.new_workers = {}
        gate.touch()
        report = watched.held()
        assert report.accepted == report.completed == TASKS
        assert report.charged == 0, "a death of a process is no attempt of a task"
