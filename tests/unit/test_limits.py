"""Who may connect, and how much is said about those who may not."""

import logging

import pytest

from taskyard_master.limits import (
    FAILURES_AT_ONCE,
    FAILURES_PER_SECOND,
    STRANGER,
    TLS_HELLO,
    Admission,
    Complaints,
    Door,
    Faults,
    group,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_connections_are_capped_in_all_and_by_address() -> None:
    admission = Admission(5, 3)
    assert [admission.enter("a") for _ in range(3)] == ["", "", ""]
    assert "PER_ADDRESS" in admission.enter("a")
    assert admission.enter("b") == admission.enter("c") == ""
    assert "TASKYARD_CONNECTIONS" in admission.enter("d")
    admission.leave("a")
    assert admission.enter("d") == ""
    for address in "aabcd":
        admission.leave(address)
    assert admission.count == 0


def test_an_address_that_keeps_failing_is_turned_away_until_it_pauses() -> None:
    clock = Clock()
    admission = Admission(10_000, 10_000, clock)
    for _ in range(int(FAILURES_AT_ONCE)):
        assert admission.enter("bad") == ""
        admission.failed("bad")
    assert "handshake" in admission.enter("bad")
    assert admission.enter("good") == ""
    clock.now += 1.0
    for _ in range(int(FAILURES_PER_SECOND)):
        assert admission.enter("bad") == ""
        admission.failed("bad")
    assert "handshake" in admission.enter("bad")
    clock.now += 60.0
    assert admission.enter("bad") == ""


@pytest.mark.parametrize(("tls", "turned_away", "most"), [
    (False, False, 375), (True, False, 68), (False, True, 5000),
])  # fmt: skip
def test_so_many_strangers_come_in_in_a_second(tls: bool, turned_away: bool, most: int) -> None:
    clock, came = Clock(), 0
    door = Door(tls=tls, clock=clock)
    while clock.now < 1001:
        while not (wait := door.shut()):
            door.passed(turned_away=turned_away)
            if tls:
                door.began_tls()
            came += 1
        assert 0 < wait <= Door.ROUND * 1.01
        clock.now += wait
    assert came == pytest.approx(most, abs=max(2, most / 100))


def test_who_never_begins_tls_costs_others_no_more_than_without() -> None:
    clock, came = Clock(), 0
    door = Door(tls=True, clock=clock)
    while clock.now < 1001:
        while not (wait := door.shut()):
            door.passed(turned_away=False)
            came += 1
        clock.now += wait
    assert came == pytest.approx(375, abs=4)


def test_a_debt_is_made_up_for_and_has_an_end() -> None:
    """Thousands who come in silently and then all begin at once keep the others out for some seconds."""
    clock = Clock()
    door = Door(tls=True, clock=clock)
    assert not door.shut()
    for _ in range(5000):
        door.began_tls()
    while wait := door.shut():
        clock.now += wait
    assert clock.now - Clock().now == pytest.approx(Door.DEBT / Door.SHARE, rel=0.01)
    clock.now += 60
    let_in = 0
    while not door.shut():
        door.passed(turned_away=False)
        let_in += 1
    assert let_in <= 2  # time that passed without strangers is not saved up


@pytest.mark.parametrize("tls", [False, True])
def test_those_who_have_the_key_make_room_for_others_at_once(tls: bool) -> None:
    clock, came = Clock(), 0
    door = Door(tls=tls, clock=clock)
    waiting = 5000
    while waiting:
        wait, let_in = door.shut(), 0
        while waiting and not wait:
            door.passed(turned_away=False)
            if tls:
                door.began_tls()
            waiting, let_in, wait = waiting - 1, let_in + 1, door.shut()
        came += let_in
        clock.now += max(wait, Door.ROUND / 4)
        for _ in range(let_in):
            door.proved()
    assert clock.now - Clock().now < 5000 * (STRANGER + TLS_HELLO * tls) / Door.SHARE / 10


def test_who_keeps_failing_waits_so_that_a_thousand_a_second_are_left() -> None:
    clock = Clock()
    faults = Faults(clock)
    for _ in range(int(Faults.AT_ONCE)):
        assert faults.count() == 0
    begun, count = clock.now, 5000
    for _ in range(count):
        clock.now += faults.count()
    assert clock.now - begun == pytest.approx(count / Faults.PER_SECOND, rel=0.01)
    clock.now += 10
    assert faults.count() == 0
    assert faults.count(1 << 20) > 1.0  # as long as it takes to find out, and some


def test_slow_failures_are_never_turned_away() -> None:
    clock = Clock()
    admission = Admission(10_000, 10_000, clock)
    for _ in range(2000):
        assert admission.enter("probe") == ""
        admission.failed("probe")
        admission.leave("probe")
        clock.now += 0.5


def test_what_is_remembered_of_failures_is_bounded() -> None:
    admission = Admission(10_000, 10_000, Clock())
    for number in range(10_000):
        admission.failed(str(number))
    assert len(admission._failures) < 5000


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_peer_cannot_change_its_group(host: str, expected: str) -> None:
    assert group(host) == expected


def test_complaints_of_a_kind_are_few_and_count_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    complaints = Complaints(logging.getLogger("test"), clock)
    for number in range(100):
        complaints.say("junk", f"peer {number}")
    complaints.say("other", "something else")
    assert len(caplog.messages) == Complaints.LINES + 1
    clock.now += Complaints.SECONDS
    complaints.say("junk", "peer 100")
    assert caplog.messages[-1] == "peer 100 (and 95 more like it were not shown)"
