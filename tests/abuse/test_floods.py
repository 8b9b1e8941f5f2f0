"""Many peers at once that are silent, slow or talk nonsense: they go soon, and whoever is honest goes on.

The rate of an honest peer is compared with its own of just before and after, or in between. What a busy
machine makes of that is in the figures; the tests insist that the peer went on and never waited for long.
"""

import contextlib
import os
import pickle
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import Figures
from hasty import PART_SECONDS, READ_SECONDS
from junk import heard, nonsense
from lab import KEY, Lab
from serving import hello
from siege import HANDSHAKE, PATIENCE, Siege, pause
from strangers import Stranger
from support import eventually

from taskyard import batch
from taskyard.frames import ClientHandshake, Framer, encode
from taskyard.messages import GREETING, Chunk, Hello, Lease, Open, Options, Outcome, Results, Settle
from taskyard.messages import encode as encode_message

TIMES = int(os.environ.get("ABUSE_TIMES", "1"))

pytestmark = pytest.mark.timeout(300)


def worker(name: str, functions: list[str]) -> Hello:
    return Hello(0, "worker", name, "h", 1, name, "0", "3", slots=1, functions=functions)


def drip(socks: list[socket.socket], data: bytes, until: Callable[[], bool], seconds: float) -> None:
    """Send each of them a byte a second until `until`."""
    begun = time.monotonic()
    for number in range(int(seconds)):
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(data[number : number + 1])
        while time.monotonic() < begun + number + 1:
            if until():
                return
            pause.wait(0.2)


def prove(socks: list[socket.socket], key: str, then: Callable[[int], None] = lambda number: None) -> None:
    """One handshake after the other, each at once: whoever has the key makes room for the next at the door.

    `then` is called with the number of each that is in. One that the master has dropped meanwhile was late.
    """
    for number, sock in enumerate(socks):
        sock.settimeout(PATIENCE)
        handshake, framer = ClientHandshake(key.encode()), Framer(1 << 16)
        while not handshake.done and (data := sock.recv(4096)):
            for payload in framer.feed(data):
                for reply in handshake.receive(payload):
                    sock.sendall(encode(reply))
        if handshake.done:
            then(number)
        sock.setblocking(False)


# ------------------------------------------------------------ silence


def test_two_thousand_that_say_nothing(siege: Siege) -> None:
    siege.connect(2000)
    siege.end("2,000 silent connections", HANDSHAKE, siege.freed(HANDSHAKE))


def test_a_thousand_that_answer_a_byte_a_second(siege: Siege) -> None:
    socks = siege.connect(1000)
    begun = time.monotonic()
    drip(socks, encode(b"{sha256}" + b"x" * 32), lambda: siege.held() <= 0, PATIENCE)
    after = siege.freed(0) + time.monotonic() - begun
    siege.end("1,000 that answer a byte a second", HANDSHAKE, after)


def test_a_thousand_that_ask_a_byte_a_second_once_they_are_in(siege: Siege) -> None:
    """The first request has a deadline too."""
    socks = siege.connect(1000)
    prove(socks, KEY)
    begun = time.monotonic()
    drip(socks, encode(GREETING + encode_message(hello())), lambda: siege.held() <= 0, PATIENCE)
    after = siege.freed(0) + time.monotonic() - begun
    siege.end("1,000 that ask a byte a second with the key", HANDSHAKE, after)


def test_a_thousand_that_stop_within_a_frame(siege: Siege) -> None:
    """Half a dialect each: known peers, of whom the rest of a frame comes a byte a second."""
    socks = siege.connect(1000)
    plain = encode(pickle.dumps((None, "accept_connection", ("x",), {})))

    def introduce(number: int) -> None:
        socks[number].sendall(plain if number % 2 else encode(GREETING + encode_message(hello(f"n{number}"))))
        assert socks[number].recv(4096)

    prove(socks, KEY, introduce)
    begun = time.monotonic()
    drip(socks, encode(b"x" * 1000), lambda: siege.held() <= 0, PATIENCE)
    after = siege.freed(0) + time.monotonic() - begun
    siege.end("1,000 that send a frame a byte a second", PART_SECONDS, after)


# ------------------------------------------------------------ greed


