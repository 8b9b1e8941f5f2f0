"""The power fails: what was answered for is there, and a journal that does not wait for the disk loses it."""

import contextlib
from pathlib import Path

from mounts import Disk
from rig import Rig, Watched, many, note
from support import eventually

from taskyard import Yard
from taskyard.errors import TaskyardError
from taskyard_ctl.chaos.oracle import Report
from taskyard_ctl.chaos.probe import Tasks

CUTS = many(3, 8)
MOST = 12  # cuts of the control, which loses nothing where the kernel has just written all by itself


def cut(folder: Path, sync: str, cuts: int) -> Report:
    """Cut the power so many times under load, or until something is gone; what the oracle has found."""
    folder.mkdir()
    disk = Disk(folder)
    rig = Rig(folder, journal=str(disk.path / "journal.db"), reserve="0")
    rig.environ["CHAOS_SYNC"] = sync
    rig.environ["CHAOS_SNAPSHOT"] = "1000000"
    try:
        rig.start_master()
        rig.start_workers(2)
        with rig.yard() as yard:
            watched = rig.load(yard, Tasks(1, 0.0, 0.002), most=0)
            for _ in range(cuts):
                submitted, read = watched.load.submitted, watched.load.read
                eventually(
                    lambda n=submitted, k=read: (
                        (watched.load.submitted > n + 150 and watched.load.read > k + 150)
                        or watched.load.failed
                    ),
                    "it works",
                )  # type: ignore[misc]
                # The process goes first, by a moment: what it reads from a disk that is off it calls damage.
                rig.kill_master()
                read = watched.load.read
                disk.cut()
                rig.faults["power cuts"] += 1
                disk.unmount()
                disk.mount()
                rig.start_master()
                if forgotten(yard, watched, read):
                    break
            if watched.load.failed:
                return gap(rig, yard, watched)
            return watched.check()
    finally:
        rig.stop()
        disk.close()


def forgotten(yard: Yard, watched: Watched, read: int) -> bool:
    """Whether something is gone that was answered for, as far as can be seen at once."""
    try:
        return watched.load.failed or yard.job(watched.load.job).status().completed < read
    except TaskyardError:  # no such job
        eventually(lambda: watched.load.failed, "the load hears of it too")
        return True


def gap(rig: Rig, yard: Yard, watched: Watched) -> Report:
    """The report where not even the submission could go on."""
    with contextlib.suppress(TaskyardError):
        watched.load.finish(0)
    try:
        left = yard.job(watched.load.job).status().total
    except TaskyardError:
        left = 0
    report = Report(accepted=watched.load.submitted, faults=rig.counted())
    report.completed, report.lost = min(left, watched.load.read), watched.load.submitted - left
    report.violations.append(f"I1: {report.lost} tasks that were accepted are not there")
    note(report)
    return report


def test_a_power_cut_loses_nothing(tmp_path: Path) -> None:
    report = cut(tmp_path / "full", "FULL", CUTS)
    assert not report.violations, report
    assert report.faults["power cuts"] == CUTS
    assert report.completed == report.accepted > 100 * CUTS


def test_without_waiting_for_the_disk_a_power_cut_loses_tasks(tmp_path: Path) -> None:
    """The control: it shows that the cut above was one. Tasks are gone, or outcomes that were read."""
    report = cut(tmp_path / "normal", "NORMAL", MOST)
    assert report.violations, f"NORMAL lost nothing in {MOST} cuts: they were none; {report}"
