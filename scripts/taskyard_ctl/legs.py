"""The two connections of a tunnel, plain and under TLS, as its pumps use them.

The standard library writes twice and then reads, which costs 44 ms a connect where the kernel delays its
acknowledgements: a leg tells it not to, at each read.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque

CHUNK = 1 << 16
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
        self.heard = False  # the peer has said something

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
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # frames have lengths: a connection cut short is noticed by who reads them
            else:
                self.heard = self.heard or bool(data)
                return data
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
