"""Scripts in processes of their own, by every Python there is."""

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from pythons import VERSIONS, python

TUTORIALS = Path(__file__).parent / "tutorials"


@cache
def all_pythons() -> dict[str, str]:
    """Version -> program."""
    found = {}
    for version in VERSIONS:
        with suppress(pytest.skip.Exception):
            found[version] = python(version)
    assert len(found) > 1 or not os.environ.get("CI"), "CI has a second Python, old tutorials' peers"
    return found


class Script:
    """A script in a process of its own."""

    def __init__(self, program: str, *words: object) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [program, "-u", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def line(self) -> str:
        """The next line that it prints; empty at its end."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        """Kill it as nothing can prepare for."""
        self.process.kill()
        self.process.communicate()

    def output(self, seconds: float = 60) -> str:
        """All that it prints, once it has ended well."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self.process.returncode == 0, f"{self.process.args}: {self.process.returncode}\n{out}\n{err}"
        return out


def tutorial(program: str, name: str, address: tuple[str, int], key: str) -> Script:
    return Script(program, TUTORIALS / name, *address, key)
