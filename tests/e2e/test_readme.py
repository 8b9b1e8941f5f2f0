"""Every shell command and every piece of Python in the README is run, as a new user would."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import free_port

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


class Shell:
    """A folder of a new user, with `taskyard` on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DOCKER_HOST": "unix:///nowhere",  # the container tests are beside this one: here, --local
        }

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    if (tmp_path / ".env").exists():
        shell.run("taskyard down")


def test_the_readme_from_top_to_bottom(shell: Shell) -> None:
    """Own function, more workers, Python, an old script: in one yard, in the README's order."""
    two_commands, own_function, more_workers, _several_hosts = blocks("sh")  # the last: tests/e2e/hosts
    assert re.findall(r"^make \w+", two_commands, re.MULTILINE) == ["make demo", "make test"]

    shell.run("taskyard init")
    port = free_port()
    shell.run(f"sed -i 's/^TASKYARD_ADDRESS=.*/TASKYARD_ADDRESS=127.0.0.1:{port}/' .env")
    lines = shell.run(own_function).splitlines()
    assert [f'"index":{n},' in line for n, line in enumerate(lines)] == [True] * 10
    assert sum('"value":true' in line for line in lines) == 1, "1000003 is the one prime of them"

    output = shell.run(more_workers.replace("taskyard down", ""))
    assert "joined" in output
    assert len((shell.folder / "primes.jsonl").read_text().splitlines()) == 100_000

    plain, client, executor = blocks("python")
    key = re.search("TASKYARD_AUTHKEY=(.*)", (shell.folder / ".env").read_text())
    assert key is not None
    plain = plain.replace("5002", str(port)).replace('b"..."', f'b"{key[1]}"')
    use = """
task.put((1, "two"))
assert task.get(timeout=5) == (1, "two")
result.put("done")
assert result.get(timeout=5) == "done"
"""
    (shell.folder / "plain.py").write_text(plain + use)
    (shell.folder / "client.py").write_text(client.replace("10_000_000", "100"))
    shell.run(f"{sys.executable} plain.py")
    printed = shell.run(f"set -a; . ./.env; set +a; {sys.executable} client.py")
    assert "97 True" in printed.splitlines()
    (shell.folder / "executor.py").write_text(executor)
    assert shell.run(f"set -a; . ./.env; set +a; {sys.executable} executor.py") == "9592 True\n"
    shell.run("taskyard down")


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_demo_says_what_it_needs() -> None:
    assert shutil.which("make") is not None
    listing = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert "make demo" in listing.stdout and "make test" in listing.stdout
