"""Lines of the log: one an event, whatever is in it."""

import logging

import pytest

from taskyard import log


def test_a_log_line_stays_one_whatever_peers_call_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        log.setup("text")
        log.event(logging.getLogger("x"), "e", "worker a\n2026 error \x1b[31mred\u2028é joined")
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before, level
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert r"worker a\n2026 error \x1b[31mred\u2028é joined" in said
