"""One connection: bytes to frames, the handshake, the limits; what frames mean is the dialect's.

    accepted -> (TLS) -> handshake -> first frame -> yard or plain -> ended

There is no task for an idle connection and no timer of its own: deadlines are seconds in `Watch`, which
one timer of the server looks at. A peer that has not proved the key gets the handshake's own words and
nothing else. (More than 300 lines, because it is one state: what is read waits for what is written.)
"""

import asyncio
import contextlib
import logging
import socket
from typing import cast

from taskyard import messages
from taskyard.errors import ProtocolError, RefusedError, TaskyardError
from taskyard.frames import Framer, ServerHandshake, encode, header
from taskyard.tls_identity import Identity, peer_name
from taskyard_master.common import Common
from taskyard_master.limits import Faults
from taskyard_master.peers import Dialect

log = logging.getLogger(__name__)

FIRST_LIMIT = 1 << 20  # bytes in the first frame after the handshake: a hello names all leases held
PART_SECONDS = 30.0  # a frame that has begun may take so long, and longer as its bytes come:
PART_RATE = 1 << 16  # bytes a second
READ_SECONDS = 15.0  # in which a peer for whom much waits has to read some of it
_AHEAD = 1 << 16  # bytes that a peer may send ahead while its requests are being worked on
_TURN = 8  # frames of one peer before others, and the replies to these, have their turn
_OUTPUT_HIGH = 1 << 17  # bytes of waiting output at which nothing more is read from that peer
_JOINED = 1 << 16  # a payload up to this size is put behind its header in one write
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class Connection(asyncio.Protocol):
    """A peer's bytes, both ways."""

    __slots__ = (
        "_ahead", "_choked", "_common", "_dialect", "_ending", "_faults", "_framer", "_group", "_handshake",
        "_left", "_paused", "_quick", "_room", "_slowed", "_transport", "_turn", "address",
        "digest", "heard", "identity",
    )  # fmt: skip

    def __init__(self, common: Common, sock: socket.socket, address: str, group: str) -> None:
        self.address = address  # for people: host:port
        self.digest = ""  # how the peer proved the key; empty before that
        self.heard = 0.0  # the loop's time when bytes last came
        self.identity: Identity | None = None  # who its certificate says it is, with TLS
        self._group = group
        self._common = common
        self._quick: socket.socket | None = sock if _QUICKACK is not None else None
        self._framer = Framer()
        self._handshake: ServerHandshake | None = ServerHandshake(common.authkey, common.allow_md5)
        self._dialect: Dialect | None = None
        self._transport: asyncio.Transport
        self._ahead = 0  # bytes that came while no frame could be taken
        self._paused = False  # reading is
        self._choked = False  # the peer does not read what it is sent
        self._left = 0  # bytes that waited for it when that was last looked at
        self._room: asyncio.Event | None = None  # set when it does again, if somebody waits for that
        self._turn = False  # the next frames have to wait for their turn
        self._faults: Faults | None = None  # its requests that were refused, if any
        self._slowed = False  # there were so many that the next has to wait
        self._ending = False

    # ------------------------------------------------------------ of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none, and does the same
        self._transport.set_write_buffer_limits(high=_OUTPUT_HIGH)
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.identity = peer_name(tls)
        self._common.watch.set(self, self._common.loop.time() + self._common.handshake_seconds)
        if self.identity is not None and self.identity.once:
            self._handshake = None
            self.send(messages.encode(self._common.invited(self.identity, self.address)))
            self.finish()
        elif self._handshake:
            self.send(self._handshake.first())

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self.heard = self._common.loop.time()
        self._framer.feed(data)
        self._cut(len(data))
        if self._quick is not None and (self._framer.waiting or not self._dialect):
            # The standard library writes a long frame in two parts, and its first request right behind the
            # handshake. Nagle's algorithm holds the second part until the first is acknowledged, and the
            # kernel delays that by 44 ms unless told each time.
            with contextlib.suppress(OSError):
                self._quick.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)  # type: ignore[arg-type]

    def pause_writing(self) -> None:
        self._choked = True
        self._common.choked.add(self)
        if self._dialect:  # what does not come now is not the peer's fault, what it does not read is
            self._left = self._transport.get_write_buffer_size()
            self._common.watch.set(self, self._common.loop.time() + READ_SECONDS)
        self._pause()
        self._common.relieve()

    def resume_writing(self) -> None:
        self._choked = False
        self._common.choked.discard(self)
        if self._dialect:
            self._common.watch.clear(self)
        if self._room:
            self._room.set()
            self._room = None
        self.proceed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self._common.watch.clear(self)
        self._common.choked.discard(self)
        dialect, self._dialect = self._dialect, None
        if dialect:
            dialect.ended(self.left)
        else:
            self.left(failed=self._handshake is not None)

    # ------------------------------------------------------------ of the server

    @property
    def who(self) -> str:
        """For people: the address, and before it the name in the certificate where there is one."""
        return f"{self.identity} ({self.address})" if self.identity else self.address

    @property
    def unread(self) -> int:
        """Bytes that wait for a peer that does not read; 0 for one that does."""
        return self._transport.get_write_buffer_size() if self._choked and not self._ending else 0

    def enter(self) -> None:
        """It was accepted; the transport comes later, after TLS where that is on."""
        self._common.open.add(self)

    def left(self, failed: bool = False) -> None:
        """Forget it: all that worked for it has ended, or its transport never came."""
        common = self._common
        if self not in common.open:
            return
        if failed:
            common.admission.failed(self._group)
        common.admission.leave(self._group)
        common.open.discard(self)
        if common.emptied and not common.open:
            common.emptied()

    def cut_off(self) -> None:
        """Close at once; what was not sent is lost."""
        self._ending = True
        self._transport.abort()

    def late(self) -> None:
        """Its deadline has passed."""
        if self._ending:
            self._transport.abort()
        elif not self._dialect:
            seconds = self._common.handshake_seconds
            self.drop(f"it took longer than {seconds:g} s (TASKYARD_HANDSHAKE) to say what it wants")
        elif self._choked:
            left, self._left = self._left, self._transport.get_write_buffer_size()
            if self._left < left:
                self._common.watch.set(self, self._common.loop.time() + READ_SECONDS)
            else:
                self.drop(f"it read nothing for {READ_SECONDS:g} s, and {left} bytes wait for it")
        else:
            self.drop("it stopped in the middle of a frame")

    # ------------------------------------------------------------ of the dialect

    def introduced(self, *, delays_acks: bool) -> None:
        self._framer.limit = self._common.frame_limit
        self._common.watch.clear(self)
        if not delays_acks:
            self._quick = None

    def failed(self, size: int = 0) -> None:
        if self._faults is None:
            self._faults = Faults()
        wait = self._faults.count(size)
        if wait and not self._slowed:
            self._slowed = True
            self._common.loop.call_later(wait, self._go_on)

    def send(self, payload: bytes) -> bool:
        if self._ending:
            return False
        waiting = self._transport.get_write_buffer_size()
        if waiting and waiting + len(payload) > self._common.output_limit:
            self.drop(f"{waiting} bytes wait for it and it does not read them (TASKYARD_OUTPUT)")
            return False
        if len(payload) <= _JOINED:
            self._transport.write(encode(payload))
        else:
            self._transport.write(header(len(payload)))
            self._transport.write(payload)
        return True

    async def drained(self) -> None:
        """Return in a turn of its own, once the peer has read most of what it was sent."""
        async with self._common.turns:
            await asyncio.sleep(0)
        while self._choked and not self._ending:
            self._room = self._room or asyncio.Event()
            await self._room.wait()

    def proceed(self) -> None:
        if not self._blocked:
            self._cut(0)

    def finish(self) -> None:
        if not self._ending:
            self._ending = True
            self._common.watch.set(self, self._common.loop.time() + self._common.handshake_seconds)
            self._transport.close()

    def drop(self, reason: str) -> None:
        if not self._ending:
            self._ending = True
            self._common.complaints.say("peer-dropped", f"{self.who} was dropped: {reason}")
            self._transport.abort()

    # ------------------------------------------------------------ inside

    @property
    def _blocked(self) -> bool:
        return (
            self._ending or self._choked or self._slowed or (self._dialect is not None and self._dialect.busy)
        )

    def _cut(self, got: int) -> None:
        """Take frames that are complete, as long as the dialect takes them; `got` bytes are new."""
        taken = 0
        try:
            while taken < _TURN and not self._blocked:
                frame = next(self._framer, None)
                if frame is None:
                    break
                taken += 1
                self._receive(frame)
        except (ProtocolError, RefusedError) as fault:
            return self._refuse(fault)
        except Exception:
            log.exception("a frame of %s could not be handled", self.who)
            return self.drop("its frame could not be handled")
        if self._ending:
            return None
        if taken == _TURN and not self._turn:
            self._turn = True
            self._common.loop.call_soon(self._next_turn)
        held = self._turn or self._blocked
        if held:
            self._ahead += got
            if self._ahead > _AHEAD or self._choked:
                self._pause()
        else:
            self._resume()
        if self._dialect:
            self._expect_rest(got, fresh=taken > 0, held=held)
        return None

    def _next_turn(self) -> None:
        self._turn = False
        self.proceed()

    def _go_on(self) -> None:
        self._slowed = False
        self.proceed()

    def _receive(self, frame: bytes) -> None:
        if self._dialect:
            self._dialect.receive(frame)
        elif self._handshake:
            for payload in self._handshake.receive(frame):
                self.send(payload)
            if self._handshake.done:
                self.digest = self._handshake.digest
                self._common.door.proved()
                self._handshake = None
                self._framer.limit = min(FIRST_LIMIT, self._common.frame_limit)
        else:
            self._dialect = self._common.choose(self, frame)
            self._dialect.receive(frame)

    def _refuse(self, fault: TaskyardError) -> None:
        if self._handshake:
            for payload in self._handshake.farewell:
                self.send(payload)
        if not self._ending:
            name = "peer-refused" if isinstance(fault, RefusedError) else "peer-junk"
            self._common.complaints.say(name, f"{self.who} was refused: {fault}")
            self.finish()

    def _expect_rest(self, got: int, *, fresh: bool, held: bool) -> None:
        """Set a deadline for a frame that has begun; time in which nothing is taken does not count."""
        watch = self._common.watch
        if self._choked:
            return
        if held or not self._framer.waiting:
            watch.clear(self)
        elif fresh or not watch.has(self):
            watch.set(self, self._common.loop.time() + PART_SECONDS)
        else:
            watch.extend(self, got / PART_RATE)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._ahead = 0
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
