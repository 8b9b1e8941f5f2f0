"""The same with TLS, where every stranger could have the master do a handshake's arithmetic."""

import contextlib
import random

import pytest
from junk import nonsense
from siege import HANDSHAKE, PATIENCE, Siege
from tlspeers import careless

pytestmark = pytest.mark.timeout(300)


def test_two_thousand_that_say_nothing(sealed: Siege) -> None:
    sealed.connect(2000)
    sealed.end("TLS: 2,000 silent connections", HANDSHAKE, sealed.freed(HANDSHAKE))


def test_two_thousand_that_talk_nonsense(sealed: Siege) -> None:
    """A third of them says hello as browsers do, and then nothing."""
    draw = random.Random(7)
    for number in range(10):
        with sealed.storm():
            for part in range(2):
                for said in nonsense(sealed.connect(100, f"127.0.1.{2 * number + part}"), draw):
                    assert b"#CHALLENGE#" not in said
    sealed.end("TLS: 2,000 of nonsense", 0.0, sealed.freed(0))


def test_a_thousand_without_a_certificate(sealed: Siege) -> None:
    """They do all of the handshake that can be done without one, which costs the master as much as them."""
    context = careless(None)
    let_in = 0
    for number in range(10):
        with sealed.storm():
            for sock in sealed.connect(100, f"127.0.2.{number}"):
                sock.settimeout(PATIENCE)
                with contextlib.suppress(OSError), context.wrap_socket(sock) as wire:
                    let_in += bool(wire.recv(5))
    assert not let_in
    sealed.end("TLS: 1,000 without a certificate", 0.0, sealed.freed(0))
