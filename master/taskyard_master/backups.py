"""Copies of the journal that clients fetch in parts, while the master goes on."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from taskyard import messages as m
from taskyard.errors import StorageError, UsageError
from taskyard_master.journal import Journal
from taskyard_master.workers import Peer

COPIES = ".taskyard-backup-"  # folders beside the journal
PART = 4 << 20  # bytes


class Backups:
    """One copy a connection, gone with it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._copies: dict[str, Path] = {}  # by connection
        for left in journal.path.parent.glob(f"{COPIES}*"):  # by a master that was killed
            shutil.rmtree(left, ignore_errors=True)

    async def part(self, peer: Peer, request: m.Backup) -> m.Reply:
        """The first request makes a consistent copy beside the journal, the others read on in it.

        Whoever asks for the middle of a copy that is gone begins anew.
        """
        if request.offset == 0:
            await self._make(peer)
        path = self._copies.get(peer.id)
        if path is None:
            return m.BackupPart(request.seq, b"", 0, 0)
        try:
            size = path.stat().st_size
            if not 0 <= request.offset <= size:
                raise UsageError(f"the backup has {size} bytes and none at {request.offset}: begin anew")
            with path.open("rb") as copy:
                copy.seek(request.offset)
                data = copy.read(PART)
        except OSError as error:  # the same connection began another one meanwhile
            raise StorageError(f"no backup: {error}; begin anew") from error
        offset = request.offset + len(data)
        if offset >= size:
            self.drop(peer)
        return m.BackupPart(request.seq, data, offset, size)

    async def _make(self, peer: Peer) -> None:
        self.drop(peer)
        try:
            folder = Path(tempfile.mkdtemp(prefix=COPIES, dir=self._journal.path.parent))
            self._copies[peer.id] = folder / "journal.db"
            await asyncio.to_thread(self._journal.backup, folder / "journal.db")
        except OSError as error:
            raise StorageError(f"no backup: {error}; it needs room beside the journal") from error

    def drop(self, peer: Peer) -> None:
        """A connection needs its copy no more."""
        path = self._copies.pop(peer.id, None)
        if path is not None:
            shutil.rmtree(path.parent, ignore_errors=True)
