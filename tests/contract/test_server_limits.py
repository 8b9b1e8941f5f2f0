"""What strangers, slow and greedy peers get from the server: little, and not for long."""

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts import Script
from serving import KEY, LOOPS, Caller, Raw, Serving, hello, serving
from support import eventually

from taskyard.errors import SettingsError
from taskyard.frames import ClientHandshake
from taskyard.messages import GREETING, Backup, Fail, Ok, Renew, Status, encode
from taskyard_master import common, limits
from taskyard_master import connection as connection_module


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(loop_name: str) -> Iterator[Serving]:
    with serving(loop_name) as running:
        yield running


def only_challenges(peer: Raw) -> bool:
    """The connection has ended, and nothing but a challenge came before that."""
    frames = peer.rest()
    return len(frames) == 1 and frames[0].startswith(b"#CHALLENGE#{sha256}")


# ------------------------------------------------------------ strangers


def test_silence_is_cut_off_at_the_deadline(loop_name: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(loop_name, handshake=0.2) as served:
        peers = [Raw(served) for _ in range(50)]
        with Caller(served) as honest:
            assert all(only_challenges(peer) for peer in peers)
            assert honest.call("task", "qsize") == 0
            eventually(lambda: served.server.connections == 1)
        for peer in peers:
            peer.sock.close()
    assert 0 < len(caplog.messages) < 10  # rate-limited
    assert "TASKYARD_HANDSHAKE" in caplog.text


def half_way(peer: Raw) -> None:
    """Answer the challenge, then say nothing."""
    challenge = peer.read()
    assert challenge is not None
    peer.send(ClientHandshake(KEY.encode()).receive(challenge)[0])
    assert peer.read() == b"#WELCOME#"


@pytest.mark.parametrize(
    "begin",
    [
        half_way,
        lambda peer: peer.prove(),
        lambda peer: (peer.prove(), peer.write(struct.pack("!i", 100) + b"\x80")),
        lambda peer: (peer.read(), peer.write(b"\0\0")),
    ],
    ids=["half a handshake", "a key and no request", "part of a request", "part of a length"],
)
def test_stopping_on_the_way_is_cut_off_at_the_deadline(
    loop_name: str, begin: Callable[[Raw], object]
) -> None:
    with serving(loop_name, handshake=0.2) as served, Raw(served) as peer:
        begin(peer)
        assert peer.rest() == []


def test_bytes_that_trickle_do_not_move_the_deadline(loop_name: str) -> None:
    with serving(loop_name, handshake=0.3) as served, Raw(served) as peer:
        peer.sock.settimeout(0.01)
        sent = 0
        with pytest.raises(ConnectionError):
            while True:
                peer.write(b"\0\0\0\x40"[sent : sent + 1] or b"x")
                sent += 1
                try:
                    if not peer.sock.recv(1 << 16):
                        raise ConnectionResetError
                except TimeoutError:
                    pass
        assert sent < 60


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 300,
        struct.pack("!i", -2),
        struct.pack("!i", 0x7FFFFFFF),
        struct.pack("!iQ", -1, 1 << 50),
        struct.pack("!i", 257),
        struct.pack("!i", 0),
        struct.pack("!i", 20) + b"x" * 20,
        struct.pack("!i", 11) + b"#CHALLENGE#",
    ],
    ids=lambda junk: repr(junk[:12]),
)
def test_junk_ends_the_connection_and_gets_nothing(served: Serving, junk: bytes) -> None:
    with Raw(served) as peer:
        peer.write(junk)
        assert only_challenges(peer)
    eventually(lambda: served.server.connections == 0)


