"""Tickets and gifts as bytes, invitations at the master, and the folder of a machine that joined."""

from dataclasses import replace
from pathlib import Path

import pytest

from taskyard import messages as m
from taskyard.errors import SettingsError, UsageError
from taskyard.invitation import FILES, Gift, Ticket
from taskyard.tls_identity import Identity
from taskyard_master.inviting import LONGEST, MOST, MOST_BYTES, Invitations
from taskyard_worker.joining import join, keep, kept

TICKET = Ticket("192.0.2.1:5000", "desk", 1 << 40, b"ca", b"cert", b"key" * 50)
GIFT = Gift({"TASKYARD_LOG": "json"}, {name: name.encode() for name in FILES})
WHO = Identity("worker", "desk", 0xABC, 0.0, 100.0, (), once=True)


def invite(serial: str = "ABC", ends: float = 100.0, gift: bytes = b"gift") -> m.Invite:
    return m.Invite(0, serial, "desk", ends, gift)


def test_a_ticket_survives_a_terminal() -> None:
    """Broken into lines, it is the same."""
    text = TICKET.text()
    assert Ticket.read(text) == TICKET
    assert Ticket.read(f" {text[:70]}\n{text[70:]}\n") == TICKET


@pytest.mark.parametrize("text", ["", "ty1-", "ty1-!!", "ty2-abc", TICKET.text()[:-9], "ty1-" + "é" * 9])
def test_what_is_no_ticket(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^TASKYARD_JOIN: is no whole ticket \(.*\n?.*paste all"):
        Ticket.read(text)


@pytest.mark.parametrize(
    "gift",
    [
        Gift({"PATH": "/tmp"}, GIFT.files),
        Gift({}, {**GIFT.files, "../../etc/passwd": b""}),
        Gift({}, {"ca.pem": b""}),
    ],
)
def test_a_gift_that_a_worker_does_not_take(gift: Gift) -> None:
    """Names of files become paths, and settings the environment."""
    with pytest.raises(SettingsError, match="other files or settings"):
        Gift.read(gift.data())
    with pytest.raises(SettingsError, match="no gift"):
        Gift.read(b"\x93")


def test_an_invitation_is_good_once() -> None:
    book = Invitations()
    book.add(invite(), now=0.0)
    assert book.answer(WHO, "192.0.2.9:1", now=1.0) == m.Gift(0, b"gift")
    again = book.answer(WHO, "192.0.2.9:1", now=1.0)
    assert isinstance(again, m.Fail) and "it was used" in again.message
    book.add(invite(), now=2.0)  # the same serial is free again
    assert isinstance(book.answer(replace(WHO, serial=0xABD), "x", now=2.0), m.Fail)


def test_an_invitation_ends() -> None:
    book = Invitations()
    book.add(invite(), now=0.0)
    assert isinstance(book.answer(WHO, "x", now=100.0), m.Fail)
    for number in range(MOST):
        book.add(invite(f"{number:X}", ends=50.0), now=0.0)
    with pytest.raises(UsageError, match=f"{MOST} invitations wait"):
        book.add(invite("FFFFF"), now=0.0)
    book.add(invite("FFFFF"), now=50.0)


def test_what_the_master_does_not_keep() -> None:
    """A second gift for one serial, one that is too large, or for too long."""
    book = Invitations()
    book.add(invite(), now=0.0)
    for wrong in (invite(gift=b"mine"), invite("1", gift=bytes(MOST_BYTES + 1)), invite("1", LONGEST + 1),
                  invite("1", ends=0.0)):  # fmt: skip
        with pytest.raises(UsageError):
            book.add(wrong, now=0.0)
    assert book.answer(WHO, "x", now=1.0) == m.Gift(0, b"gift")


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """With the ticket that brought it, or without any; not with another one."""
    folder = tmp_path / "joined"
    assert kept(folder, "t") is None
    found = keep(folder, "t", TICKET, GIFT)
    assert kept(folder, "t") == kept(folder, "") == found
    assert kept(folder, "other") is None
    assert found["TASKYARD_HOST"] == "desk" and found["TASKYARD_LOG"] == "json"
    assert Path(found["TASKYARD_TLS_KEY"]).read_bytes() == b"key.pem"
    (folder / "joined.json").write_text("{")
    with pytest.raises(SettingsError, match="cannot be read"):
        kept(folder, "t")


def test_the_environment_of_one_that_joined(tmp_path: Path) -> None:
    """The yard says where it is and who this is; of other settings, those of the machine win."""
    folder = tmp_path / "joined"
    keep(folder, TICKET.text(), TICKET, Gift({"TASKYARD_LOG": "json", "TASKYARD_SLOTS": "3"}, GIFT.files))
    environ = {
        "TASKYARD_JOIN": TICKET.text(), "TASKYARD_JOINED": str(folder), "TASKYARD_SLOTS": "7",
        "TASKYARD_ADDRESS": "master:5000", "TASKYARD_AUTHKEY": "another-key-than-the-yard's", "LANG": "C",
    }  # fmt: skip
    join(environ)
    assert environ["TASKYARD_ADDRESS"] == TICKET.address
    assert (environ["TASKYARD_SLOTS"], environ["TASKYARD_LOG"]) == ("7", "json")
    assert "TASKYARD_JOIN" not in environ and "TASKYARD_AUTHKEY" not in environ
    plain = {"TASKYARD_AUTHKEY": "k", "TASKYARD_JOINED": str(tmp_path / "none")}
    join(plain)
    assert plain == {"TASKYARD_AUTHKEY": "k", "TASKYARD_JOINED": str(tmp_path / "none")}
    with pytest.raises(SettingsError, match="TASKYARD_JOIN_FILE"):
        join({"TASKYARD_JOIN_FILE": str(tmp_path / "gone"), "TASKYARD_JOINED": str(tmp_path / "none")})


def test_a_folder_that_cannot_keep_it(tmp_path: Path) -> None:
    """Is named, with what to do."""
    (tmp_path / "joined").write_text("")
    with pytest.raises(Exception, match="make it writable, and join with a new ticket"):
        keep(tmp_path / "joined", "t", TICKET, GIFT)
