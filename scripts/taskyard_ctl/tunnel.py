"""A local plain port for scripts that know no TLS: their bytes go to the master over mutual TLS.

One connection here is one connection there; nothing is looked into, and what fails is that one connection
alone.
"""

import asyncio
import ipaddress
import os
import signal
import ssl
from collections.abc import Callable

from taskyard.errors import SettingsError, TaskyardError, UnreachableError
from taskyard.settings import Settings, split_address
from taskyard.tls_context import LiveContext
from taskyard.tls_faults import hung_up, refusal
from taskyard.tls_files import Files
from taskyard_ctl.legs import CHUNK, Leg, SecureLeg

PATIENCE_S = 10.0  # for the master's answer to a new connection


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
            await _both(local, master)
            if not master.heard:
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
                if master.heard:
                    self._said = ""

    def _tell(self, line: str) -> None:
        """Say it once: a script that dials again and again says the same each time."""
        if line != self._said:
            self._said = line
            self._say(line)


async def _both(local: Leg, master: Leg) -> None:
    """Carry bytes both ways until both have ended."""
    ways = [asyncio.ensure_future(_pump(local, master)), asyncio.ensure_future(_pump(master, local))]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()


async def _pump(source: Leg, sink: Leg) -> None:
    """Carry bytes one way until their end, and pass the end on."""
    while data := await source.read():
        await sink.write(data)
    await sink.finish()


def _stays_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    listen = listen or f"127.0.0.1:{settings.endpoint[1]}"
    address = await tunnel.start(listen)
    if not _stays_here(split_address(listen)[0]):
        say(f"{address} can be dialled from other hosts, and nothing is sealed on the way from them to here")
    ready(address)
    await stop.wait()
    await tunnel.stop()
