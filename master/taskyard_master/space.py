"""Room for new tasks: a budget for the journal, and a reserve of the disk for what must never fail."""

import shutil
import time

from taskyard.errors import StorageError
from taskyard.settings import Settings
from taskyard_master.journal import Journal

LOOK_SECONDS = 0.5  # between two looks at the disk


class Space:
    """Whether the journal may grow by new tasks; outcomes, cancels and deletes are never asked."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._journal = journal
        self._budget: int = settings.disk
        self._reserve: int = settings.reserve
        self._looked = float("-inf")
        self._free = 0

    def check(self) -> None:
        """Raises StorageError, naming setting and cure, if there is no room."""
        if self._budget and self._journal.size() > self._budget:
            raise StorageError(
                f"the journal has reached its {self._budget} bytes (TASKYARD_DISK): delete old jobs"
            )
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked, self._free = now, shutil.disk_usage(self._journal.path.parent).free
        if self._free < self._reserve:
            raise StorageError(
                f"the disk of {self._journal.path} has less than {self._reserve} bytes left"
                " (TASKYARD_RESERVE): "
                "nothing was accepted; make room or delete old jobs"
            )
