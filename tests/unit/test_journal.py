"""The journal: group commits, merging, replay, damage, a full disk."""

import queue
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import eventually

from taskyard import batch
from taskyard import messages as m
from taskyard.errors import EXIT_INTERNAL, StorageError
from taskyard_master import journal as journal_module
from taskyard_master import schema
from taskyard_master.journal import Journal
from taskyard_master.rows import Entry, arrange


class Owner:
    """The thread that owns the journal: runs what the writer delivers, when the test says so."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.done: list[tuple[Exception | None, int, int]] = []

    def settled(self, error: Exception | None, seq: int, offset: int) -> None:
        self.done.append((error, seq, offset))

    def run_until(self, count: int) -> None:
        while len(self.done) < count:
            self.calls.get(timeout=10)()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def journal(tmp_path: Path, owner: Owner) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", owner.calls.put)
    opened.start()
    yield opened
    opened.close()


def chunk(first: int, count: int = 1, job: str = "j") -> Entry:
    values = [f"{job}{index}".encode() for index in range(first, first + count)]
    return Entry(m.Chunked(job, first, count, b"digest"), batch.pack(values))


def ending(first: int, count: int = 1, job: str = "j", **more: Any) -> Entry:
    state = more.pop("state", "completed")
    record = m.Ending(job, first, count, state, 0, 1, "w", "h", 10.0, 0.5, 20.0, **more)
    return Entry(record, batch.pack([f"r{index}".encode() for index in range(first, first + count)]))


def append(journal: Journal, owner: Owner, *entries: Entry) -> list[tuple[Exception | None, int, int]]:
    before = len(owner.done)
    journal.append([(entry, owner.settled) for entry in entries])
    owner.run_until(before + len(entries))
    return owner.done[before:]


def reopened(path: Path) -> list[m.Record | bytes]:
    journal = Journal(path, lambda call: None)
    try:
        return [entry for _, entry in journal.replay()]
    finally:
        journal.close()


def test_single_tasks_of_one_commit_share_a_row(journal: Journal, owner: Owner) -> None:
    places = append(journal, owner, chunk(0), chunk(1), ending(0), chunk(2), ending(1))
    assert [error for error, _, _ in places] == [None] * 5
    assert {seq for _, seq, _ in places[:2]} == {places[3][1]}
    assert [offset for _, _, offset in places] == [0, 1, 0, 2, 1]
    assert batch.unpack(journal.read.payloads("j", 0, 3), 3) == [b"j0", b"j1", b"j2"]
    (row,) = journal.read.results("j", 0, 1 << 20)
    assert (row.first, row.count, row.seconds) == (0, 2, 1.0)
    assert batch.unpack(row.block, 2) == [b"r0", b"r1"]


def test_payloads_span_rows_and_come_from_disk_too(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    append(journal, owner, chunk(0, 5))
    append(journal, owner, chunk(5, 3))
    append(journal, owner, chunk(8, 1))
    expected = [f"j{index}".encode() for index in range(3, 9)]
    assert batch.unpack(journal.read.payloads("j", 3, 6), 6) == expected
    journal.read.forget_job("j")
    assert batch.unpack(journal.read.payloads("j", 3, 6), 6) == expected
    with pytest.raises(StorageError, match="holds no task 9"):
        journal.read.payloads("j", 9, 1)


def test_the_newest_round_of_an_index_is_found(journal: Journal, owner: Owner) -> None:
    append(journal, owner, ending(0, 10, state="dead"))
    again = m.Ending("j", 4, 1, "completed", 1, 1, "w", "h", 10.0, 0.5, 30.0)
    append(journal, owner, Entry(again, batch.pack([b"better"])))
    row = journal.read.result_at("j", 4)
    assert row is not None and (row.round, row.state) == (1, "completed")
    row = journal.read.result_at("j", 5)
    assert row is not None and row.round == 0
    assert journal.read.result_at("j", 10) is None
    assert [row.first for row in journal.read.results("j", 0, 1 << 20, failed=True)] == [0]


def test_replay_gives_back_what_was_written_in_order(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    append(journal, owner, chunk(0, 3))
    journal.ride(m.Granting("j", 0, 3, 7, "w", "b", False))
    append(journal, owner, ending(0, 3))
    journal.close()
    kinds = [type(entry).__name__ for entry in reopened(tmp_path / "journal.db")]
    assert kinds == ["Chunked", "Granting", "Ending"]


def test_a_grant_whose_outcome_came_first_is_not_written(
    journal: Journal, owner: Owner, tmp_path: Path
) -> None:
    journal.ride(m.Granting("j", 0, 3, 7, "w", "b", False))
    journal.forget(7)
    append(journal, owner, ending(0, 3))
    journal.close()
    assert [type(entry).__name__ for entry in reopened(tmp_path / "journal.db")] == ["Ending"]


def test_a_snapshot_replaces_what_came_before(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    ((_, seq, _),) = append(journal, owner, chunk(0))
    journal.save_snapshot(seq, b"state")
    append(journal, owner, chunk(1))
    journal.close()
    entries = reopened(tmp_path / "journal.db")
    assert entries[0] == b"state"
    assert [type(entry).__name__ for entry in entries[1:]] == ["Chunked"]


def test_seq_is_never_used_again(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    ((_, seq, _),) = append(journal, owner, chunk(0))
    connection = sqlite3.connect(tmp_path / "journal.db")
    with connection:
        connection.execute("DELETE FROM log")
    connection.close()
    ((_, later, _),) = append(journal, owner, chunk(0))
    assert later > seq


def test_a_full_disk_fails_the_commit_and_what_is_queued_behind(journal: Journal, owner: Owner) -> None:
    append(journal, owner, chunk(0))
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    big = Entry(m.Chunked("j", 1, 1, b""), batch.pack([bytes(100_000)]))
    journal.append([(big, owner.settled)])
    failing = owner.calls.get(timeout=10)  # the commit failed, but its owner does not know it yet
    journal.append([(chunk(2), owner.settled)])
    failing()
    errors = [error for error, _, _ in owner.done[1:]]
    assert len(errors) == 2
    assert all(isinstance(error, StorageError) for error in errors)
    assert "nothing of this request was accepted" in str(errors[1])
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    ((error, _, _),) = append(journal, owner, chunk(1))
    assert error is None, "service resumes without a restart"
    assert batch.unpack(journal.read.payloads("j", 0, 2), 2) == [b"j0", b"j1"]


def test_a_second_master_is_refused_and_told_who_holds_the_journal(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"in use by process \d+ on"):
        Journal(tmp_path / "journal.db", lambda call: None)


@pytest.mark.parametrize("column", ["record", "block"])
def test_a_flipped_bit_is_found(journal: Journal, owner: Owner, tmp_path: Path, column: str) -> None:
    append(journal, owner, chunk(0))
    journal.close()
    path = tmp_path / "journal.db"
    connection = sqlite3.connect(path)
    with connection:
        (data,) = connection.execute(f"SELECT {column} FROM log").fetchone()
        connection.execute(f"UPDATE log SET {column} = ?", (bytes([data[0] ^ 1]) + data[1:],))
    connection.close()
    again = Journal(path, lambda call: None)
    try:
        with pytest.raises(StorageError, match=r"damaged.*restore"):
            list(again.replay())
            again.read.payloads("j", 0, 1)
    finally:
        again.close()


def test_foreign_truncated_and_newer_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE something (x)")
    connection.close()
    with pytest.raises(StorageError, match="not a journal of taskyard"):
        Journal(foreign, lambda call: None)
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="damaged"):
        Journal(garbage, lambda call: None)
    newer = tmp_path / "newer.db"
    Journal(newer, lambda call: None).close()
    connection = sqlite3.connect(newer)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(StorageError, match=r"version 2, this master reads version 1"):
        Journal(newer, lambda call: None)


def test_a_deleted_job_gives_its_disk_back(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    for first in range(0, 4000, 20):
        values = batch.pack([bytes(5000)] * 20)
        append(journal, owner, Entry(m.Chunked("j", first, 20, b""), values))
    full = journal.size()
    append(journal, owner, chunk(0, 5, job="kept"), Entry(m.Deleting("j", 1.0), b""))
    before = journal.read.execute("PRAGMA page_count").fetchone()[0]
    journal.purge("j")
    count = "SELECT count(*) FROM log"
    eventually(lambda: journal.read.execute(count).fetchone()[0] == 2, "the rows are gone")
    eventually(lambda: journal.read.execute("PRAGMA page_count").fetchone()[0] < before / 4, "and the pages")
    eventually(lambda: journal.size() < full / 2, "the files are shorter")
    assert journal.size() <= schema.AHEAD_BYTES + (1 << 20)
    journal.close()
    records = reopened(tmp_path / "journal.db")
    assert [type(entry).__name__ for entry in records] == ["Chunked", "Deleting"]


def test_a_log_that_cannot_be_laid_out_ahead_keeps_no_master_from_its_work(tmp_path: Path) -> None:
    """The process may write no file of that length, as on a disk with a quota."""
    code = (
        "import resource, sys, pathlib\n"
        "from taskyard_master.journal import Journal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "Journal(pathlib.Path(sys.argv[1]), lambda call: None).close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "journal.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "was not laid out" in done.stderr


def test_a_backup_is_a_journal(journal: Journal, owner: Owner, tmp_path: Path) -> None:
    append(journal, owner, chunk(0, 3))
    journal.backup(tmp_path / "copy.db")
    assert [type(entry).__name__ for entry in reopened(tmp_path / "copy.db")] == ["Chunked"]


@given(
    st.lists(
        st.tuples(st.sampled_from("jk"), st.booleans(), st.integers(1, 5)),
        min_size=1,
        max_size=30,
    )
)
def test_arranging_keeps_every_task_and_its_place(steps: list[tuple[str, bool, int]]) -> None:
    """Whatever is merged, each entry's tasks are found in its row at its offset."""
    submitted: dict[str, int] = {}
    ended: dict[str, int] = {}
    entries = []
    for job, is_chunk, count in steps:
        if is_chunk:
            entries.append(chunk(submitted.get(job, 0), count, job))
            submitted[job] = submitted.get(job, 0) + count
        else:
            entries.append(ending(ended.get(job, 0), count, job))
            ended[job] = ended.get(job, 0) + count
    rows, places = arrange(entries, [])
    for entry, (row, offset) in zip(entries, places, strict=True):
        record, found = entry.record, rows[row]
        assert isinstance(record, m.Chunked | m.Ending) and isinstance(found.record, m.Chunked | m.Ending)
        assert found.record.first + offset == record.first
        cut = batch.cut(found.block, found.record.count, offset, offset + record.count)
        assert batch.unpack(cut, record.count) == batch.unpack(entry.block, record.count)
    assert sum(getattr(row.record, "count", 0) for row in rows) == sum(count for _, _, count in steps)


