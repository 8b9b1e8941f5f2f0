"""The power fails: what was answered for is there, and a journal that does not wait for the disk loses it."""

import re
from pathlib import Path

from mounts import Disk
from rig import Rig, note
from support import eventually

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
            return watched.check(rest_seconds=10 if sync == "NORMAL" else 60)
    finally:
        rig.stop()
        disk.close()


def test_a_power_cut_loses_nothing(tmp_path: Path) -> None:
    report = cut(tmp_path / "full", "FULL")
    assert not report.violations, report
    assert report.completed == report.accepted == 1500


def test_without_waiting_for_the_disk_a_power_cut_loses_tasks(tmp_path: Path) -> None:
    """The control: it shows that the cut above was one."""
    from taskyard.errors import TaskyardError

    try:
        report = cut(tmp_path / "normal", "NORMAL")
    except TaskyardError as error:  # such as a gap: the master has forgotten tasks that it had answered for
        assert "tasks" in str(error) or "no job" in str(error), error
        found = re.search(r"has (\d+) tasks: a chunk cannot start at (\d+)", str(error))
        lost = int(found[2]) - int(found[1]) if found else 0
        note(Report(accepted=int(found[2]) if found else 0, lost=lost, faults={"power cuts": 1}))
        return
    assert report.violations or report.lost, "NORMAL lost nothing: the cut was none"
