"""Looks whether the tasks folder has changed, and lists it anew when it has.

It looks every second, and besides whenever tasks come: who edits a function and then
requeues has the edit run, however quick that was. That look is a `stat` a file; only
where it finds a difference, tasks wait until the folder is read (`sure`).
"""

import asyncio
import contextlib
import logging
import sys
import time
from functools import partial
from pathlib import Path

from taskyard import environment, functions, log
from taskyard.errors import FunctionError, RequirementsError
from taskyard.scan import Listing, scan
from taskyard_worker.threads import in_thread

LOOK_SECONDS = 1.0
QUICK_SECONDS = 0.001  # what a look in the agent's own thread may take; the folder may be far away
YOUNG_SECONDS = 0.1  # an edit may follow another one so soon that the file's time is the same

logger = logging.getLogger(__name__)


class Watcher:
    """The tasks folder, what it offers, and the interpreter that has what it requires.

    `environments` is where requirements.txt is installed; None: the packages are there already.
    All that may take long is done in threads.
    """

    def __init__(self, folder: Path, environments: Path | None = None) -> None:
        self.folder = folder
        self.listing = Listing()
        self.python = sys.executable
        self.busy = False  # whether other processes work for us: imports, an installation
        self._environments = environments
        self._lacks = ""  # why requirements.txt is not installed
        self._stamp: functions.Stamp = ()
        self._young_until = 0.0  # Unix seconds; until then the stamp proves nothing
        self._far = False  # whether a look takes long
        self._doubts = 0  # how often `check` could not tell
        self._settled = 0  # how many of these doubts are over
        self._wake = asyncio.Event()
        self._stopped = False

    async def list(self) -> Listing:
        """Install what is required, import all modules and list their functions; raises FunctionError."""
        stamp = await self._look()
        self._stamp = ()  # nothing is known of it until it was read
        self.busy = True
        try:
            await self._prepare()
            work = partial(scan, self.folder, lambda: self._stopped, self.python)
            self.listing = await in_thread(work)
        finally:
            self.busy = False
        self._stamp = stamp
        for module, fault in self.listing.faults.items():
            log.event(
                logger, "module-not-imported", f"module {module} of {self.folder} is left out: {fault}",
                logging.WARNING, module=module,
            )  # fmt: skip
        return self.listing

    def check(self) -> None:
        """Tasks have come: if the folder may have changed, be not `sure` until it was read."""
        young = time.time() < self._young_until
        if young or self._far or not functions.unchanged(self._stamp):
            self._doubts += 1
            self._wake.set()

    @property
    def sure(self) -> bool:
        """Whether the folder was as listed when the latest tasks came."""
        return self._doubts == self._settled

    async def change(self) -> bool:
        """Wait for the next look at the folder; whether its content is another one, and listed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
        self._wake.clear()
        doubts, before = self._doubts, self.listing.digest
        try:
            stamp = await self._look()
            failed = self.listing.faults or self._lacks
            if stamp != self._stamp and (failed or await in_thread(self._digest) != before):
                await self.list()
            else:
                self._stamp = stamp
        except (FunctionError, OSError) as error:  # in the middle of being replaced
            log.event(logger, "tasks-not-read", f"the tasks folder cannot be read: {error}", logging.DEBUG)
        self._settled = doubts
        return self.listing.digest != before

    def stop(self) -> None:
        """Give up a listing that is under way."""
        self._stopped = True

    async def _look(self) -> functions.Stamp:
        """The folder's stamp; notes what it is worth."""

        def look() -> tuple[functions.Stamp, float]:
            stamp, times = functions.fingerprint(self.folder), [time.perf_counter()]
            for _ in range(2):  # the processor may be taken away during one
                functions.unchanged(stamp)
                times.append(time.perf_counter())
            return stamp, min(times[1] - times[0], times[2] - times[1])

        stamp, seconds = await in_thread(look)
        self._far = seconds > QUICK_SECONDS
        newest = max((changed for _, changed, _ in stamp), default=0) / 1e9
        until = newest + YOUNG_SECONDS
        self._young_until = until if newest <= time.time() < until else 0.0
        return stamp

    def _digest(self) -> str:
        return functions.digest(self.folder)

    async def _prepare(self) -> None:
        if self._environments is None:
            return
        try:
            work = partial(environment.python_for, self.folder, self._environments)
            self.python, self._lacks = await in_thread(work), ""
        except (RequirementsError, OSError) as error:
            self._lacks = str(error)
            log.event(logger, "requirements-not-installed", self._lacks, logging.WARNING)