def test_a_wrong_key_gets_the_word_failure(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with Raw(served) as peer:
        challenge = peer.read()
        assert challenge is not None
        peer.send(ClientHandshake(b"another key that is long").receive(challenge)[0])
        assert peer.rest() == [b"#FAILURE#"]
    assert "TASKYARD_AUTHKEY" in caplog.text
    assert KEY not in caplog.text


def test_md5_is_for_plain_peers_and_where_it_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    def md5(peer: Raw) -> None:
        import hmac

        challenge = peer.read()
        assert challenge is not None
        peer.send(hmac.digest(KEY.encode(), challenge[len(b"#CHALLENGE#") :], "md5"))
        assert peer.read() == b"#WELCOME#"
        peer.send(b"#CHALLENGE#" + b"n" * 20)
        assert peer.read() == hmac.digest(KEY.encode(), b"n" * 20, "md5")
        peer.send(b"#WELCOME#")

    with serving() as served, Raw(served) as peer:
        md5(peer)
        peer.send(GREETING + encode(hello()))
        reply = peer.reply()
        assert isinstance(reply, Fail)
        assert "SHA-256" in reply.message
        assert peer.read() is None
    with serving(allow_md5=0) as served, Raw(served) as peer, pytest.raises(AssertionError):
        md5(peer)
    eventually(lambda: "TASKYARD_ALLOW_MD5" in caplog.text)
    assert "127.0.0.1" in caplog.text


def test_an_address_that_keeps_failing_is_turned_away_at_the_door(
    served: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "FAILURES_AT_ONCE", 10.0)
    monkeypatch.setattr(limits, "FAILURES_PER_SECOND", 0.001)
    with Caller(served) as inside:
        for _ in range(10):
            with Raw(served) as peer:
                peer.write(b"junkjunkjunk")
                assert only_challenges(peer)
        eventually(lambda: served.server.connections == 1)
        with Raw(served) as peer:
            assert peer.rest() == []
        assert "fails the handshake" in caplog.text
        assert inside.call("task", "qsize") == 0


# ------------------------------------------------------------ caps


@pytest.mark.parametrize("name", ["connections", "connections_per_address"])
def test_connections_beyond_the_cap_are_closed_and_the_others_go_on(loop_name: str, name: str) -> None:
    with serving(loop_name, **{name: 5}) as served:
        inside = [Caller(served) for _ in range(5)]
        for _ in range(3):
            with Raw(served) as peer:
                assert peer.rest() == []
        assert inside[0].call("task", "qsize") == 0
        inside.pop().sock.close()
        eventually(lambda: served.server.connections == 4)
        with Caller(served) as peer:
            assert peer.call("task", "qsize") == 0
        for caller in inside:
            caller.sock.close()


def test_the_port_survives_having_no_descriptor_left(loop_name: str) -> None:
    """In a process of its own, whose limit of open files is low."""
    script = Script(sys.executable, Path(__file__).parent / "few_files.py", loop_name)
    address = "127.0.0.1", int(script.line())
    served = type("Address", (), {"address": address})
    with Caller(served) as honest:  # type: ignore[arg-type]
        crowd = [socket.create_connection(address, 20) for _ in range(80)]
        # Those that find no descriptor left are closed: a read says so. The others are greeted.
        greeted = [peer for peer in crowd if peer.recv(64)]
        assert 0 < len(greeted) < 60
        assert honest.call("task", "qsize") == 0
        for peer in crowd:
            peer.close()

        def back() -> bool:
            try:
                with Caller(served) as peer:  # type: ignore[arg-type]
                    return peer.call("task", "qsize") == 0
            except (AssertionError, ConnectionError):
                return False

        eventually(back)
        assert honest.call("task", "qsize") == 0
    script.output()


# ------------------------------------------------------------ peers that have proved the key


@pytest.mark.parametrize(
    "length",
    [
        struct.pack("!i", -2),
        struct.pack("!i", -1 << 31),
        struct.pack("!i", 0x7FFFFFFF),
        struct.pack("!iQ", -1, 1 << 50),
        struct.pack("!i", (16 << 20) + 1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dialect", ["yard", "plain"])
def test_a_wrong_length_ends_the_connection_with_one_line(
    served: Serving, length: bytes, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Caller(served) if dialect == "plain" else Raw(served).prove() as peer:
        if dialect == "yard":
            peer.greet()
        peer.write(length + b"x" * 1000)
        assert peer.rest() == []
    eventually(lambda: len(caplog.messages) == 1)


@pytest.mark.parametrize("dialect", ["yard", "plain"])
def test_a_frame_that_stops_half_way_ends_the_connection(
    loop_name: str, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PART_SECONDS", 0.1)
    with serving(loop_name, handshake=0.4) as served:
        with Caller(served) if dialect == "plain" else Raw(served).prove() as peer:
            if dialect == "yard":
                peer.greet()
            peer.write(struct.pack("!i", 1 << 20) + b"x" * 100)
            assert peer.rest() == []
        eventually(lambda: served.server.connections == 0)


def test_a_frame_may_take_longer_as_its_bytes_come(loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PART_SECONDS", 0.0)
    monkeypatch.setattr(connection_module, "PART_RATE", 100)
    with serving(loop_name) as served, Raw(served).prove() as peer:
        peer.greet()
        frame = encode(Renew(5, "x" * 10_000))
        data = len(frame).to_bytes(4) + frame
        peer.write(data[:9000])
        with Caller(served) as other:  # the first part has been read by the time that this returns
            other.call("task", "qsize")
        peer.write(data[9000:])
        assert peer.reply() == Ok(5)


def test_a_peer_that_does_not_read_is_dropped(loop_name: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(loop_name, output=8 << 20) as served, Raw(served).prove() as peer:
        peer.greet()
        served.call(served.service.close_gate)
        for number in range(20):
            peer.send(encode(Backup(number, 4 << 20)))
        eventually(lambda: len(served.service.handled) == 20)
        served.call(served.service.open_gate)
        eventually(lambda: served.server.connections == 0)
    assert "TASKYARD_OUTPUT" in caplog.text


def test_a_peer_that_reads_late_is_not_read_meanwhile_and_loses_nothing(loop_name: str) -> None:
    with serving(loop_name) as served, Raw(served).prove() as peer:
        peer.greet()
        for number in range(100):
            peer.send(encode(Backup(number, 1 << 20)))
        with Raw(served).prove() as other:
            other.greet()
            other.ask(Renew(1, "j"))
        assert len(served.service.handled) < 100
        assert sorted(peer.reply().seq for _ in range(100)) == list(range(100))


def test_one_reply_may_be_larger_than_the_output_limit(loop_name: str) -> None:
    with serving(loop_name, output=1 << 16) as served, Raw(served).prove() as peer:
        peer.greet()
        assert len(peer.ask(Backup(1, 4 << 20)).data) == 4 << 20


# ------------------------------------------------------------ the port


def test_a_port_in_use_is_one_line(served: Serving) -> None:
    with (
        pytest.raises(SettingsError, match="Address already in use"),
        serving(address=f"127.0.0.1:{served.port}"),
    ):
        pass


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "[::1]"])
def test_the_port_listens_where_the_address_says(host: str) -> None:
    with serving(address=f"{host}:0") as served:
        where = {"localhost": "localhost", "0.0.0.0": "127.0.0.1", "[::1]": "::1"}[host]
        assert served.server.address == f"{host}:{served.port}"
        with socket.create_connection((where, served.port), 20) as peer:
            assert peer.recv(64)[4:].startswith(b"#CHALLENGE#")
        eventually(lambda: served.service.connections() == 0)


# ------------------------------------------------------------ peers that do not read


def greedy(served: Serving, requests: int, size: int = 4 << 20) -> Raw:
    peer = Raw(served).prove()
    peer.greet()
    for number in range(1, requests + 1):
        peer.send(encode(Backup(number, size)))
    return peer


def test_a_peer_that_reads_nothing_is_dropped(
    loop_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_module, "READ_SECONDS", 0.3)
    with serving(loop_name) as served, greedy(served, 8):
        eventually(lambda: served.server.connections == 0)
    assert "it read nothing for 0.3 s" in caplog.text


def test_nothing_large_is_made_for_a_peer_that_does_not_read(loop_name: str) -> None:
    with serving(loop_name) as served, greedy(served, 50) as peer:
        with Raw(served).prove() as other:
            other.greet()
            other.ask(Renew(1, "j"))
        assert len(served.service.handled) < 10
        assert sorted(peer.reply().seq for _ in range(50)) == list(range(1, 51))


def test_what_waits_for_all_together_is_bounded(
    loop_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(common, "OUTPUTS", 1)
    with serving(loop_name, output=20 << 20) as served:
        peers = [greedy(served, 1, size=16 << 20) for _ in range(4)]
        eventually(lambda: "most of it for this one" in caplog.text)
        assert served.server.connections >= 1
        for peer in peers:
            peer.sock.close()


# ------------------------------------------------------------ peers whose requests keep failing


def test_a_peer_that_keeps_failing_waits_and_others_do_not(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.Faults, "AT_ONCE", 20.0)
    monkeypatch.setattr(limits.Faults, "PER_SECOND", 100.0)
    begun = time.monotonic()
    with Caller(served) as plain, Raw(served).prove() as yard, Caller(served) as other:
        yard.greet()
        for number in range(2, 62):
            plain.say("get_task", "no_method")
            yard.send(encode(Status(number, "gap")))
        assert other.call("task", "qsize") == 0
        for number in range(2, 62):
            assert plain.hear()[0] == "#TRACEBACK"
            reply = yard.reply()
            assert isinstance(reply, Fail) and reply.seq == number
        assert time.monotonic() - begun > 0.3  # 40 beyond those at once, a hundredth of a second each
        assert plain.call("task", "qsize") == 0
        assert yard.ask(Renew(99, "j")) == Ok(99)
