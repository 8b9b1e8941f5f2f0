"""frames.py: every cutting of the stream, every wrong length, both sides of the handshake.

The handshake is tried against the standard library's own Listener and Client in real processes,
with every Python that this machine has.
"""

import hashlib
import hmac
import itertools
import os
import socket
import struct
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pythons import VERSIONS, python

from taskyard.errors import ProtocolError, RefusedError
from taskyard.frames import HANDSHAKE_LIMIT, ClientHandshake, Framer, ServerHandshake, encode, header

KEY = b"correct horse battery staple"
MIB = 1 << 20


# -- framing ---------------------------------------------------------------------------------------


def cut_all(framer: Framer, pieces: list[bytes]) -> list[bytes]:
    return [payload for piece in pieces for payload in framer.feed(piece)]


def test_header_is_that_of_the_standard_library() -> None:
    assert header(0) == b"\0\0\0\0"
    assert header(2**31 - 1) == struct.pack("!i", 2**31 - 1)
    assert header(2**31) == struct.pack("!i", -1) + struct.pack("!Q", 2**31)
    assert encode(b"abc") == encode(bytearray(b"abc")) == encode(memoryview(b"abc")) == b"\0\0\0\3abc"


@given(
    payloads=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_any_chunking_gives_the_same_payloads(
    payloads: list[bytes], cuts: list[int], kind: Callable[[bytes], bytes]
) -> None:
    stream = b"".join(map(encode, payloads))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [kind(stream[a:b]) for a, b in itertools.pairwise(edges)]
    framer = Framer(limit=40)
    assert cut_all(framer, pieces) == payloads
    assert not framer.waiting


def test_every_split_in_two_and_byte_by_byte() -> None:
    payloads = [b"first", b"", b"x" * 300]
    stream = b"".join(map(encode, payloads))
    for cut in range(len(stream) + 1):
        assert cut_all(Framer(limit=300), [stream[:cut], stream[cut:]]) == payloads
    assert cut_all(Framer(limit=300), [stream[i : i + 1] for i in range(len(stream))]) == payloads


def test_waiting_tells_a_begun_frame_from_silence() -> None:
    framer = Framer(limit=10)
    assert not framer.waiting
    stream = encode(b"0123456789")
    for i in range(len(stream) - 1):
        assert list(framer.feed(stream[i : i + 1])) == []
        assert framer.waiting
    assert list(framer.feed(stream[-1:])) == [b"0123456789"]
    assert not framer.waiting


def test_a_raised_limit_holds_for_the_next_frame_of_the_same_read() -> None:
    framer = Framer()
    taken = []
    for payload in framer.feed(encode(b"#WELCOME#") + encode(b"x" * 1000)):
        taken.append(len(payload))
        framer.limit = 1000
    assert taken == [9, 1000]


def test_a_lowered_limit_holds_for_the_next_frame_of_the_same_read() -> None:
    framer = Framer(limit=1000)
    payloads = framer.feed(encode(b"x" * 1000) + encode(b"y" * 1000))
    assert len(next(payloads)) == 1000
    framer.limit = 999
    with pytest.raises(ProtocolError):
        next(payloads)


def test_frames_left_uncut_are_not_lost() -> None:
    framer = Framer()
    assert next(framer.feed(encode(b"one") + encode(b"two")[:5])) == b"one"
    assert framer.waiting
    assert list(framer.feed(encode(b"two")[5:])) == [b"two"]


@pytest.mark.parametrize("size", [-2, -(2**31), 257, 2**31 - 1, -1])
def test_a_wrong_length_is_refused_from_its_four_bytes(size: int) -> None:
    framer = Framer()
    with pytest.raises(ProtocolError):
        list(framer.feed(struct.pack("!i", size)))
    with pytest.raises(ProtocolError):  # and stays refused, whatever follows
        list(framer.feed(encode(b"fine")))


@pytest.mark.parametrize("size", [0, 5, 2**31 - 1, 2**40 + 1, 2**50, 2**64 - 1])
def test_a_wrong_long_length_is_refused_from_its_header(size: int) -> None:
    wire = struct.pack("!iQ", -1, size)
    for cut in range(len(wire)):
        framer = Framer(limit=2**40)
        assert list(framer.feed(wire[:cut])) == []
        with pytest.raises(ProtocolError):
            list(framer.feed(wire[cut:]))


def test_a_long_length_is_taken_where_the_limit_allows_it() -> None:
    framer = Framer(limit=2**32)
    wire = header(2**31 + 5) + b"begin"
    for i in range(len(wire)):
        assert list(framer.feed(wire[i : i + 1])) == []
    assert framer.waiting


def test_junk_of_other_protocols_is_refused_at_once() -> None:
    for junk in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"\xff\xff\xff\xff"):
        with pytest.raises(ProtocolError):
            list(Framer().feed(junk))


