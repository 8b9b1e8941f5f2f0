"""Copies of the journal: one at a time, with room for it, and nothing left of one that nobody wants."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import eventually

from taskyard.errors import StorageError
from taskyard.messages import Backup, BackupPart
from taskyard_master import backups
from taskyard_master.backups import COPIES, HELD, Backups


class Journal:
    """One whose copying can be held."""

    def __init__(self, folder: Path, size: int = 10) -> None:
        self.path = folder / "journal.db"
        self.go = threading.Event()
        self.go.set()
        self.fault: Exception | None = None
        self._size = size

    def size(self) -> int:
        return self._size

    def backup(self, target: Path) -> None:
        assert self.go.wait(20)
        if self.fault:
            raise self.fault
        target.write_bytes(b"x" * self._size)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def peer(name: str) -> Any:
    return SimpleNamespace(id=name, address=f"{name}:1")


def copies(folder: Path) -> list[Path]:
    return list(folder.glob(f"{COPIES}*"))


A, B = peer("a"), peer("b")


async def part(it: Backups, who: Any, offset: int = 0) -> BackupPart:
    reply = await it.part(who, Backup(0, offset))
    assert isinstance(reply, BackupPart)
    return reply


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "PART", 4)


def test_there_is_one_copy_at_a_time_and_who_comes_second_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        it = Backups(Journal(tmp_path), 0)
        assert (await part(it, A)).offset == 4
        for _ in range(3):
            with pytest.raises(StorageError, match="a:1 fetches one"):
                await part(it, B)
        assert len(copies(tmp_path)) == 1
        assert (await part(it, B, 4)).size == 0  # it has none, and would begin anew
        assert (await part(it, A, 8)).offset == 10
        assert copies(tmp_path) == []
        assert (await part(it, B)).offset == 4
        it.drop(B)
        assert copies(tmp_path) == []

    asyncio.run(work())


def test_who_asks_again_and_again_has_one_copy(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal(tmp_path)
        it = Backups(journal, 0)
        for _ in range(5):
            await part(it, A)
            assert len(copies(tmp_path)) == 1
        journal.go.clear()
        first = asyncio.create_task(part(it, A))
        await asyncio.sleep(0)
        for offset in (0, 4):  # while the first is being made
            with pytest.raises(StorageError):
                await part(it, A, offset)
        journal.go.set()
        assert (await first).offset == 4
        assert len(copies(tmp_path)) == 1

    asyncio.run(work())


def test_a_copy_that_is_not_read_gives_way(tmp_path: Path) -> None:
    async def work() -> None:
        clock = Clock()
        it = Backups(Journal(tmp_path), 0, clock)
        await part(it, A)
        clock.now = HELD + 1
        assert (await part(it, B)).offset == 4
        assert len(copies(tmp_path)) == 1
        assert (await part(it, A, 4)).size == 0

    asyncio.run(work())


def test_a_copy_needs_room_beside_the_journal(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(StorageError, match="TASKYARD_RESERVE"):
            await part(Backups(Journal(tmp_path), 1 << 60), A)
        with pytest.raises(StorageError, match="make room"):
            await part(Backups(Journal(tmp_path, 1 << 60), 0), A)
        assert copies(tmp_path) == []

    asyncio.run(work())


def test_nothing_is_left_of_a_copy_that_failed_or_whose_peer_went(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal(tmp_path)
        it = Backups(journal, 0)
        for fault in (OSError("no room"), StorageError("damaged")):
            journal.fault = fault
            with pytest.raises(StorageError, match=str(fault)):
                await part(it, A)
            assert copies(tmp_path) == []
        journal.fault = None
        journal.go.clear()
        asking = asyncio.create_task(part(it, A))
        await asyncio.sleep(0)
        assert len(copies(tmp_path)) == 1
        asking.cancel()
        it.drop(A)
        await asyncio.gather(asking, return_exceptions=True)
        with pytest.raises(StorageError, match="one at a time"):
            await part(it, B)  # the thread still writes
        journal.go.set()
        await asyncio.to_thread(lambda: None)
        while copies(tmp_path):
            await asyncio.sleep(0)
        assert (await part(it, B)).offset == 4

    asyncio.run(asyncio.wait_for(work(), 20))


def test_what_a_killed_master_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{COPIES}old").mkdir()
    (tmp_path / f"{COPIES}old" / "journal.db").write_bytes(b"x")
    Backups(Journal(tmp_path), 0)
    eventually(lambda: not copies(tmp_path))
