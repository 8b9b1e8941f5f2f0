"""A server in a thread of its own, with a service that tests can look into, and raw peers for it."""

import asyncio
import pickle
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvloop
from fake_service import FakeService

from taskyard.frames import ClientHandshake, Framer, encode
from taskyard.messages import GREETING, Hello, Welcome, decode_reply
from taskyard.messages import encode as encode_message
from taskyard.settings import Settings
from taskyard_master.__main__ import load
from taskyard_master.journal import Journal
from taskyard_master.server import Server
from taskyard_master.service import Service

KEY = "0123456789abcdef"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PATIENCE = 15.0  # seconds for what should take milliseconds, on a machine that is busy


Maker = Callable[[Settings], AbstractAsyncContextManager[Any]]
Wrap = Callable[[socket.socket], socket.socket]  # TLS, around a socket that is connected


@asynccontextmanager
async def in_memory(settings: Settings) -> AsyncIterator[FakeService]:
    """A service that tests can look into."""
    yield FakeService(settings)


@asynccontextmanager
async def journaled(settings: Settings) -> AsyncIterator[Service]:
    """The real service, wired as the master wires it."""
    loop = asyncio.get_running_loop()
    journal = Journal(Path(settings.journal), loop.call_soon_threadsafe)
    try:
        ledger = load(journal, settings)
        journal.start()
        ledger.rearm(time.monotonic())
        service = Service(settings, journal, ledger, loop)
        await service.plain.start()
        keeping = asyncio.create_task(service.housekeeping())
        yield service
        service.stop()
        keeping.cancel()
    finally:
        await asyncio.to_thread(journal.close)


class Serving:
    """A server in a loop in a thread."""

    service: Any
    server: Server

    def __init__(self, loop_name: str, settings: Settings, maker: Maker) -> None:
        self.loop = LOOPS[loop_name]()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        try:
            self.run(self._start(settings, maker))
        except BaseException:
            self.stop()
            raise
        self.host, _, port = self.server.address.rpartition(":")
        self.port = int(port)

    async def _start(self, settings: Settings, maker: Maker) -> None:
        self.service = await self._stack.enter_async_context(maker(settings))
        self.server = Server(self.service, settings)
        self._stack.push_async_callback(self.server.stop)
        await self.server.start()

    def stop(self) -> None:
        self.run(self._stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        async def work() -> Any:
            return function(*args)

        return self.run(work())

    def counts(self) -> tuple[int, int, int]:
        """Ready tasks, unfinished tasks, results not taken."""
        found: tuple[int, int, int] = self.call(self.service.plain_counts)
        return found


@contextmanager
def serving(loop_name: str = "uvloop", *, maker: Maker = in_memory, **settings: object) -> Iterator[Serving]:
    """Serve until the block ends; settings by their names without TASKYARD_, in lower case."""
    environ = {"TASKYARD_AUTHKEY": KEY, "TASKYARD_ADDRESS": "127.0.0.1:0"}
    environ |= {f"TASKYARD_{name.upper()}": str(value) for name, value in settings.items()}
    served = Serving(loop_name, Settings.from_env(environ), maker)
    try:
        yield served
    finally:
        served.stop()


class Raw:
    """A peer that says what it is told to, byte by byte if need be."""

    def __init__(self, served: Serving, wrap: Wrap | None = None) -> None:
        self.sock = socket.create_connection(served.address, PATIENCE)
        if wrap:
            self.sock = wrap(self.sock)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.framer = Framer(1 << 30)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, payload: bytes) -> None:
        self.sock.sendall(encode(payload))

    def read(self) -> bytes | None:
        """The next frame; None at the end of the connection, however it comes."""
        while True:
            frame = next(self.framer, None)
            if frame is not None:
                return frame
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionError:
                return None
            if not data:
                return None
            self.framer.feed(data)

    def rest(self) -> list[bytes]:
        """All frames until the connection ends."""
        return list(iter(self.read, None))

    def prove(self, key: str = KEY) -> "Raw":
        """Do the handshake, as a modern peer does."""
        handshake = ClientHandshake(key.encode())
        try:
            while not handshake.done:
                payload = self.read()
                assert payload is not None, "the connection ended in the handshake"
                for reply in handshake.receive(payload):
                    self.send(reply)
        except BaseException:
            self.sock.close()
            raise
        return self

    def reset(self) -> None:
        """End without a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def greet(self, name: str = "w1") -> Welcome:
        self.send(GREETING + encode_message(hello(name)))
        reply = self.reply()
        assert isinstance(reply, Welcome)
        return reply

    def ask(self, request: Any) -> Any:
        self.send(encode_message(request))
        return self.reply()

    def reply(self) -> Any:
        frame = self.read()
        assert frame is not None, "the connection ended"
        return decode_reply(frame)


def hello(name: str = "w1") -> Hello:
    return Hello(1, "client", name, "h", 1, "b", "0", "3")


class Caller(Raw):
    """A plain peer that says exactly what a test wants; it trusts the master, as stdlib clients do."""

    def __init__(self, served: Serving, wrap: Wrap | None = None) -> None:
        super().__init__(served, wrap)
        self.prove()
        assert self.request(None, "accept_connection", "MainProcess|MainThread") == ("#RETURN", None)

    def say(self, first: Any, name: str, *args: Any, **kwds: Any) -> None:
        self.send(pickle.dumps((first, name, args, kwds)))

    def hear(self) -> Any:
        frame = self.read()
        assert frame is not None, "the connection ended"
        return pickle.loads(frame)

    def request(self, first: Any, name: str, *args: Any, **kwds: Any) -> Any:
        self.say(first, name, *args, **kwds)
        return self.hear()

    def call(self, queue: str, method: str, *args: Any, **kwds: Any) -> Any:
        """As a proxy does: return what was returned, raise what was raised."""
        kind, value = self.request(f"get_{queue}", method, *args, **kwds)
        if kind == "#ERROR":
            raise value
        assert kind == "#RETURN", value
        return value


def first_request(served: Serving, name: str, *args: Any, **kwds: Any) -> Any:
    """The reply to a first request, after which the master has closed the connection."""
    with Raw(served).prove() as peer:
        peer.send(pickle.dumps((None, name, args, kwds)))
        (reply,) = peer.rest()
        return pickle.loads(reply)