def rows(journal: Journal, job: str) -> int:
    count: int = journal.read.execute("SELECT count(*) FROM log WHERE job = ?", (job,)).fetchone()[0]
    return count


def test_a_purge_rests_while_there_is_something_to_commit(
    journal: Journal, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are small, and the second has to wait for a pause."""
    monkeypatch.setattr(journal_module, "RESTS", 1e9)
    journal._stride = 10 / journal_module.PURGE_ROWS
    for index in range(50):
        append(journal, owner, chunk(2 * index, job="old"))
    stopped, going = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        stopped.set()
        going.wait(10)

    journal.aside(hold)
    assert stopped.wait(10)
    journal.purge("old")
    journal.append([(chunk(0), owner.settled)])  # is committed before the first step
    going.set()
    owner.run_until(51)
    for index in range(1, 20):
        append(journal, owner, chunk(index))
    assert rows(journal, "old") == 40


def test_a_purge_goes_on_by_itself_when_nothing_is_committed(journal: Journal, owner: Owner) -> None:
    journal._stride = 0.0
    for index in range(50):
        append(journal, owner, chunk(2 * index, job="old"))
    journal.purge("old")
    eventually(lambda: rows(journal, "old") == 0)


def test_a_mistake_in_the_journals_thread_ends_the_master_at_once(tmp_path: Path) -> None:
    """Without that thread every request would wait for ever; a new master goes on."""
    code = (
        "import pathlib, sys, time; from taskyard_master.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), lambda call: None)\n"
        "journal.start(); journal.aside(lambda connection: 1 / 0); time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "journal.db")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == EXIT_INTERNAL
    assert "start anew" in done.stderr and "ZeroDivisionError" in done.stderr
