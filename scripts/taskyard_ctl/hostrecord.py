"""What the master's host keeps about deploys: the lock, the versions, and who did what.

It is there and not here, so that whoever deploys from another machine sees the same. The lock
is a volume: making one with a name is one step of the engine, and its labels tell whose it is.
"""

import contextlib
import getpass
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from taskyard.errors import HostError
from taskyard_ctl.containers import base
from taskyard_ctl.engine import HostEngine
from taskyard_ctl.plan import KEPT, Version

AUDIT, VERSIONS = "audit.log", "versions.json"
AUDIT_BYTES = 1 << 20  # what is older is cut off
_TOKEN, _WHO, _SINCE, _WHY = "taskyard.lock", "taskyard.lock.who", "taskyard.lock.since", "taskyard.lock.why"


def me() -> str:
    """Who acts, for others to read."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"somebody@{socket.gethostname()}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Record:
    """The lock and the books of one yard."""

    def __init__(self, master: HostEngine) -> None:
        self._engine = master
        self._lock = f"{base(master.yard)}-lock"
        self._books = f"{base(master.yard)}-deploys"

    @contextlib.contextmanager
    def locked(self, why: str) -> Iterator[None]:
        """Nobody else deploys meanwhile; raises HostError that names who does."""
        token = secrets.token_hex(8)
        wanted = {_TOKEN: token, _WHO: me(), _SINCE: now(), _WHY: why}
        labels = self._engine.claim(self._lock, wanted)
        if labels.get(_TOKEN) != token:
            raise HostError(
                f"{self._engine.name}: {labels.get(_WHO, 'somebody')} has held the deploy lock since"
                f" {labels.get(_SINCE, '?')} ({labels.get(_WHY, '?')}): wait, or take it away with"
                " 'taskyard deploy --unlock' if that process is gone"
            )
        try:
            yield
        finally:
            with contextlib.suppress(HostError):  # a host that is gone: --unlock
                self._engine.remove_volume(self._lock)

    def unlock(self) -> str:
        """Take the lock away; returns whose it was, "" if nobody's."""
        for name, labels in self._engine.volumes():
            if name == self._lock:
                self._engine.remove_volume(name)
                return f"{labels.get(_WHO, 'somebody')}, since {labels.get(_SINCE, '?')}"
        return ""

    def versions(self, image: str) -> list[Version]:
        """Those that were deployed, the latest first; `image` is any that is there."""
        if not any(name == self._books for name, _ in self._engine.volumes()):
            return []
        content = self._engine.get(self._books, image, VERSIONS)
        return [
            Version(one["id"], one["master"], one["worker"], tuple(map(tuple, one.get("others", ()))))
            for one in json.loads(content or b"[]")
        ]

    def write(self, image: str, lines: list[str], versions: list[Version] | None = None) -> None:
        """Add lines to the audit log, and replace the list of versions."""
        old = self._engine.get(self._books, image, AUDIT) if self._there() else b""
        head = f"{now()} {me()} "
        added = "".join(f"{head}{line}\n" for line in lines).encode()
        files = {AUDIT: (old + added)[-AUDIT_BYTES:]}
        if versions is not None:
            files[VERSIONS] = json.dumps([asdict(version) for version in versions[: KEPT + 1]]).encode()
        self._engine.put(self._books, image, files)

    def audit(self, image: str) -> str:
        """The log so far."""
        return self._engine.get(self._books, image, AUDIT).decode() if self._there() else ""

    def _there(self) -> bool:
        return any(name == self._books for name, _ in self._engine.volumes())
