"""The other Pythons of this machine, for tests that talk to the standard library of each."""

import functools
import shutil
import sys
from pathlib import Path

import pytest

VERSIONS = [f"3.{minor}" for minor in range(8, 16)]


@functools.cache
def _found() -> dict[str, str]:
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for version in VERSIONS:
        installed = sorted(map(str, Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")))
        on_path = shutil.which(f"python{version}")
        # pyenv's stand-ins on the path answer for versions that are installed, and switched off.
        for path in installed[-1:] + ([on_path] if on_path and "shims" not in on_path else []):
            found.setdefault(version, path)
    return found


def python(version: str) -> str:
    """Return the executable of a Python ("3.8" to "3.15"); skips the test where there is none."""
    if version not in _found():
        pytest.skip(f"no Python {version} on this machine")
    return _found()[version]
