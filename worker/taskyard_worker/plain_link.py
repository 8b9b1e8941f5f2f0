"""A connection to the manager of a stdlib master: what `BaseManager` and its proxies say, in data only.

    connection           -> handshake -> (None, 'create', ('get_task',), {})   <- (id, exposed); closes
    another connection   -> handshake -> (None, 'accept_connection', (name,), {})
                         then requests: (id, 'get', (True, 1.0), {})           <- ('#RETURN', value)

The master that made the queues may be of any Python from 3.8 on. What it sends is read
by the data-only decoder: objects of classes stay closed until a slot opens them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Self

from taskyard import plain
from taskyard.errors import PayloadError, ProtocolError, RefusedError, UnreachableError, UsageError
from taskyard.frames import ClientHandshake, Framer, encode
from taskyard.settings import Settings

STEP_SECONDS = 10.0  # for an answer that waits for nothing
GET_SECONDS = 1.0  # how long one request waits for a task at the master


class RemoteError(Exception):
    """The master answered with an exception; `name` is that of its class, such as "Empty"."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text


class PlainLink:
    """One connection past the handshake; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer()
        self._limit = limit

    @classmethod
    async def dial(cls, settings: Settings) -> Self:
        """Connect and prove the key; raises UnreachableError, RefusedError or ProtocolError."""
        host, port = settings.endpoint
        try:
            async with asyncio.timeout(STEP_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            raise UnreachableError(f"no master answers at {settings.address} ({error})") from error
        link = cls(reader, writer, settings.frame)
        if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
            link.close()  # TCP has connected a port of loopback that nobody listens at with itself
            raise UnreachableError(f"no master answers at {settings.address}")
        try:
            await link._shake(settings.authkey)
        except BaseException:
            link.close()
            raise
        return link

    async def _shake(self, authkey: bytes) -> None:
        shake = ClientHandshake(authkey)
        try:
            while not shake.done:
                for reply in shake.receive(await self._read(STEP_SECONDS)):
                    self._writer.write(encode(reply))
        except (RefusedError, ProtocolError):
            for payload in shake.farewell:
                self._writer.write(encode(payload))
            raise
        self._framer.limit = self._limit

    async def create(self, name: str) -> str:
        """The id of what the master registered under a name; uses up the connection."""
        await self._send(plain.dumps((None, "create", (name,), {})))
        value = await self._answer(STEP_SECONDS)
        if not isinstance(value, tuple) or not value or not isinstance(value[0], str):
            raise ProtocolError(
                "the master did not say what its queue is: check that it speaks this protocol"
            )
        return value[0]

    async def accept(self, name: str) -> None:
        """Make it a connection for many requests; `name` is what the master's thread is called."""
        await self._send(plain.dumps((None, "accept_connection", (name,), {})))
        await self._answer(STEP_SECONDS)

    async def get(self, queue: str) -> Any:
        """The next item; raises RemoteError "Empty" after GET_SECONDS."""
        await self._send(plain.dumps((queue, "get", (True, GET_SECONDS), {})))
        return await self._answer(GET_SECONDS + STEP_SECONDS)

    async def put(self, queue: str, pickled: bytes) -> None:
        """Put the value of a finished pickle, which is not looked into; waits while the queue is full."""
        await self._send(request(queue, "put", pickled))
        await self._answer(None)

    async def _send(self, payload: bytes) -> None:
        self._writer.write(encode(payload))
        try:
            await self._writer.drain()
        except OSError as error:
            raise UnreachableError(f"the master has ended ({error})") from error

    async def _answer(self, seconds: float | None) -> Any:
        reply = plain.loads(await self._read(seconds))
        if not isinstance(reply, tuple) or len(reply) != 2:
            raise ProtocolError("the master answered with what is no answer: check its version")
        kind, value = reply
        if kind == "#RETURN":
            return value
        if kind == "#ERROR":
            raise RemoteError(getattr(value, "name", "Exception"), repr(getattr(value, "args", value)))
        if kind == "#TRACEBACK":
            raise RemoteError(str(value).strip().rpartition("\n")[2].partition(":")[0], str(value))
        raise ProtocolError(f"the master answered with {kind!r}, which a queue never does")

    async def _read(self, seconds: float | None) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for payload in self._framer.feed(b""):
                        return payload
                    data = await self._reader.read(1 << 16)
                    if not data:
                        raise UnreachableError("the master has ended")
                    for payload in self._framer.feed(data):
                        return payload
        except TimeoutError as error:
            raise UnreachableError(f"the master has not answered for {seconds:.0f} s") from error
        except OSError as error:
            raise UnreachableError(f"the master has ended ({error})") from error

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


async def find(settings: Settings, names: Sequence[str]) -> str:
    """The id of the first of these queues that the master has; raises UsageError if it has none."""
    for name in names:
        link = await PlainLink.dial(settings)
        try:
            return await link.create(name)
        except RemoteError as error:
            if error.name != "KeyError":
                raise UsageError(
                    f"the master at {settings.address} does not give {name}: {error.text}"
                ) from error
        finally:
            link.close()
    raise UsageError(
        f"the master at {settings.address} has no queue named {' or '.join(names)}:"
        " set TASKYARD_PLAIN_TASKS and TASKYARD_PLAIN_RESULTS to the names that it registers"
    )


def request(queue: str, method: str, pickled: bytes) -> bytes:
    """The request `(queue, method, (value,), {})` from the pickle of `value`, which is not looked into.

    As in `plain_encode.returned`: nothing is memoised before the value, so its memo keeps
    its numbers, and where its STOP was the last byte of a frame TUPLE1 takes that place.
    """
    if pickled[:1] != b"\x80" or pickled[-1:] != b".":
        raise PayloadError("a result is no pickle: was it made by another program?")
    words = b"".join(
        b"X%b%b" % (len(raw).to_bytes(4, "little"), raw) for raw in (queue.encode(), method.encode())
    )
    return b"%b(%b%b\x85}t." % (pickled[:2], words, pickled[2:-1])
