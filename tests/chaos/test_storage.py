"""A full disk, I/O errors, a read-only disk: submissions are refused, nothing is lost, nothing restarts."""

import subprocess
import sys
from pathlib import Path

import pytest
from mounts import fill, tmpfs
from rig import Rig, many, running_rig
from support import eventually

from taskyard.errors import EXIT_UNREACHABLE, StorageError
from taskyard_ctl.chaos.probe import Tasks

TASKS = many(1500, 3000)
ERRORS = many(6, 12)


class LargeTasks(Tasks):
    """So large that the journal grows quickly."""

    @property
    def _salt(self) -> str:
        return "large " * 700


def test_a_full_disk_loses_nothing_and_needs_no_restart(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "80m") as small:  # noqa: SIM117
        with running_rig(tmp_path, journal=str(small / "journal.db"), reserve="0") as rig, rig.yard() as yard:
            before = yard.status().master.boot
            watched = rig.load(yard, LargeTasks(1, 0.0, 0.002), TASKS, seconds=TASKS / 375)
            for fills in range(1, 4):
                eventually(lambda k=fills: watched.load.read > 100 * k, "it works")  # type: ignore[misc]
                met = rig.output().count("cannot be written")
                filler = fill(small)
                eventually(lambda k=met: rig.output().count("cannot be written") > k, "the full disk was met")  # type: ignore[misc]
                filler.unlink()
                rig.faults["full disks"] += 1
            assert "make room" in rig.output()
            report = watched.held()
            assert yard.status().master.boot == before, "no restart"
            assert watched.load.refused > 0
            assert report.completed == TASKS


def test_the_reserve_keeps_room_for_outcomes(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "24m") as small, running_rig(
        tmp_path, journal=str(small / "journal.db"), reserve=str(8 << 20)
    ) as rig, rig.yard() as yard:  # fmt: skip
        flag = tmp_path / "flag"
        waiting = yard.submit("work:until", [str(flag)] * 20, max_attempts=100)
        filler = small / "filler"
        filler.write_bytes(b"\0" * (17 << 20))
        with pytest.raises(StorageError, match="TASKYARD_RESERVE"):
            eventually(lambda: yard.submit("work:until", ["/"]) and False, "submissions are refused", 10)
        flag.touch()
        assert waiting.wait(30).completed == 20, "what was accepted goes on"
        filler.unlink()
        eventually(lambda: accepted(rig), "new tasks are taken again")


def accepted(rig: Rig) -> bool:
    with rig.yard() as yard:
        try:
            yard.submit("work:until", ["/"])
        except StorageError:
            return False
        return True


@pytest.mark.parametrize("point", ["commit.begin", "commit.before"])
def test_an_io_error_at_the_nth_commit(tmp_path: Path, point: str) -> None:
    """Whichever commit fails: that request is refused, and all goes on with the next."""
    with running_rig(tmp_path) as rig, rig.yard() as yard:
        happened = 0
        for n in range(1, ERRORS + 1):
            rig.replace_master(failpoint=f"{point}:{n}:error")
            eventually(lambda: rig.joined(yard), "both have joined")
            rig.seed += 1
            watched = rig.load(yard, Tasks(rig.seed, 0.0, 0.002), 60)
            eventually(lambda load=watched.load: load.read == 60, "all is read")  # type: ignore[misc]
            errors = rig.output().count(f"failpoint {point}: an I/O error")
            rig.faults["I/O errors"] += errors - happened
            happened = errors
            report = watched.held()
            assert report.completed == report.accepted == 60
        assert happened >= ERRORS - 2, "the errors happened"


def test_a_disk_that_cannot_be_read_for_a_moment_costs_no_task(tmp_path: Path) -> None:
    """Only damage makes a task dead; what the disk does not give now, it may give in a second."""
    with running_rig(tmp_path, workers=0) as rig, rig.yard() as yard:
        job = yard.submit("work:until", ["/"] * 50)
        rig.replace_master(failpoint="read.before:1:error")
        rig.start_worker()
        eventually(lambda: job.status().completed + job.status().dead == 50, "all have ended", 60)
        status = job.status()
        assert "failpoint read.before: an I/O error" in rig.output()
        assert (status.completed, status.dead) == (50, 0)


def test_a_read_only_disk_is_named_at_the_start(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "4m", "ro") as folder:
        done = start(folder / "journal.db", tmp_path)
    assert done.returncode == EXIT_UNREACHABLE
    assert str(folder / "journal.db") in done.stderr
    assert "Traceback" not in done.stderr
    assert "read-only" in done.stderr.lower(), done.stderr


def start(journal: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    environ = {
        "TASKYARD_JOURNAL": str(journal),
        "TASKYARD_AUTHKEY": "0123456789abcdef",
        "TASKYARD_ADDRESS": "127.0.0.1:0",
    }
    return subprocess.run(
        [sys.executable, "-m", "taskyard_master"],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
