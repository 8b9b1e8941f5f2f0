"""A local plain port for scripts that know no TLS: their bytes go to the master over mutual TLS.

One connection here is one connection there; nothing is looked into, and what fails is that one connection
alone. The standard library writes twice and then reads, which costs 44 ms a connect where the kernel delays
its acknowledgements: both legs tell it not to, at each read.
"""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections import deque
from collections.abc import Callable

from taskyard.errors import SettingsError, TaskyardError, UnreachableError
from taskyard.settings import Settings, split_address
from taskyard.tls_context import LiveContext
from taskyard.tls_faults import hung_up, refusal
from taskyard.tls_files import Files

CHUNK = 1 << 16
PATIENCE_S = 10.0  # for the master's answer to a new connection
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3))


class Leg:
    """A TCP connection, as the pumps use it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sock: socket.socket = writer.get_extra_info("socket")
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                self._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        data = await self._reader.read(CHUNK)
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return data

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self) -> None:
        """Nothing more will be written; reading goes on."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


class SecureLeg(Leg):
    """The same under TLS; asyncio's own TLS cannot end one direction and go on reading."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str
    ) -> None:
        super().__init__(reader, writer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._ready: deque[bytes] = deque()  # read before it was asked for

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._feed()
            else:
                return await super().write(self._outgoing.read())

    async def read(self) -> bytes:
        while not self._ready:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # frames have lengths: a connection cut short is noticed by who reads them
        return self._ready.popleft()

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await super().write(self._outgoing.read())

    async def finish(self) -> None:
        # OpenSSL takes bytes that it has but did not give out yet for a fault when it says goodbye.
        with contextlib.suppress(ssl.SSLError):
            while data := self._tls.read(CHUNK):
                self._ready.append(data)
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # says goodbye, and wants to read the other's: that is `read`'s
        await super().write(self._outgoing.read())

    async def _feed(self) -> None:
        if self._outgoing.pending:
            await super().write(self._outgoing.read())
        data = await super().read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


class Tunnel:
    """Listens here and dials the master at `address`; `say` gets one line a new kind of failure."""

    def __init__(self, tls: LiveContext, address: str, say: Callable[[str], None]) -> None:
        self._tls = tls
        self._host, self._port = split_address(address)
        self._peer = f"the master at {address}"
        self._say = say
        self._said = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, listen: str) -> str:
        """Listen; returns the address, with the port that the system chose if `listen` says 0."""
        host, port = split_address(listen)
        try:
            self._server = await asyncio.start_server(self._come, host, port, limit=CHUNK)
        except OSError as fault:
            raise SettingsError(
                f"--listen {listen}: cannot listen: {_words(fault)}: choose another address"
            ) from fault
        return f"{listen.rpartition(':')[0]}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening, and cut what is open."""
        if self._server:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def try_out(self) -> None:
        """Reach the master once, so that a wrong certificate is known now; raises TaskyardError."""
        master = await self._dial()
        try:
            async with asyncio.timeout(PATIENCE_S):
                if not await master.read():
                    raise hung_up(self._peer)
        except OSError as fault:
            raise refusal(fault, self._peer) from fault
        finally:
            master.close()

    async def _dial(self) -> SecureLeg:
        try:
            self._tls.refresh()
        except SettingsError as fault:
            self._tell(str(fault))
        try:
            async with asyncio.timeout(PATIENCE_S):
                streams = await asyncio.open_connection(self._host, self._port, limit=CHUNK)
                master = SecureLeg(*streams, self._tls.context, self._host)
                try:
                    await master.shake_hands()
                except BaseException:
                    master.close()
                    raise
                return master
        except OSError as fault:
            raise refusal(fault, self._peer) from fault

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(Leg(reader, writer)))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _carry(self, local: Leg) -> None:
        """The life of one connection."""
        master: SecureLeg | None = None
        try:
            master = await self._dial()
            self._said = ""
            if not await _both(local, master):
                self._tell(str(hung_up(self._peer)))
        except TaskyardError as fault:
            self._tell(str(fault))
        except ssl.SSLError as fault:
            self._tell(str(refusal(fault, self._peer)))
        except OSError:
            pass  # one side is gone; the other learns it by the close
        finally:
            if master:
                master.close()

    def _tell(self, line: str) -> None:
        """Say it once: a script that dials again and again says the same each time."""
        if line != self._said:
            self._said = line
            self._say(line)


async def _both(local: Leg, master: Leg) -> int:
    """Carry bytes both ways until both have ended; returns how many the master sent."""
    ways = [asyncio.ensure_future(_pump(local, master)), asyncio.ensure_future(_pump(master, local))]
    try:
        return (await asyncio.gather(*ways))[1]
    finally:
        for way in ways:
            way.cancel()


async def _pump(source: Leg, sink: Leg) -> int:
    """Carry bytes one way until their end, and pass the end on; returns how many there were."""
    count = 0
    while data := await source.read():
        count += len(data)
        await sink.write(data)
    await sink.finish()
    return count


def _words(fault: OSError) -> str:
    """The system's own; asyncio wraps them into more."""
    return os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror or str(fault)


async def run(
    settings: Settings, listen: str, ready: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """Be a tunnel until SIGTERM or SIGINT; `ready` gets the address that it listens on."""
    files = Files.of(settings)
    if files is None:
        raise SettingsError(
            "TASKYARD_TLS_CA, _CERT and _KEY are not set: 'taskyard certs' makes the files; without TLS,"
            f" scripts can dial {settings.address} themselves"
        )
    tunnel = Tunnel(LiveContext(files, server=False), settings.address, say)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await tunnel.try_out()
    except UnreachableError as fault:
        say(f"{fault}; the tunnel waits for it")
    ready(await tunnel.start(listen or f"127.0.0.1:{settings.endpoint[1]}"))
    await stop.wait()
    await tunnel.stop()
