"""Where the tests are, and what to do for want of something on this machine."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent


def lacking(what: str) -> NoReturn:
    """Give up on a test for want of something: skip it aloud, or fail it where CI is set.

    In CI a skipped test would be a promise nobody checked.
    """
    if os.environ.get("CI"):
        pytest.fail(f"this machine lacks {what}, which .ci/run should have installed")
    pytest.skip(f"this machine lacks {what}")