def test_those_that_ask_for_much_and_read_nothing(siege: Siege) -> None:
    """What waits for them is bounded, and they are dropped."""
    payload = b"x" * 100_000
    block = batch.pack([payload])
    with Stranger(siege.lab).prove() as peer:
        peer.send(GREETING + encode_message(worker("feeder", ["f:f"])))
        peer.reply()
        peer.ask(Open(1, "big", "big", "f:f", Options(), "s"))
        for first in range(80):
            peer.ask(Chunk(2, "big", first, 1, batch.digest(block), block))
        done = 0
        while done < 80:
            for grant in peer.ask(Lease(3, 100)).grants:
                for first in range(grant.first, grant.first + grant.count):
                    outcome = Outcome(grant.lease, "big", first, 1, "completed", 1.0, 1.0, block)
                    done += peer.ask(Settle(4, [outcome])).accepted
    siege.honest.mark()
    socks = siege.connect(100)
    prove(socks, KEY)
    asked = b"".join(encode(encode_message(Results(n, "big", space=4 << 20))) for n in range(1, 50))
    for number, sock in enumerate(socks):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(encode(GREETING + encode_message(hello(f"n{number}"))) + asked)
    siege.end("100 that read nothing", READ_SECONDS, siege.freed(READ_SECONDS))


# ------------------------------------------------------------ nonsense


def test_five_thousand_that_talk_nonsense(siege: Siege) -> None:
    """From fifty addresses, or the door would be shut on nearly all of them."""
    draw = random.Random(5)
    longest = 0
    for _ in range(10 * TIMES):
        with siege.storm():
            for number in range(5):
                source = f"127.0.1.{draw.randrange(10) * 5 + number}"
                for said in nonsense(siege.connect(100, source), draw):
                    frames = list(Framer(256).feed(said))
                    assert len(frames) <= 1 and all(frame.startswith(b"#CHALLENGE#") for frame in frames)
                    longest = max(longest, len(said))
    siege.end(f"{len(siege.socks):,} of nonsense", 0.0, siege.freed(0), most_bytes_heard=longest)


def test_a_flood_of_wrong_keys(siege: Siege) -> None:
    """From many addresses, then from one, which is turned away at the door when it is too quick."""
    told = 0
    for number in range(10 * TIMES):
        with siege.storm():
            for part in range(20):
                many = f"127.0.2.{1 + (20 * number + part) % 100}"
                told += wrong_keys(siege, many if number < 5 * TIMES else "127.0.3.1")
    tries, seconds = len(siege.socks), sum(seconds for _, seconds in siege.storms)
    assert told >= tries / 2
    row = f"{tries:,} wrong keys, {tries / seconds:.0f} a second"
    siege.end(row, 0.0, siege.freed(0), told=told, turned_away=tries - told)


def wrong_keys(siege: Siege, source: str) -> int:
    """Twenty at once; how many were told that the key is wrong."""
    socks = siege.connect(20, source)
    answering = []
    for sock in socks:
        sock.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            if challenge := sock.recv(256):
                sock.sendall(encode(ClientHandshake(b"wrong").receive(challenge[4:])[0]))
                answering.append(sock)
    told = sum(heard(sock) == encode(b"#FAILURE#") for sock in answering)
    for sock in socks:
        sock.close()
    return told


# ------------------------------------------------------------ the control


def test_the_tutorials_master_keeps_a_thread_for_each_silent_connection(
    tmp_path: Path, figures: Figures
) -> None:
    lab = Lab(tmp_path)
    lab.environ |= {"PYTHONPATH": str(Path(__file__).parent), "AUDIT_LOG": str(tmp_path / "audit.log")}
    lab.module = "tutorial_master"
    try:
        master = lab.start_master()
        socks = [socket.create_connection(("127.0.0.1", lab.port)) for _ in range(100)]
        threads = Path(f"/proc/{master.pid}/task")
        eventually(lambda: len(list(threads.iterdir())) > 100, "a thread for each")
        pause.wait(HANDSHAKE + 1)
        assert len(list(threads.iterdir())) > 100
        for sock in socks:
            sock.close()
    finally:
        lab.stop()
    figures.add("silent connections, the tutorial's master (control)", connections=100, threads=100, gone=0)
