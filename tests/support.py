"""What many tests need: waiting for a state, with a deadline, instead of sleeping."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str = "", seconds: float = 20.0) -> T:
    """Look again and again until `look` gives something true; fails after `seconds`."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or look}; last seen: {found!r}")
        pause.wait(0.01)
