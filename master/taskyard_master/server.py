"""The master's port: who comes in, and that it keeps coming in whatever happens.

Connections are accepted here and not by asyncio's own server, for three reasons: the caps apply before
anything is spent on a stranger (TLS above all), the port survives having no descriptor left, and TLS
handshakes are counted like everything else.
"""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import socket
from itertools import count

from taskyard.errors import SettingsError
from taskyard.settings import Settings
from taskyard.tls_context import LiveContext
from taskyard.tls_files import Files
from taskyard_master.common import Common
from taskyard_master.connection import Connection
from taskyard_master.limits import Admission, Complaints, Door, group
from taskyard_master.peers import Dialect, Peer, Verbs
from taskyard_master.plain_dialect import PlainDialect
from taskyard_master.plain_queues import Queues
from taskyard_master.sealing import follow, not_let_in
from taskyard_master.watch import Watch
from taskyard_master.yard_dialect import FAMILY, YardDialect

log = logging.getLogger(__name__)

_BACKLOG = 4096
_PAUSE = 0.25  # seconds without accepting when the machine can't
_FLUSH = 2.0  # seconds for what was written last, when the server stops
# A host that vanished is noticed after 15 to 18 s, whether something waits to be sent to it or not; for a
# peer that reads nothing the kernel keeps little. Not every system has all of these.
_OPTIONS = (
    ("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 15_000),
    ("TCP_NOTSENT_LOWAT", 1 << 17),
)  # fmt: skip


class Server:
    """One port, both dialects, on top of a service; `start` and `stop` run in the loop that serves."""

    def __init__(self, service: Verbs, settings: Settings) -> None:
        self.address = ""  # where it listens, with the port that the system chose if ADDRESS says 0
        self._endpoint: tuple[str, int] = settings.endpoint
        self._service = service
        files = Files.of(settings)
        self._tls = LiveContext(files, server=True, greeted=self._began_tls) if files else None
        self._loop = loop = asyncio.get_running_loop()
        self._handshake = max(0.1, settings.handshake)
        self._common = Common(
            loop=loop,
            authkey=settings.authkey,
            allow_md5=settings.allow_md5,
            handshake_seconds=self._handshake,
            frame_limit=settings.frame,
            output_limit=settings.output,
            watch=Watch(loop, min(0.25, self._handshake / 4)),
            admission=Admission(settings.connections, settings.connections_per_address),
            complaints=Complaints(log),
            door=Door(tls=self._tls is not None),
            choose=self._choose,
            invited=service.invited,
        )
        self._queues = Queues(service, settings)
        service.connections = lambda: self.connections
        self._run = secrets.token_hex(4)
        self._numbers = count(1)
        self._listeners: list[socket.socket] = []
        self._arriving: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None  # of the files of TLS
        self._spare = -1  # a descriptor to give up when there are no others

    @property
    def connections(self) -> int:
        return self._common.admission.count

    async def start(self) -> None:
        """Listen; raises SettingsError if that is not possible at ADDRESS."""
        host, port = self._endpoint
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, where in dict.fromkeys(found):
                self._listeners.append(_listen(family, (where[0], port or where[1], *where[2:])))
                port = port or self._listeners[0].getsockname()[1]
        except OSError as fault:
            self._close_listeners()
            raise SettingsError(
                f"TASKYARD_ADDRESS: cannot listen on {host}:{port}: {fault.strerror or fault}:"
                " end what uses the port, or choose another"
            ) from fault
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._spare = os.open(os.devnull, os.O_RDONLY)
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
        if self._tls:
            self._following = self._loop.create_task(follow(self._tls, self._common.open))

    async def stop(self) -> None:
        """Close the port, then the connections; each peer's end has reached the service when it returns."""
        self._close_listeners()
        if self._following:
            self._following.cancel()
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        ended = asyncio.Event()
        self._common.emptied = ended.set
        for step in (Connection.finish, Connection.cut_off):
            for connection in list(self._common.open):
                step(connection)
            if self._common.open:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _FLUSH)
        self._common.watch.stop()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket) -> None:
        while not (shut := self._common.door.shut()):
            try:
                sock, where = listener.accept()
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionError:
                continue  # it has gone already
            except OSError as fault:
                return self._cannot_accept(listener, fault)
            address = f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"{where[0]}:{where[1]}"
            origin = group(where[0])
            refusal = self._common.admission.enter(origin)
            self._common.door.passed(turned_away=bool(refusal))
            if refusal:
                self._common.complaints.say("peer-turned-away", f"{address} was turned away: {refusal}")
                sock.close()
                continue
            connection = Connection(self._common, sock, address, origin)
            connection.enter()
            task = self._loop.create_task(self._arrive(connection, sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
        return self._rest(listener, shut)

    async def _arrive(self, connection: Connection, sock: socket.socket) -> None:
        try:
            _tune(sock)
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls.context if self._tls else None,
                ssl_handshake_timeout=self._handshake if self._tls else None,
                ssl_shutdown_timeout=self._handshake if self._tls else None,
            )
        except OSError as fault:
            connection.left(failed=True)
            sock.close()
            # The health probe, too, only looks whether somebody accepts, every two seconds.
            probed = isinstance(fault, ConnectionResetError) and connection.address.startswith("127.0.0.1:")
            if not probed:
                self._common.complaints.say("peer-refused", not_let_in(fault, connection.address))
        except asyncio.CancelledError:
            connection.left()
            raise

    def _began_tls(self, *_: object) -> None:
        """OpenSSL has read a hello, with a name in it or without, and does the arithmetic next."""
        self._common.door.began_tls()

    def _cannot_accept(self, listener: socket.socket, fault: OSError) -> None:
        """Too few descriptors, or too little memory: turn one away if that is possible, and go on.

        Left alone, the waiting connection would wake us again at once, for ever.
        """
        self._common.complaints.say(
            "port-exhausted",
            f"connections cannot be accepted: {fault.strerror}: raise the limit of open files (ulimit -n),"
            " or lower TASKYARD_CONNECTIONS",
            logging.ERROR,
        )
        if self._spare >= 0 and fault.errno in (errno.EMFILE, errno.ENFILE):
            os.close(self._spare)
            self._spare = -1
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
            if self._spare >= 0:
                return
        self._rest(listener, _PAUSE)

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._accept_again, listener)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener not in self._listeners:
            return
        if self._spare < 0:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        self._loop.add_reader(listener, self._accept, listener)

    def _choose(self, link: Connection, frame: bytes) -> Dialect:
        peer = Peer(f"{self._run}.{next(self._numbers)}", link)
        if frame.startswith(FAMILY):
            return YardDialect(link, self._service, peer, self._loop)
        return PlainDialect(link, self._queues, peer, self._loop)


def _listen(family: int, where: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
