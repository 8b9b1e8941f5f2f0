"""One death at every named point, under load: nothing is lost, nothing doubled, and the point was reached."""

import signal
from collections.abc import Callable, Iterator

import pytest
from rig import Rig, halt, running_rig
from support import eventually

from taskyard import Yard
from taskyard.failpoints import MASTER, POINTS, WORKER
from taskyard_ctl.chaos.probe import Tasks

TASKS = 60


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("failpoints"), workers=2, lease="1", grace="0.2") as running:
        yield running


def kill_a_worker(rig: Rig, yard: Yard) -> None:
    """While it holds something: that comes back as suspects, which run alone after a Begin."""
    eventually(lambda: any(w.leased for w in yard.status().workers), "a worker holds tasks")
    rig.workers[0].kill()


def kill_workers(rig: Rig, yard: Yard) -> None:
    """Again and again: what was lost is halved until a task stands alone, and that asks to begin."""

    def kill_who_holds_something() -> bool:
        held = {worker.pid for worker in yard.status().workers if worker.leased}
        for process in rig.workers[rig.spared :]:
            if process.pid in held:
                process.kill()
        return rig.fired() > rig.before

    eventually(kill_who_holds_something, "a task asked to begin", 60)


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


def end_the_master(rig: Rig, yard: Yard) -> None:
    assert rig.master is not None
    rig.master.terminate()


def drain_a_worker(rig: Rig, yard: Yard) -> None:
    rig.workers[0].terminate()


EXTRA: dict[str, Callable[[Rig, Yard], None]] = {
    "lost.before": kill_a_worker,
    "expired.before": stop_a_worker,
    "reply.Begin.before": kill_workers,
    "reply.Begin.after": kill_workers,
    "begin.before": kill_workers,
    "reply.Requeue.before": requeue,
    "reply.Requeue.after": requeue,
    "reply.Delete.before": delete,
    "reply.Delete.after": delete,
    "purge.before": delete,
    "purge.after": delete,
    "stop.before": end_the_master,
    "drain.before": drain_a_worker,
}  # fmt: skip


def test_there_are_enough_points() -> None:
    assert len(POINTS) == len(set(POINTS)) >= 20


@pytest.mark.parametrize("point", MASTER)
def test_the_master_dies(rig: Rig, point: str) -> None:
    rig.spared = 0
    run(rig, point, lambda: rig.replace_master(failpoint=point))


@pytest.mark.parametrize("point", WORKER)
def test_a_worker_dies(rig: Rig, point: str) -> None:
    rig.spared = 1
    run(rig, point, lambda: rig.replace_worker(0, failpoint=point))


def run(rig: Rig, point: str, arm: Callable[[], None]) -> None:
    rig.before = rig.fired()
    rig.seed += 1
    arm()
    extra = EXTRA.get(point)
    with rig.yard() as yard:
        eventually(lambda: rig.joined(yard), "both have joined")
        count = 4 * TASKS if extra is kill_workers else TASKS  # it may take some kills
        slow = extra in (kill_a_worker, kill_workers, stop_a_worker)
        watched = rig.load(yard, Tasks(rig.seed, *((0.05, 0.1) if slow else (0.001, 0.005))), count)
        if extra is not None:
            extra(rig, yard)
        report = watched.held()
        eventually(lambda: rig.fired() > rig.before, f"{point} was reached\n{rig.output()[-3000:]}")
        assert report.accepted == report.completed == count
        assert report.charged == 0, "a death of a process is no attempt of a task"
