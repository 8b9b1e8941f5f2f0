"""Peers that are up to no good with a real master, and what that costs the master."""

import contextlib
import os
import pickle
import socket
import ssl
from pathlib import Path
from typing import Any

from lab import KEY, Lab
from serving import PATIENCE, Raw

from taskyard.frames import Framer

MIB = 1 << 20


class Stranger(Raw):
    """A peer from an address of its own, so that the caps for one address are about it alone."""

    def __init__(self, lab: Lab, source: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", lab.port), PATIENCE, source_address=(source, 0))
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.framer = Framer(1 << 30)

    def prove(self, key: str = KEY) -> "Stranger":
        super().prove(key)
        return self

    def first(self, name: str, *args: Any, **kwds: Any) -> Any:
        """Make a first request; what comes back, None if nothing does."""
        self.send(pickle.dumps((None, name, args, kwds)))
        reply = self.read()
        return None if reply is None else pickle.loads(reply)

    def call(self, queue: Any, method: Any, *args: Any, **kwds: Any) -> Any:
        """A call of a queue's method, on a connection for calls; (kind, value)."""
        self.send(pickle.dumps((queue, method, args, kwds)))
        reply = self.read()
        return None if reply is None else pickle.loads(reply)

    def for_calls(self) -> "Stranger":
        self.prove()
        assert self.first("accept_connection", "x") == ("#RETURN", None)
        return self


def memory(process: int | str = "self") -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(lab: Lab) -> int:
    """How many the master has open."""
    assert lab.master
    return len(list(Path(f"/proc/{lab.master.pid}/fd").iterdir()))


def sockets(lab: Lab) -> int:
    """How many of them are sockets."""
    assert lab.master
    count = 0
    for descriptor in Path(f"/proc/{lab.master.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed just now
            count += str(descriptor.readlink()).startswith("socket:")
    return count
