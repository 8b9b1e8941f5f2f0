"""Bit flips and cut files: a damaged journal is refused, never served as if it were whole. And back-ups."""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig, note, running_rig
from support import eventually

from taskyard.errors import StorageError
from taskyard_ctl.chaos.oracle import Report
from taskyard_ctl.chaos.probe import Tasks
from taskyard_master.journal import Journal
from taskyard_master.ledger import Ledger

FLIPS = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The journal of a yard that has worked, closed."""
    folder = tmp_path_factory.mktemp("whole")
    with running_rig(folder) as rig, rig.yard() as yard:
        job = yard.submit("work:probe", [(n, 0.0, "salt") for n in range(400)])
        assert job.wait(60).completed == 400
        rig.stop()
    connection_free(folder / "journal.db")
    yield folder / "journal.db"


def connection_free(path: Path) -> None:
    """One file without a log beside it."""
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def contents(path: Path) -> tuple[object, ...]:
    """All that a master would serve from a journal; raises StorageError where it refuses to."""
    journal = Journal(path, lambda call: call())
    try:
        ledger = Ledger(journal.boot, offset=0.0)
        for _, entry in journal.replay():
            if isinstance(entry, bytes):
                ledger.restore(entry, 0.0)
            else:
                ledger.replay(entry, 0.0)
        found: list[object] = []
        for job in ledger.jobs():
            status = ledger.status(job)
            rows = journal.read.results(job, 0, 1 << 40)
            payloads = journal.read.payloads(job, 0, status.total) if status.total else b""
            found.append((job, status.total, status.completed, status.dead, rows, payloads))
        return tuple(found)
    finally:
        journal.start()
        journal.close()


def test_a_flipped_bit_is_never_silent(whole: Path, tmp_path: Path) -> None:
    expected = contents(shutil.copy(whole, tmp_path / "same.db"))
    draw = random.Random(12)
    size = whole.stat().st_size
    refused = 0
    for n in range(FLIPS):
        copy = Path(shutil.copy(whole, tmp_path / f"flip-{n}.db"))
        at, bit = draw.randrange(size), draw.randrange(8)
        with copy.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << bit)]))
        try:
            assert contents(copy) == expected, f"bit {bit} of byte {at} changed what is served"
        except StorageError:
            refused += 1
        copy.unlink()
    note(Report(faults={"bit flips": FLIPS, "of them refused, the rest without effect": refused}))
    assert refused > FLIPS / 4, "flips were noticed"


def test_a_cut_file_is_refused(whole: Path, tmp_path: Path) -> None:
    size = whole.stat().st_size
    for n, length in enumerate((1, 100, 4096, size // 2, size - 4096, size - 1)):
        copy = Path(shutil.copy(whole, tmp_path / f"cut-{n}.db"))
        with copy.open("r+b") as file:
            file.truncate(length)
        with pytest.raises(StorageError):
            contents(copy)


def start(journal: Path) -> "subprocess.CompletedProcess[str]":
    environ = {
        "TASKYARD_JOURNAL": str(journal),
        "TASKYARD_AUTHKEY": "0123456789abcdef",
        "TASKYARD_ADDRESS": "127.0.0.1:0",
    }
    return subprocess.run(
        [sys.executable, "-m", "taskyard_master"], env=environ, capture_output=True, text=True, timeout=60
    )


def test_the_master_names_the_way_out(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(whole, tmp_path / "journal.db"))
    with copy.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 5 * 4096)
    done = start(copy)
    assert done.returncode == StorageError.exit_code
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "taskyard restore" in done.stderr


def restored(rig: Rig, file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "taskyard_master.restore", str(file)],
        env=rig.environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_backup_and_restore_under_load(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    try:
        rig.start_master()
        rig.start_workers(2)
        with rig.yard() as yard:
            watched = rig.load(yard, Tasks(1, 0.0, 0.004), 800, seconds=3)
            eventually(lambda: watched.load.read > 300, "it works")
            accepted, read = watched.load.submitted, watched.load.read
            yard.backup(tmp_path / "copy.db")
            job = watched.load.job
            refused = restored(rig, tmp_path / "copy.db")
            assert refused.returncode == StorageError.exit_code
            assert "in use by process" in refused.stderr
            watched.held()
        rig.kill_master()
        with (tmp_path / "journal.db").open("r+b") as file:
            file.truncate(5000)
        done = restored(rig, tmp_path / "copy.db")
        assert done.returncode == 0, done.stderr
        assert "is now" in done.stdout, "what was there is kept"
        rig.start_master()
        with rig.yard() as yard:
            status = yard.job(job).status()
            assert status.total >= accepted, "what was accepted before the backup is in it"
            assert status.completed >= read
            eventually(lambda: yard.job(job).status().completed == status.total, "the rest is run")
            again = yard.submit("work:until", ["/"])
            assert again.wait(30).completed == 1
    finally:
        rig.stop()


@pytest.mark.parametrize("content", [b"", b"no journal at all" * 500])
def test_what_is_no_backup_is_not_restored(tmp_path: Path, content: bytes) -> None:
    rig = Rig(tmp_path)
    (tmp_path / "other.db").write_bytes(content)
    (tmp_path / "journal.db").write_bytes(b"mine")
    done = restored(rig, tmp_path / "other.db")
    assert done.returncode == StorageError.exit_code
    assert "no backup of a yard" in done.stderr
    assert (tmp_path / "journal.db").read_bytes() == b"mine"
