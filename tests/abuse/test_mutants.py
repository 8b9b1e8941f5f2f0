"""A million damaged frames: nothing but the expected errors, and no memory kept.

They grow from real ones (`corpus/`) by a fixed seed. Most go straight into what reads bytes, which takes
microseconds; some through whole connections of both dialects, the real service, and a real master's socket.
ABUSE_TIMES=N makes it N times as many, with
another seed; ABUSE_SEED=S is that seed again.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_service import FakeService
from figures import Figures
from lab import KEY, running_lab
from mutants import Mutator, load
from serving import journaled
from strangers import MIB, Stranger, descriptors, memory
from support import eventually

from taskyard import frames, messages, plain
from taskyard.errors import PayloadError, ProtocolError, RefusedError
from taskyard.frames import ClientHandshake, Framer, ServerHandshake, encode
from taskyard.messages import GREETING, Fail, Hello, decode_reply
from taskyard.settings import Settings
from taskyard_master.peers import Dialect, Peer
from taskyard_master.plain_dialect import PlainDialect
from taskyard_master.plain_queues import Queues
from taskyard_master.yard_dialect import YardDialect, _decode

TIMES = int(os.environ.get("ABUSE_TIMES", "1"))
SEED = int(os.environ.get("ABUSE_SEED", 0)) or (
    20260101 if TIMES == 1 else random.SystemRandom().randrange(1 << 32)
)
COUNTS = {
    "plain": 400_000, "yard": 400_000, "handshake": 140_000, "framing": 40_000,
    "dialects": 20_000, "service": 4_000, "socket": 4_000,
}  # fmt: skip

pytestmark = pytest.mark.timeout(600 * TIMES)


def feed(
    name: str, corpus: list[bytes], take: Callable[[bytes], object], figures: Figures, least: int = 0
) -> None:
    """Give each mutant to `take`, whose errors are the test's, and watch the memory."""
    count = COUNTS[name] * TIMES
    print(f"seed {SEED}")
    mutants = Mutator(corpus, SEED).some(count)
    taken = {"in peace": 0, "refused": 0}
    before = 0
    for number, frame in enumerate(mutants):
        if number == count // 5:
            gc.collect()
            before = memory()
        try:
            take(frame)
        except (ProtocolError, PayloadError, RefusedError) as fault:
            assert "\n" not in str(fault)
            taken["refused"] += 1
        except BaseException:
            print(f"mutant {number}: {frame!r}")
            raise
        else:
            taken["in peace"] += 1
    gc.collect()
    grown = memory() - before
    assert grown < 16 * MIB
    assert taken["refused"] > (least or count // 10)
    figures.add(f"mutants, {name}", frames=count, refused=taken["refused"], grown_mib=round(grown / MIB, 1))


def test_there_are_a_million() -> None:
    assert sum(COUNTS.values()) >= 1_000_000


def test_pickles_of_plain_peers(figures: Figures) -> None:
    corpus = load("plain-requests") + load("plain-replies")
    feed("plain", corpus, lambda frame: plain.loads(frame, frozenset({"a.B"})), figures)


def test_messages_of_the_yard(figures: Figures) -> None:
    """What both sides read; the greeting is cut off first, as both do."""

    def take(frame: bytes) -> None:
        frame = frame.removeprefix(GREETING)
        try:
            _decode(frame)
        except ProtocolError:
            try:
                decode_reply(frame)
            except msgspec.MsgspecError:
                pass
            except (UnicodeDecodeError, RecursionError) as fault:
                raise AssertionError(f"a client would stumble over {frame!r}") from fault
            raise

    feed("yard", load("yard-requests") + load("yard-replies"), take, figures)


def test_handshakes(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of either side; without the key nobody gets to its end."""
    draw = random.Random(SEED)
    monkeypatch.setattr(frames.os, "urandom", draw.randbytes)
    key = KEY.encode()

    def take(frame: bytes) -> None:
        step = draw.randrange(6)
        server, client = ServerHandshake(key), ClientHandshake(key)
        victim = server if step % 2 else client
        # Up to the step in question both say what they should.
        said, rest = [server.first()], []
        for turn in range(step - step % 2):
            other = client if turn % 2 == 0 else server
            said, rest = other.receive(said[0]), said[1:]
        try:
            victim.receive(frame)
        finally:
            assert not rest
        assert not victim.done or frame == b"#WELCOME#"
        with pytest.raises((ProtocolError, RefusedError)):
            victim.receive(frame)
            victim.receive(frame)
            victim.receive(frame)

    feed("handshake", load("handshakes"), take, figures)


def test_framing(figures: Figures) -> None:
    """Streams of damaged frames, in pieces as they may come."""
    draw = random.Random(SEED)
    stream: list[bytes] = []

    def take(frame: bytes) -> None:
        stream.append(encode(frame) if draw.random() < 0.8 else frame)
        if len(stream) < 4:
            return
        data = b"".join(stream)
        stream.clear()
        framer = Framer(2048)
        while data:
            many = 1 + draw.randrange(400)
            for payload in framer.feed(data[:many]):
                assert len(payload) <= 2048
            data = data[many:]

    feed("framing", load("yard-replies") + load("plain-requests"), take, figures, least=100)


# ------------------------------------------------------------ whole connections


class Errors(logging.Handler):
    """What is logged as a fault of our own: an internal error that a peer can cause is one too many."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture
def errors() -> Iterator[Errors]:
    handler = Errors()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


class Link:
    """A connection that goes nowhere; what was sent on it can be read by who it was meant for."""

    address, digest, heard, identity = "127.0.0.1:1", "sha256", 0.0, None

    def failed(self, size: int = 0) -> None:
        pass

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.over = False

    def introduced(self, *, delays_acks: bool) -> None:
        pass

    def send(self, payload: bytes) -> bool:
        self.sent.append(payload)
        return not self.over

    async def drained(self) -> None:
        pass

    def proceed(self) -> None:
        pass

    def finish(self) -> None:
        self.over = True

    def drop(self, reason: str) -> None:
        self.over = True


class Connected:
    """A dialect behind its first frames, fed until it has had enough."""

    def __init__(self, make: Callable[[Link], Dialect], *first: bytes) -> None:
        self.link = Link()
        self.dialect = make(self.link)
        self.first = first
        self.fed = 0

    async def begin(self) -> None:
        for frame in self.first:
            self.dialect.receive(frame)
            async with asyncio.timeout(30):
                while self.dialect.busy:
                    await asyncio.sleep(0.001)

    async def feed(self, frame: bytes) -> bool:
        """Give it a frame; whether it takes more."""
        self.fed += 1
        try:
            self.dialect.receive(frame)
        except (ProtocolError, RefusedError):
            return False
        await asyncio.sleep(0)
        return not self.link.over and not self.dialect.busy and self.fed < 40

    async def end(self) -> None:
        ended = asyncio.Event()
        self.link.over = True
        self.dialect.ended(ended.set)
        try:
            await asyncio.wait_for(ended.wait(), 30)
        except TimeoutError:
            for task in self.dialect._in_flight._tasks:  # type: ignore[attr-defined]
                task.print_stack()
            raise


async def feed_connections(
    mutants: Iterator[bytes], connect: Callable[[], Connected], check: Callable[[bytes], object]
) -> int:
    """Feed all of them to one connection after the other; returns how many connections it took."""
    count, more = 0, True
    while more:
        connection = connect()
        count += 1
        await connection.begin()
        more = False
        for frame in mutants:
            more = True
            if not await connection.feed(frame):
                break
        await connection.end()
        for payload in connection.link.sent:
            check(payload)
    return count


def settings(**more: object) -> Settings:
    environ = {"TASKYARD_AUTHKEY": KEY, **{f"TASKYARD_{n.upper()}": str(v) for n, v in more.items()}}
    return Settings.from_env(environ)


ACCEPT = plain.dumps((None, "accept_connection", ("x",), {}))


def hello(role: str, boot: str) -> bytes:
    it = Hello(0, role, f"{role}-{boot}", "h", 1, boot, "0", "3", slots=1, functions=["squares:square"])  # type: ignore[arg-type]
    return GREETING + messages.encode(it)


def test_connections_of_both_dialects(figures: Figures, errors: Errors) -> None:
    async def work() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        service: Any = FakeService(settings())
        queues = Queues(service, settings(plain_maxsize=50))

        def plain_one(link: Link) -> Dialect:
            return PlainDialect(link, queues, Peer("p", link), loop)

        def yard_one(link: Link) -> Dialect:
            return YardDialect(link, service, Peer("y", link), loop)

        many = COUNTS["dialects"] * TIMES // 4
        plain_frames = Mutator(load("plain-requests"), SEED)
        taken = await feed_connections(plain_frames.some(many), lambda: Connected(plain_one), plain.loads)
        taken += await feed_connections(
            plain_frames.some(many), lambda: Connected(plain_one, ACCEPT), lambda sent: plain.loads(sent)
        )
        yard_frames = Mutator(load("yard-requests"), SEED)
        other = await feed_connections(yard_frames.some(many), lambda: Connected(yard_one), decode_reply)
        greeted = lambda: Connected(yard_one, hello("client", "b"))  # noqa: E731
        return taken, other + await feed_connections(yard_frames.some(many), greeted, decode_reply)

    plain_count, yard_count = asyncio.run(work())
    assert errors.said == []
    figures.add("mutants, connections", frames=COUNTS["dialects"] * TIMES, plain=plain_count, yard=yard_count)


def test_the_service_behind_them(tmp_path: Path, figures: Figures, errors: Errors) -> None:
    """Workers and clients that say nonsense to the real thing, whose ledger and journal stay sound."""
    print(f"seed {SEED}")
    refused: dict[str, int] = {}

    def check(payload: bytes) -> None:
        reply = decode_reply(payload)
        if isinstance(reply, Fail):
            refused[reply.error] = refused.get(reply.error, 0) + 1
            assert "internal error" not in reply.message

    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with journaled(settings(journal=tmp_path / "journal.db", grace=0.01)) as service:
            numbers = iter(range(1 << 30))

            def connect() -> Connected:
                number = next(numbers)
                role = "worker" if number % 2 else "client"
                make = lambda link: YardDialect(link, service, Peer(f"r.{number}", link), loop)  # noqa: E731
                return Connected(make, hello(role, f"b{number % 6}"))

            mutants = Mutator(load("yard-requests")[2:], SEED)
            # Sound ones among them, so that there are jobs to be confused about.
            both = (frame for one in mutants.some(COUNTS["service"] * TIMES) for frame in (
                mutants.draw.choice(mutants.corpus), one))  # fmt: skip
            await feed_connections(both, connect, check)

    asyncio.run(work())
    assert errors.said == []
    figures.add("mutants, service", frames=COUNTS["service"] * TIMES, **refused)


def test_a_real_masters_socket(tmp_path: Path, figures: Figures) -> None:
    """The handshake included; whoever is honest notices nothing."""
    count = COUNTS["socket"] * TIMES
    with running_lab(tmp_path, workers=1) as lab:
        assert lab.master
        draw = random.Random(SEED)
        mutants = {
            kind: Mutator(load(kind), SEED).some(count)
            for kind in ("handshakes", "plain-requests", "yard-requests")
        }
        sent = 0
        with lab.yard() as yard:
            before = memory(lab.master.pid), descriptors(lab)
            while sent < count:
                kind = draw.choice(list(mutants))
                with contextlib.suppress(OSError), Stranger(lab, f"127.0.0.{1 + sent % 200 + 2}") as peer:
                    if kind != "handshakes":
                        peer.prove()
                    for frame in mutants[kind]:
                        sent += 1
                        peer.sock.sendall(encode(frame))
                        if draw.random() < 0.3 or sent >= count:
                            break
                    peer.sock.shutdown(socket.SHUT_WR)
                    while peer.sock.recv(1 << 16):
                        pass
            assert list(yard.submit("squares:square", range(100)).values()) == [n * n for n in range(100)]
            eventually(lambda: descriptors(lab) <= before[1], "its descriptors come back")
            grown = memory(lab.master.pid) - before[0]
        assert "internal error" not in lab.output()
        assert "Traceback" not in lab.output()
        assert grown < 48 * MIB
    figures.add("mutants, socket", frames=count, grown_mib=round(grown / MIB, 1))
