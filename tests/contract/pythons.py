"""The Pythons on this machine that can be stdlib peers: the running one, those on PATH, pyenv's."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

TUTORIALS = Path(__file__).parent / "tutorials"
OLDEST = (3, 8)


@cache
def pythons() -> dict[str, str]:
    """Version -> program, each of them tried."""
    candidates = [sys.executable, *map(str, Path.home().glob(".pyenv/versions/3.*/bin/python"))]
    for minor in range(OLDEST[1], 20):
        candidates += filter(None, [shutil.which(f"python3.{minor}")])
    found: dict[str, str] = {}
    probe = "import sys, multiprocessing.managers; print('%d.%d' % sys.version_info[:2])"
    for program in candidates:
        done = subprocess.run([program, "-c", probe], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and re.fullmatch(r"3\.\d+", version) and int(version[2:]) >= OLDEST[1]:
            found.setdefault(version, program)
    return dict(sorted(found.items(), key=lambda item: int(item[0][2:])))


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
