"""A service in memory, for tests of the server alone: the same verbs, no journal, no rules about losses."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from taskyard.errors import GapError, RefusedError
from taskyard.messages import Backup, BackupPart, Hello, MasterStatus, Ok, Reply, Request, Status, Welcome
from taskyard.settings import Settings
from taskyard.tls_identity import Identity

STATUS = MasterStatus("", 0, "0", "3", 0.0, 1, "", "", 0, 0, 0, [])


class FakeService:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections: Callable[[], int] = lambda: -1
        self.ready: deque[tuple[int, bytes]] = deque()
        self.results: deque[bytes] = deque()
        self.leases: dict[int, tuple[Any, int, bytes]] = {}
        self.ended: list[Any] = []
        self.peers: list[Any] = []
        self.handled: list[Request] = []
        self.returned = 0  # tasks given back by connections that ended
        self.accepted = 0
        self.cancelled = 0
        self.waiting = 0  # plain requests that wait for a change
        self.fault: Exception | None = None  # what every plain request raises
        self.gate = asyncio.Event()  # what requests wait for
        self.gate.set()
        self._lease = 0
        self._changed: asyncio.Event | None = None

    # ------------------------------------------------------------ yard

    async def hello(self, peer: Any, hello: Hello) -> Welcome:
        self.peers.append(peer)
        if hello.name == "stranger":
            raise RefusedError("no strangers")
        return Welcome(0, STATUS, 30.0, [])

    async def handle(self, peer: Any, request: Request) -> Reply:
        self.handled.append(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(request, Backup):
            return BackupPart(0, b"x" * request.offset, 0, 0)
        if isinstance(request, Status) and request.job == "crash":
            raise ZeroDivisionError("/secret/path")
        if isinstance(request, Status) and request.job == "gap":
            raise GapError("the chunk starts too late", 7)
        return Ok(0)

    def invited(self, who: Identity, address: str) -> Reply:
        raise AssertionError("nobody comes to join")

    def close_gate(self) -> None:
        """Requests wait from now on."""
        self.gate = asyncio.Event()

    def open_gate(self) -> None:
        self.gate.set()

    def gone(self, peer: Any) -> None:
        self.ended.append(peer)
        mine = [lease for lease, held in self.leases.items() if held[0] is peer]
        for lease in reversed(mine):
            _, index, value = self.leases.pop(lease)
            self.ready.appendleft((index, value))
            self.returned += 1
        self._change()

    # ------------------------------------------------------------ plain

    async def plain_put(self, value: bytes, timeout: float | None) -> bool:
        if not await self._wait(lambda: not self._full(self.ready), timeout):
            return False
        self.ready.append((self.accepted, value))
        self.accepted += 1
        self._change()
        return True

    async def plain_get(self, peer: Any, timeout: float | None) -> tuple[int, int, bytes] | None:
        if not await self._wait(lambda: bool(self.ready), timeout):
            return None
        index, value = self.ready.popleft()
        self._lease += 1
        self.leases[self._lease] = (peer, index, value)
        self._change()
        return self._lease, index, value

    async def plain_settle(self, peer: Any, lease: int, value: bytes, timeout: float | None) -> bool:
        if not await self.plain_free(value, timeout):
            return False
        self.leases.pop(lease, None)
        self._change()
        return True

    async def plain_free(self, value: bytes, timeout: float | None) -> bool:
        if not await self._wait(lambda: not self._full(self.results), timeout):
            return False
        self.results.append(value)
        self._change()
        return True

    async def plain_done(self, peer: Any, lease: int) -> None:
        self.leases.pop(lease, None)
        self._change()

    async def plain_take(self, timeout: float | None) -> bytes | None:
        if not await self._wait(lambda: bool(self.results), timeout):
            return None
        value = self.results.popleft()
        self._change()
        return value

    def plain_counts(self) -> tuple[int, int, int]:
        return len(self.ready), len(self.ready) + len(self.leases), len(self.results)

    async def plain_join(self) -> None:
        await self._wait(lambda: not self.plain_counts()[1], None)

    # ------------------------------------------------------------ inside

    def _full(self, items: deque[Any]) -> bool:
        return 0 < self.settings.plain_maxsize <= len(items)

    def _change(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None

    async def _wait(self, true: Any, timeout: float | None) -> bool:
        if self.fault:
            raise self.fault
        if true():
            return True
        if timeout == 0:
            return False
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout):
                while not true():
                    if self._changed is None:
                        self._changed = asyncio.Event()
                    await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1
        return True
