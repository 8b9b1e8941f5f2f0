"""Looks whether the tasks folder has changed, and lists it anew when it has."""

import asyncio
import logging
from functools import partial
from pathlib import Path

from taskyard import functions, log
from taskyard.errors import FunctionError
from taskyard.scan import Listing, scan
from taskyard_worker.threads import in_thread

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Watcher:
    """The tasks folder and what it offers. All reading is done in threads: the folder may be far away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listing = Listing()
        self.busy = False  # whether modules are being imported, by processes of ours
        self._stamp: object = None
        self._stopped = False

    async def list(self) -> Listing:
        """Import all modules and list their functions; raises FunctionError."""
        self._stamp = await in_thread(partial(functions.fingerprint, self.folder))
        self.busy = True
        try:
            self.listing = await in_thread(partial(scan, self.folder, lambda: self._stopped))
        finally:
            self.busy = False
        for module, fault in self.listing.faults.items():
            log.event(
                logger, "module-not-imported", f"module {module} of {self.folder} is left out: {fault}",
                logging.WARNING, module=module,
            )  # fmt: skip
        return self.listing

    async def change(self) -> Listing:
        """Wait until the content of the folder has changed, and list it."""
        before = self.listing.digest
        while self.listing.digest == before:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stamp = await in_thread(partial(functions.fingerprint, self.folder))
                if stamp != self._stamp:
                    await self.list()
            except (FunctionError, OSError) as error:  # in the middle of being replaced
                log.event(
                    logger, "tasks-not-read", f"the tasks folder cannot be read: {error}", logging.DEBUG
                )
        return self.listing

    def stop(self) -> None:
        """Give up a listing that is under way."""
        self._stopped = True
