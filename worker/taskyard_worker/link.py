"""The connection to the master as the agent's loop has it: dials, reads, writes, dials again.

Requests are answered to callbacks, in any order. When the connection ends, each one
without an answer is told so, and what to do about it is the agent's decision: it
says in its hello what it holds, and settles anew.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import msgspec

from taskyard import backoff, log, messages
from taskyard.clock import Deadline
from taskyard.dial import NoYardError, Wire, dial
from taskyard.errors import ProtocolError, RefusedError, TaskyardError
from taskyard.messages import Hello, Notice, Reply, Request, Welcome
from taskyard.settings import Settings
from taskyard.tls import following
from taskyard_worker.threads import in_thread

LONGEST_PAUSE = 2.0  # seconds between two attempts to connect
LOUDER_SECONDS = 300.0  # how often it is said that there is still no master

logger = logging.getLogger(__name__)

Then = Callable[[Reply | None], None]  # None: the connection has ended, and there was no answer


class Listener(Protocol):
    """Whom the link tells what happens."""

    def hello(self) -> Hello: ...

    def connected(self, welcome: Welcome) -> None: ...

    def disconnected(self) -> None: ...

    def notice(self, notice: Notice) -> None: ...


class Link:
    """One connection at a time. Belongs to the event loop's thread."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self.heard = 0.0  # when bytes last came, monotonic
        self._settings = settings
        self._listener = listener
        self._tls = following(settings)
        self._wire: Wire | None = None
        self._broken: asyncio.Future[None] | None = None
        self._output: deque[memoryview] = deque()
        self._pending: dict[int, Then] = {}
        self._seq = 0

    @property
    def up(self) -> bool:
        return self._wire is not None

    async def run(self) -> None:
        """Connect and stay connected, for ever; raises TaskyardError where trying again does not help."""
        while True:
            wire, welcome = await self._dial()
            try:
                await self._serve(wire, welcome)
            except (OSError, EOFError, ProtocolError) as error:
                why = str(error) or "the master closed it"
                log.event(logger, "connection-lost", f"the connection to the master ended: {why}")
            finally:
                self._close()

    def request(self, request: Request, then: Then) -> None:
        """Send a request; `then` gets its reply, or None if the connection ends before. Only if `up`."""
        self._seq += 1
        request.seq = self._seq
        self._pending[self._seq] = then
        self._send(messages.encode(request))

    def reset(self, why: str) -> None:
        """Give this connection up and dial anew."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(ConnectionError(why))

    # ------------------------------------------------------------ dialling

    async def _dial(self) -> tuple[Wire, Welcome]:
        pauses = backoff.delays(iter(random.random, None), cap=LONGEST_PAUSE)
        said = 0.0
        while True:
            hello = self._listener.hello()
            try:
                return await in_thread(partial(self._dial_once, hello))
            except (RefusedError, NoYardError):
                raise
            except TaskyardError as error:
                now = time.monotonic()
                if not said or now - said > LOUDER_SECONDS:
                    level = logging.WARNING if said else logging.INFO
                    log.event(logger, "no-master", f"waiting for the master: {error}", level)
                    said = now
            await asyncio.sleep(next(pauses))

    def _dial_once(self, hello: Hello) -> tuple[Wire, Welcome]:
        settings = self._settings
        return dial(
            settings.address, settings.authkey, hello, Deadline.after(None),
            tls=self._tls() if self._tls else None, frame_limit=settings.frame,
        )  # fmt: skip

    # ------------------------------------------------------------ serving

    async def _serve(self, wire: Wire, welcome: Welcome) -> None:
        loop = asyncio.get_running_loop()
        wire.sock.setblocking(False)
        self._wire = wire
        self._broken = loop.create_future()
        self.heard = time.monotonic()
        loop.add_reader(wire.sock, self._on_readable)
        self._listener.connected(welcome)
        self._receive(wire.framer.feed(b""))  # what came right behind the welcome
        await self._broken

    def _on_readable(self) -> None:
        wire = self._wire
        if wire is None:
            return
        try:
            self._receive(wire.read())
            self.heard = time.monotonic()
            if wire.pipe is not None and (due := wire.seal_nothing()):
                self._write(due)
        except BlockingIOError:
            return
        except (OSError, EOFError, ProtocolError) as error:
            self._break(error)

    def _receive(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            try:
                reply = messages.decode_reply(frame)
            except msgspec.MsgspecError as error:
                raise ProtocolError(f"the master sent what is no message ({error})") from error
            if isinstance(reply, Notice):
                self._listener.notice(reply)
            elif (then := self._pending.pop(reply.seq, None)) is not None:
                then(reply)

    def _send(self, payload: bytes) -> None:
        assert self._wire is not None
        self._write(self._wire.seal(payload))

    def _write(self, data: bytes) -> None:
        self._output.append(memoryview(data))
        if len(self._output) == 1:
            self._flush()

    def _flush(self) -> None:
        wire = self._wire
        if wire is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._output:
                sent = wire.sock.send(self._output[0])
                if sent < len(self._output[0]):
                    self._output[0] = self._output[0][sent:]
                else:
                    self._output.popleft()
        except BlockingIOError:
            loop.add_writer(wire.sock, self._flush)
            return
        except OSError as error:
            self._break(error)
        loop.remove_writer(wire.sock)

    def _break(self, error: Exception) -> None:
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _close(self) -> None:
        wire, self._wire = self._wire, None
        self._output.clear()
        if wire is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(wire.sock)
            loop.remove_writer(wire.sock)
            wire.close()
        pending, self._pending = self._pending, {}
        for then in pending.values():
            then(None)
        self._listener.disconnected()
