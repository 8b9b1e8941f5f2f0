"""What comes in at an open port that is nothing for it."""

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable
from functools import cache

from siege import PATIENCE

JUNK: dict[str, Callable[[random.Random], bytes]] = {
    "random": lambda draw: draw.randbytes(1 + draw.randrange(2000)),
    "HTTP": lambda draw: b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % draw.randrange(99),
    "TLS": lambda draw: draw.choice(tls_hellos()),
    "lengths": lambda draw: draw.choice(
        [struct.pack("!i", n) for n in (-2, -1, 257, 1 << 20, 0x7FFFFFFF)] + [struct.pack("!iQ", -1, 1 << 50)]
    ),
}


@cache
def tls_hellos() -> list[bytes]:
    """What browsers would say first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    said = []
    for number in range(20):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_hostname=f"host{number}").do_handshake()
        said.append(outgoing.read())
    return said


def heard(sock: socket.socket) -> bytes:
    """All that it gets to see."""
    data = b""
    sock.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(1 << 16):
            data += part
    return data


def nonsense(socks: list[socket.socket], draw: random.Random) -> list[bytes]:
    """Have all of them talk at once; what each got to see."""
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.send(draw.choice(list(JUNK.values()))(draw))
            sock.shutdown(socket.SHUT_WR)
    said = []
    for sock in socks:
        said.append(heard(sock))
        sock.close()
    return said
