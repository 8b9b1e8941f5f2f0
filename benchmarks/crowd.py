"""`python benchmarks/crowd.py PORT COUNT`: so many idle workers in one process, connections only.

Each says hello in the yard dialect, asks for tasks and beats as a worker does, and dials again
when its connection ends. Prints "joined SECONDS" whenever all of them have joined, counted from
the first attempt.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "core")]

from taskyard import messages as m  # noqa: E402
from taskyard.frames import ClientHandshake, Framer, encode  # noqa: E402

BEAT = 10.0  # seconds, as a worker does with TASKYARD_LEASE=30
ATTEMPTS = 64  # connections that are being made at one time
PAUSE = 0.1  # before another attempt


class Idler(asyncio.Protocol):
    """One worker that never gets a task."""

    def __init__(self, crowd: "Crowd", number: int) -> None:
        self.crowd = crowd
        self.number = number
        self.ended = crowd.loop.create_future()
        self.welcomed = crowd.loop.create_future()
        self.handshake = ClientHandshake(crowd.key)
        self.framer = Framer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, payload: bytes) -> None:
        self.transport.write(encode(payload))

    def data_received(self, data: bytes) -> None:
        for payload in self.framer.feed(data):
            if not self.handshake.done:
                for reply in self.handshake.receive(payload):
                    self.send(reply)
                if self.handshake.done:
                    self.framer.limit = 1 << 20
                    name = f"idle-{self.number}"
                    hello = m.Hello(0, "worker", name, "crowd", os.getpid(), name, "0", "3", slots=1,
                                    functions=["idle:nothing"], digest="crowd")  # fmt: skip
                    self.send(m.GREETING + m.encode(hello))
            elif not self.welcomed.done():
                if not isinstance(m.decode_reply(payload), m.Welcome):
                    self.transport.abort()
                    return
                self.welcomed.set_result(None)
                self.send(m.encode(m.Lease(1, 1)))

    def beat(self) -> None:
        self.send(m.encode(m.Beat(2, [])))

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.ended, self.welcomed):
            if not future.done():
                future.set_result(None)


class Crowd:
    def __init__(self, port: int, count: int, key: bytes) -> None:
        self.port = port
        self.count = count
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.turns = asyncio.Semaphore(ATTEMPTS)
        self.there: set[int] = set()
        self.since = time.perf_counter()

    async def live(self, number: int) -> None:
        """One worker, for ever."""
        while True:
            idler = await self._join(number)
            if idler is None:
                await asyncio.sleep(PAUSE)
                continue
            self.there.add(number)
            if len(self.there) == self.count:
                sys.stdout.write(f"joined {time.perf_counter() - self.since}\n")
                sys.stdout.flush()
            while not idler.ended.done():
                await asyncio.wait([idler.ended], timeout=BEAT)
                if not idler.ended.done():
                    idler.beat()
            if len(self.there) == self.count:
                self.since = time.perf_counter()
            self.there.discard(number)

    async def _join(self, number: int) -> Idler | None:
        async with self.turns:
            idler = Idler(self, number)
            with contextlib.suppress(OSError):
                await self.loop.create_connection(lambda: idler, "127.0.0.1", self.port)
                await idler.welcomed
                if not idler.ended.done():
                    return idler
        return None


async def main() -> None:
    crowd = Crowd(int(sys.argv[1]), int(sys.argv[2]), os.environ["TASKYARD_AUTHKEY"].encode())
    await asyncio.gather(*(crowd.live(number) for number in range(crowd.count)))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
