"""Copies of the journal that clients fetch in parts, while the master goes on."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskyard import messages as m
from taskyard.errors import StorageError, UsageError
from taskyard_master.journal import Journal
from taskyard_master.workers import Peer

COPIES = ".taskyard-backup-"  # folders beside the journal
PART = 4 << 20  # bytes
HELD = 60.0  # seconds that a copy of which nothing is read is kept from others


@dataclass(slots=True)
class _Copy:
    peer: Peer
    path: Path
    made: "asyncio.Future[None]"
    read: float  # when somebody last read of it


class Backups:
    """One copy at a time, gone with its connection: a copy takes as much of the disk as the journal."""

    def __init__(self, journal: Journal, reserve: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._reserve = reserve  # bytes of the disk that a copy leaves free
        self._clock = clock
        self._copy: _Copy | None = None
        for left in journal.path.parent.glob(f"{COPIES}*"):  # by a master that was killed
            shutil.rmtree(left, ignore_errors=True)

    async def part(self, peer: Peer, request: m.Backup) -> m.Reply:
        """The first request makes a consistent copy beside the journal, the others read on in it.

        Whoever asks for the middle of a copy that is gone begins anew.
        """
        if request.offset == 0:
            await self._make(peer)
        copy = self._copy
        if copy is None or copy.peer is not peer:
            return m.BackupPart(request.seq, b"", 0, 0)
        if not copy.made.done():
            raise StorageError(
                "no backup: the copy is still being made: wait for the answer to the first request"
            )
        copy.read = self._clock()
        try:
            size = copy.path.stat().st_size
            if not 0 <= request.offset <= size:
                raise UsageError(f"the backup has {size} bytes and none at {request.offset}: begin anew")
            with copy.path.open("rb") as file:
                file.seek(request.offset)
                data = file.read(PART)
        except OSError as error:
            raise StorageError(f"no backup: {error}; begin anew") from error
        offset = request.offset + len(data)
        if offset >= size:
            self.drop(peer)
        return m.BackupPart(request.seq, data, offset, size)

    async def _make(self, peer: Peer) -> None:
        self._give_way(peer)
        try:
            size, free = self._journal.size(), shutil.disk_usage(self._journal.path.parent).free
            if size + self._reserve > free:
                raise StorageError(
                    f"no backup: a copy needs {size} bytes beside the journal, and the disk has {free},"
                    f" of which {self._reserve} stay free (TASKYARD_RESERVE): make room"
                )
            path = Path(tempfile.mkdtemp(prefix=COPIES, dir=self._journal.path.parent)) / "journal.db"
        except OSError as error:
            raise StorageError(f"no backup: {error}; it needs room beside the journal") from error
        made = asyncio.get_running_loop().run_in_executor(None, self._journal.backup, path)
        self._copy = _Copy(peer, path, made, self._clock())
        try:
            await asyncio.shield(made)  # whoever asked may go meanwhile: the thread goes on to its end
        except OSError as error:
            self.drop(peer)
            raise StorageError(f"no backup: {error}; it needs room beside the journal") from error
        except BaseException:
            self.drop(peer)
            raise

    def _give_way(self, peer: Peer) -> None:
        """Drop the copy that there is, or raise StorageError if somebody is busy with it."""
        copy = self._copy
        if copy is None:
            return
        if not copy.made.done() or (copy.peer is not peer and self._clock() - copy.read < HELD):
            raise StorageError(
                f"no backup: {copy.peer.address} fetches one, and there is one at a time: try again later"
            )
        self.drop(copy.peer)

    def drop(self, peer: Peer) -> None:
        """A connection needs its copy no more."""
        copy = self._copy
        if copy is not None and copy.peer is peer and copy.made.done():
            self._copy = None
            shutil.rmtree(copy.path.parent, ignore_errors=True)
        elif copy is not None and copy.peer is peer:
            copy.made.add_done_callback(lambda _: self.drop(peer))
