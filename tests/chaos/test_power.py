"""The power fails: what was answered for is there, and a journal that does not wait for the disk loses it."""

from pathlib import Path

from mounts import Disk
from rig import Rig, Watched, note
from support import eventually

from taskyard import Yard
from taskyard.errors import TaskyardError
from taskyard_ctl.chaos.oracle import Report
from taskyard_ctl.chaos.probe import Tasks

CUTS = 4


def cut(folder: Path, sync: str) -> Report:
    """Cut the power a few times under load; returns what the oracle found."""
    folder.mkdir()
    disk = Disk(folder)
    rig = Rig(folder, journal=str(disk.path / "journal.db"), reserve="0")
    rig.environ["CHAOS_SYNC"] = sync
    rig.environ["CHAOS_SNAPSHOT"] = "1000000"
    try:
        rig.start_master()
        rig.start_workers(2)
        with rig.yard() as yard:
            watched = rig.load(yard, Tasks(1, 0.0, 0.002), 1500, seconds=2.0 * CUTS)
            for _ in range(CUTS):
                submitted = watched.load.submitted
                eventually(
                    lambda n=submitted: watched.load.submitted > n + 150 or watched.load.failed, "it works"
                )  # type: ignore[misc]
                # The process goes first, by a moment: what it reads from a disk that is off it calls damage.
                rig.kill_master()
                disk.cut()
                rig.faults["power cuts"] += 1
                disk.unmount()
                disk.mount()
                rig.start_master()
                if watched.load.failed:
                    break
            try:
                return watched.check(rest_seconds=10 if sync == "NORMAL" else 60)
            except TaskyardError as error:  # a gap, or no such job: the master has forgotten what it had
                return forgotten(rig, yard, watched, error)
    finally:
        rig.stop()
        disk.close()


def forgotten(rig: Rig, yard: Yard, watched: Watched, error: TaskyardError) -> Report:
    """The report where not even the submission could go on."""
    try:
        left = yard.job(watched.load.job).status().total
    except TaskyardError:
        left = 0
    report = Report(accepted=watched.load.submitted, faults=rig.counted(), violations=[f"I1: {error}"])
    report.completed, report.lost = min(left, watched.load.read), watched.load.submitted - left
    note(report)
    return report


def test_a_power_cut_loses_nothing(tmp_path: Path) -> None:
    report = cut(tmp_path / "full", "FULL")
    assert not report.violations, report
    assert report.completed == report.accepted == 1500


def test_without_waiting_for_the_disk_a_power_cut_loses_tasks(tmp_path: Path) -> None:
    """The control: it shows that the cut above was one."""
    report = cut(tmp_path / "normal", "NORMAL")
    assert report.lost > 0, f"NORMAL lost nothing: the cut was none; {report}"
