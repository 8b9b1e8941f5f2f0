"""The server's yard dialect: order, bounds, errors and the end of connections."""

from collections.abc import Iterator

import pytest
from serving import KEY, LOOPS, Raw, Serving, hello, serving
from support import eventually

from taskyard.messages import GREETING, Cancel, Fail, Notice, Ok, Renew, Status, Welcome, encode
from taskyard_master import yard_dialect


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with serving(request.param) as running:
        yield running


def test_a_hello_is_answered_and_then_every_request_with_its_number(served: Serving) -> None:
    with Raw(served).prove() as peer:
        assert peer.greet().seq == 1
        assert peer.ask(Renew(17, "j")) == Ok(17)
        assert served.service.peers[0].hello == hello()
        assert served.service.peers[0].heard > 0


def test_requests_start_in_the_order_of_arrival_and_replies_come_as_they_are_ready(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.greet()
        peer.write(b"".join(len(e).to_bytes(4) + e for n in range(200) if (e := encode(Renew(n, str(n))))))
        assert {peer.reply().seq for _ in range(200)} == set(range(200))
        assert [request.seq for request in served.service.handled] == list(range(200))


def test_the_hello_and_what_follows_may_come_in_one_write(served: Serving) -> None:
    with Raw(served).prove() as peer:
        first, second = GREETING + encode(hello()), encode(Renew(2, "j"))
        peer.write(len(first).to_bytes(4) + first + len(second).to_bytes(4) + second)
        assert isinstance(peer.reply(), Welcome)
        assert peer.reply() == Ok(2)


def test_errors_travel_by_name_and_unexpected_ones_say_nothing(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.greet()
        assert peer.ask(Status(3, "gap")) == Fail(3, "GapError", "the chunk starts too late", 7)
        reply = peer.ask(Status(4, "crash"))
        assert reply == Fail(4, "TaskyardError", "internal error, see the master's log")
        assert peer.ask(Renew(5, "j")) == Ok(5)


def test_a_peer_with_too_many_requests_in_flight_is_not_read(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yard_dialect, "MOST", 10)
    served.call(served.service.close_gate)
    with Raw(served).prove() as peer:
        peer.greet()
        for number in range(25):
            peer.send(encode(Renew(number, "j")))
        eventually(lambda: len(served.service.handled) == 10)
        with Raw(served).prove() as other:  # a round trip: whatever was to be read has been
            other.greet()
        assert len(served.service.handled) == 10
        served.call(served.service.open_gate)
        assert {peer.reply().seq for _ in range(25)} == set(range(25))


def test_the_end_of_a_connection_reaches_the_service_once_and_cancels_what_waits(served: Serving) -> None:
    served.call(served.service.close_gate)
    peer = Raw(served).prove()
    peer.greet()
    peer.send(encode(Renew(1, "j")))
    eventually(lambda: served.service.handled)
    peer.reset()
    eventually(lambda: served.service.ended)
    assert served.service.ended == served.service.peers
    assert served.service.cancelled == 1
    eventually(lambda: served.server.connections == 0)
    served.service.peers[0].notify(Notice(0, "drain"))  # goes nowhere


def test_a_notice_arrives_unasked(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.greet()
        served.call(served.service.peers[0].notify, Notice(0, "drop", [5]))
        assert peer.reply() == Notice(0, "drop", [5])


def test_the_service_can_close_a_connection(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.greet()
        served.call(served.service.peers[0].close, "a newer connection took its place")
        assert peer.read() is None
        eventually(lambda: served.service.ended)


BAD_TEXT = encode(Renew(1, "jjjj")).replace(b"jjjj", b"j\x80jj")
DEEP = b"\x91" * 100_000


@pytest.mark.parametrize(
    "frame",
    [BAD_TEXT, DEEP, b"", b"\x00", b"junk" * 50, encode(hello()), encode(Ok(1))],
    ids=lambda frame: frame[:8].hex(),
)
def test_what_is_no_request_ends_the_connection(served: Serving, frame: bytes) -> None:
    with Raw(served).prove() as peer:
        peer.greet()
        peer.send(frame)
        assert peer.read() is None


def test_what_is_no_hello_ends_the_connection_and_the_service_hears_nothing(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.send(GREETING + encode(Cancel(1, "j")))
        assert peer.rest() == []
    eventually(lambda: served.server.connections == 0)
    assert served.service.ended == []


def test_another_version_of_the_yard_is_told_so(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.send(b"yard/9" + encode(hello()))
        reply = peer.reply()
        assert isinstance(reply, Fail)
        assert reply.error == "RefusedError"
        assert "yard/1" in reply.message
        assert peer.read() is None


def test_a_refused_hello_is_answered_and_then_the_connection_ends(served: Serving) -> None:
    with Raw(served).prove() as peer:
        peer.send(GREETING + encode(hello("stranger")))
        assert peer.reply() == Fail(1, "RefusedError", "no strangers")
        assert peer.read() is None
    eventually(lambda: len(served.service.ended) == 1)


def test_stopping_tells_the_service_of_every_peer() -> None:
    with serving() as served:
        peers = [Raw(served).prove() for _ in range(5)]
        for peer in peers:
            peer.greet()
        served.run(served.server.stop())
        assert len(served.service.ended) == 5
        assert served.server.connections == 0
        assert [peer.read() for peer in peers] == [None] * 5
        for peer in peers:
            peer.sock.close()


def test_keys_that_differ_in_one_letter_do_not_fit() -> None:
    with serving() as served, Raw(served) as peer, pytest.raises(Exception, match="refused the authkey"):
        peer.prove(KEY[:-1] + "0")
