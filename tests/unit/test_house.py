"""The house keeps its own rules: make, locks, who may import whom, and what the wheel carries."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from taskyard_ctl import images

ROOT = Path(__file__).parents[2]
ROOMS = {
    "taskyard": ROOT / "core",
    "taskyard_master": ROOT / "master",
    "taskyard_worker": ROOT / "worker",
    "taskyard_ctl": ROOT / "scripts",
}
LOCKS = ("dev", "master", "worker")


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as a user would, though these tests may themselves have been started by one."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_make_alone_prints_every_target() -> None:
    """`make` explains itself, and no target is left out."""
    printed = make().stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert [line.split()[1] for line in printed.splitlines()] == targets[1].split()


def test_make_without_a_fitting_python_says_so_in_one_line(tmp_path: Path) -> None:
    """No Python 3.11+ means one line with the cure, and nothing half made."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "dev.txt").touch()
    done = make("setup", "PYTHON=no-such-python", folder=tmp_path)
    assert done.returncode == 2
    assert "no Python 3.11+" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_run_only_toward_core(room: str) -> None:
    """Core imports no other room; master, worker and command import core alone."""
    forbidden = set(ROOMS) - {room, "taskyard"}
    for module in (ROOMS[room] / room).rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            crossing = {name for name in names if name.split(".")[0] in forbidden}
            assert not crossing, f"{module.relative_to(ROOT)} imports {crossing}"


def locked(lock: str) -> dict[str, str]:
    """Name -> version of every package in a lock."""
    return dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "locks" / f"{lock}.txt").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_names_no_host(lock: str) -> None:
    """Any index may serve the packages; the hashes say which files are meant."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    assert "://" not in text
    packages = re.findall(r"^[a-z0-9-]+==.*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(packages) == len(locked(lock)) > 0


def test_locks_agree_and_hold_what_the_project_asks_for() -> None:
    """The images run the versions that were tested; a forgotten `make lock` is found here."""
    dev = locked("dev")
    for lock in ("master", "worker"):
        assert locked(lock).items() <= dev.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        found = {re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() for requirement in requirements}
        return found - {"taskyard"}

    assert names(project["dependencies"]) <= locked("worker").keys()
    assert names(project["dependencies"] + extras["master"]) <= locked("master").keys()
    assert names([*project["dependencies"], *extras["master"], *extras["ctl"], *extras["dev"]]) <= dev.keys()


def test_dockerfiles_build_anywhere() -> None:
    """One base argument, and no syntax line, which would be an image to pull."""
    for role in ("master", "worker"):
        lines = (ROOT / role / "Dockerfile").read_text().splitlines()
        assert f"ARG BASE_IMAGE={images.REGISTRY_BASE}" in lines
        assert not [line for line in lines if line.replace(" ", "").startswith("#syntax=")]


def test_the_wheel_holds_four_packages_and_the_kit(tmp_path: Path) -> None:
    """An installed command finds all that it builds images from and starts."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == set(ROOMS)

    kit = subprocess.run(
        [sys.executable, "-S", "-c", "from taskyard_ctl.kitfiles import kit_folder; print(kit_folder())"],
        cwd=installed, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    assert Path(kit) == installed / "taskyard_ctl" / "kit"
    wanted = {part for parts in images.PARTS.values() for part in parts}
    for part in sorted(
        wanted | {"docker-compose.yml", "examples", "scripts/base-image", "scripts/debian-unpack"}
    ):
        assert (Path(kit) / part).exists(), part
    assert not list(installed.rglob("__pycache__"))
