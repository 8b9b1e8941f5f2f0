"""Counts what goes between a master and its peers, from outside: a relay that understands frames."""

import selectors
import socket
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from taskyard.frames import Framer

PIECE = 1 << 18


@dataclass
class Counts:
    """Frames by the name of their message, and bytes, headers included."""

    frames: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)


class Wiretap:
    """Listens on a port of its own and relays to the master; `counts` grows meanwhile."""

    def __init__(self, master: tuple[str, int]) -> None:
        self.counts = Counts()
        self._master = master
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._server.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._others: dict[socket.socket, tuple[socket.socket, Framer]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"\0")
        self._thread.join()
        for one in (*self._others, self._server, self._wake, self._woken):
            one.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._server:
                    self._accept()
                elif key.fileobj in self._others:  # the other side may have ended in this round
                    assert isinstance(key.fileobj, socket.socket)
                    self._relay(key.fileobj)

    def _accept(self) -> None:
        peer, _ = self._server.accept()
        master = socket.create_connection(self._master)
        for one, other in ((peer, master), (master, peer)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._others[one] = other, Framer(1 << 30)
            self._selector.register(one, selectors.EVENT_READ)

    def _relay(self, source: socket.socket) -> None:
        other, framer = self._others[source]
        with suppress(OSError):
            if data := source.recv(PIECE):
                for frame in framer.feed(data):
                    name = name_of(frame)
                    self.counts.frames[name] += 1
                    self.counts.sizes[name] += len(frame) + 4
                other.sendall(data)
                return
        for one in (source, other):
            self._selector.unregister(one)
            del self._others[one]
            one.close()


def name_of(frame: bytes) -> str:
    """The name of a message of the yard dialect; "" for the handshake and the first frame."""
    try:
        message = msgspec.msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return str(message[0]) if isinstance(message, list) else ""