def test_an_announcement_alone_takes_no_memory_and_tiny_reads_are_not_hoarded() -> None:
    tracemalloc.start()
    try:
        framer = Framer(limit=64 * MIB)
        list(framer.feed(header(64 * MIB)))
        assert tracemalloc.get_traced_memory()[1] < MIB
        for _ in range(20_000):
            list(framer.feed(b"ab"))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_large_frame_is_copied_a_bounded_number_of_times() -> None:
    payload = os.urandom(1024) * 8192  # 8 MiB
    stream = encode(payload)
    pieces = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    tracemalloc.start()
    try:
        (taken,) = cut_all(Framer(limit=8 * MIB), pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken == payload
    assert peak < 2.5 * len(payload)
    tail = Framer(limit=8 * MIB)
    assert next(tail.feed(stream)) == payload


# -- handshake: ours against ours --------------------------------------------------------------------


def shake(server: ServerHandshake, client: ClientHandshake) -> None:
    """Carry payloads between the two until both are done; what one raises comes out here."""
    to_client = [server.first()]
    while not (server.done and client.done):
        to_server = [reply for payload in to_client for reply in client.receive(payload)]
        to_client = [reply for payload in to_server for reply in server.receive(payload)]


def test_ours_with_ours() -> None:
    server, client = ServerHandshake(KEY), ClientHandshake(KEY)
    assert not server.done
    assert server.digest == ""
    shake(server, client)
    assert (server.digest, client.digest) == ("sha256", "sha256")
    assert server.farewell == client.farewell == []
    for side in (server, client):
        with pytest.raises(ProtocolError):
            side.receive(b"#WELCOME#")


def test_every_challenge_is_new_and_fits_the_limit() -> None:
    challenges = {ServerHandshake(KEY).first() for _ in range(50)}
    assert len(challenges) == 50
    for challenge in challenges:
        assert challenge.startswith(b"#CHALLENGE#{sha256}")
        assert len(challenge) == 11 + 8 + 40 <= HANDSHAKE_LIMIT


def test_wrong_key_says_failure_and_stays_shut() -> None:
    server, client = ServerHandshake(KEY), ClientHandshake(b"wrong")
    (answer,) = client.receive(server.first())
    with pytest.raises(RefusedError, match="TASKYARD_AUTHKEY"):
        server.receive(answer)
    assert server.farewell == [b"#FAILURE#"]
    with pytest.raises(RefusedError, match=r"^the master refused the authkey: .*TASKYARD_AUTHKEY"):
        client.receive(b"#FAILURE#")
    # Going on as if nothing had happened must not get anybody in.
    for payload in (b"#CHALLENGE#" + b"x" * 20, b"#WELCOME#"):
        with pytest.raises(ProtocolError):
            server.receive(payload)
    assert not server.done


def test_client_refuses_a_master_without_the_key() -> None:
    client = ClientHandshake(KEY)
    client.receive(ServerHandshake(b"other").first())
    (challenge,) = client.receive(b"#WELCOME#")  # a rogue says welcome to everybody
    with pytest.raises(RefusedError, match="does not know the authkey"):
        client.receive(b"{sha256}" + hmac.digest(b"guess", challenge[11:], "sha256"))
    assert client.farewell == [b"#FAILURE#"]
    assert not client.done


def at_step(side: str, step: int) -> ServerHandshake | ClientHandshake:
    """A handshake that has taken `step` right payloads."""
    server, client = ServerHandshake(KEY), ClientHandshake(KEY)
    payloads = [server.first()]
    for i in range(3):
        if side == "client" and i == step:
            return client
        payloads = client.receive(payloads[0])
        if side == "server" and i == step:
            return server
        payloads = server.receive(payloads[0])
    raise AssertionError(step)


SURPRISES = [
    b"",
    b"#WELCOME",
    b"#WELCOME##",
    b"#CHALLENGE#",
    b"#CHALLENGE#" + b"x" * 19,
    b"#CHALLENGE#" + b"x" * 22,
    b"#CHALLENGE#{sha256" + b"x" * 30,
    b"#CHALLENGE#{sha1}" + b"x" * 40,
    b"#CHALLENGE#{md5}" + b"x" * 40,
    b"{sha384}" + b"x" * 48,
    b"{md5}" + b"x" * 16,
    b"x" * 31,
    b"x" * 256,
    b"\x80\x04N.",
]


@pytest.mark.parametrize("payload", SURPRISES)
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("side", ["server", "client"])
def test_surprises_are_protocol_errors(side: str, step: int, payload: bytes) -> None:
    handshake = at_step(side, step)
    with pytest.raises(ProtocolError):
        handshake.receive(payload)
    assert handshake.farewell == []
    assert not handshake.done


@given(st.integers(0, 2), st.sampled_from(["server", "client"]), st.binary(max_size=256))
def test_random_payloads_never_get_in(step: int, side: str, payload: bytes) -> None:
    handshake = at_step(side, step)
    assume((side, step, payload) != ("server", 2, b"#WELCOME#"))
    try:
        handshake.receive(payload)
    except (ProtocolError, RefusedError) as error:
        assert "\n" not in str(error)
    assert not handshake.done


# -- handshake: old peers ------------------------------------------------------------------------------


def old_client(server: ServerHandshake, digest: str) -> None:
    """What a client up to Python 3.11 says; `digest` is md5, or what a vendor's patch made of it."""
    assert server.receive(hmac.digest(KEY, server.first()[11:], digest)) == [b"#WELCOME#"]
    nonce = os.urandom(20)
    assert server.receive(b"#CHALLENGE#" + nonce) == [hmac.digest(KEY, nonce, digest)]
    assert server.receive(b"#WELCOME#") == []
    assert server.done


@pytest.mark.parametrize("digest", ["md5", "sha256"])
def test_untagged_clients_are_answered_in_kind(digest: str) -> None:
    server = ServerHandshake(KEY)
    old_client(server, digest)
    assert server.digest == digest


def test_md5_is_refused_by_name_where_it_is_not_allowed() -> None:
    server = ServerHandshake(KEY, allow_md5=False)
    answer = hmac.digest(KEY, server.first()[11:], "md5")
    with pytest.raises(RefusedError, match="TASKYARD_ALLOW_MD5"):
        server.receive(answer)
    assert server.farewell == [b"#FAILURE#"]
    client = ClientHandshake(KEY, allow_md5=False)
    with pytest.raises(RefusedError, match="TASKYARD_ALLOW_MD5"):
        client.receive(b"#CHALLENGE#" + b"n" * 20)
    old_client(ServerHandshake(KEY, allow_md5=False), "sha256")


def test_a_tagged_client_cannot_use_us_to_sign_with_md5_where_it_is_not_allowed() -> None:
    server = ServerHandshake(KEY, allow_md5=False)
    server.receive(ClientHandshake(KEY).receive(server.first())[0])
    with pytest.raises(RefusedError, match="TASKYARD_ALLOW_MD5"):
        server.receive(b"#CHALLENGE#" + b"n" * 20)


def test_a_machine_without_md5_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_md5(key: bytes, message: bytes, digest: str) -> bytes:
        if digest == "md5":
            raise ValueError("[digital envelope routines] unsupported")
        return hmac.new(key, message, hashlib.sha256).digest()

    monkeypatch.setattr("taskyard.frames.hmac.digest", no_md5)
    with pytest.raises(RefusedError, match="OpenSSL does not offer"):
        ServerHandshake(KEY).receive(b"x" * 16)
    shake(ServerHandshake(KEY), ClientHandshake(KEY))


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha3_256", "sha3_384"])
def test_challenges_are_answered_in_the_digest_they_ask_for(digest: str) -> None:
    message = b"{%s}" % digest.encode() + os.urandom(40)
    (answer,) = ClientHandshake(KEY).receive(b"#CHALLENGE#" + message)
    assert answer == b"{%s}" % digest.encode() + hmac.digest(KEY, message, digest)


# -- handshake: the standard library, in real processes --------------------------------------------------


STDLIB_CLIENT = """
import sys
from multiprocessing import connection
try:
    with connection.Client(("127.0.0.1", int(sys.argv[1])), authkey=sys.argv[2].encode()) as peer:
        peer.send_bytes(b"hello" * 10_000)
        print(len(peer.recv_bytes()))
except connection.AuthenticationError as error:
    print("AuthenticationError", error)
"""

STDLIB_SERVER = """
import sys
from multiprocessing import connection
with connection.Listener(("127.0.0.1", 0), authkey=sys.argv[1].encode()) as listener:
    print(listener.address[1], flush=True)
    try:
        with listener.accept() as peer:
            peer.send_bytes(peer.recv_bytes()[::-1])
            print("served")
    except (connection.AuthenticationError, EOFError) as error:
        print(type(error).__name__)
"""


def payloads_of(wire: socket.socket, framer: Framer) -> Iterator[bytes]:
    while data := wire.recv(65536):
        yield from framer.feed(data)


def converse(wire: socket.socket, handshake: ServerHandshake | ClientHandshake) -> Iterator[bytes]:
    """Do the handshake over a socket, then give the payloads that follow."""
    framer = Framer()
    if isinstance(handshake, ServerHandshake):
        wire.sendall(encode(handshake.first()))
    for payload in payloads_of(wire, framer):
        if handshake.done:
            yield payload
            continue
        try:
            for reply in handshake.receive(payload):
                wire.sendall(encode(reply))
        except RefusedError:
            for reply in handshake.farewell:
                wire.sendall(encode(reply))
            raise
        if handshake.done:
            framer.limit = MIB
            if isinstance(handshake, ClientHandshake):
                yield b""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(20)
        yield sock


def start(version: str, code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [python(version), "-I", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_stdlib_clients_get_in(version: str, listener: socket.socket) -> None:
    with start(version, STDLIB_CLIENT, listener.getsockname()[1], KEY.decode()) as process:
        wire, _ = listener.accept()
        with wire:
            wire.settimeout(20)
            server = ServerHandshake(KEY)
            for payload in converse(wire, server):
                assert payload == b"hello" * 10_000
                wire.sendall(header(20_000) + bytes(20_000))
        out, _ = process.communicate(timeout=20)
    assert out.strip() == "20000"
    assert server.digest == ("md5" if int(version[2:]) <= 11 else "sha256")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_stdlib_clients_with_a_wrong_key_hear_why(version: str, listener: socket.socket) -> None:
    with start(version, STDLIB_CLIENT, listener.getsockname()[1], "wrong") as process:
        wire, _ = listener.accept()
        with wire, pytest.raises(RefusedError):
            wire.settimeout(20)
            list(converse(wire, ServerHandshake(KEY)))
        out, _ = process.communicate(timeout=20)
    assert out.startswith("AuthenticationError")


def dial(process: "subprocess.Popen[str]") -> socket.socket:
    assert process.stdout is not None
    return socket.create_connection(("127.0.0.1", int(process.stdout.readline())), timeout=20)


@pytest.mark.parametrize("version", VERSIONS)
def test_stdlib_servers_let_us_in(version: str) -> None:
    with start(version, STDLIB_SERVER, KEY.decode()) as process:
        with dial(process) as wire:
            client = ClientHandshake(KEY)
            for payload in converse(wire, client):
                if payload:
                    assert payload == b"abc" * 9000
                    break
                wire.sendall(encode(b"cba" * 9000))
        out, _ = process.communicate(timeout=20)
    assert out.strip() == "served"
    assert client.digest == ("md5" if int(version[2:]) <= 11 else "sha256")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_stdlib_servers_refuse_a_wrong_key(version: str) -> None:
    with start(version, STDLIB_SERVER, "another") as process:
        with dial(process) as wire, pytest.raises(RefusedError, match="the master refused the authkey"):
            list(converse(wire, ClientHandshake(KEY)))
        out, _ = process.communicate(timeout=20)
    assert out.strip() == "AuthenticationError"
