"""What the tasks require is installed once, for workers that are processes; no network is needed here."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from yards import TestYard

TASKS = "import crumb\n\ndef version(n):\n    return crumb.VERSION\n"


def make_wheel(folder: Path, version: str) -> None:
    """A package of one module, by hand."""
    folder.mkdir(exist_ok=True)
    info = f"crumb-{version}.dist-info"
    files = {
        "crumb.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: crumb\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"crumb-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, content)


def require(yard: TestYard, *lines: str) -> None:
    text = "\n".join(["# no network", "--no-index", f"--find-links {yard.folder / 'wheels'}", *lines])
    (yard.folder / "tasks" / "requirements.txt").write_text(text + "\n")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[TestYard]:
    yard = TestYard(tmp_path / "yard")
    (yard.folder / "tasks" / "baker.py").write_text(TASKS)
    for version in ("1.0", "2.0"):
        make_wheel(yard.folder / "wheels", version)
    yield yard
    yard.run("down", "--deadline", "0")


def version(yard: TestYard) -> str:
    (row,) = yard.run("submit", "baker:version", "--range", "0:1", "--wait").rows()
    return str(row["value"])


def test_requirements_are_installed_once_and_edits_taken_up(yard: TestYard) -> None:
    requirements = yard.folder / "tasks" / "requirements.txt"
    require(yard, "crumb==1.0", "nosuch-crumb>=3  # not there")
    failed = yard.run("up", "--local", "--workers", "2", code=2)
    assert failed.err.splitlines()[-1] == (
        f"taskyard: {requirements}, line 5 (nosuch-crumb>=3), cannot be installed: Could not find a version"
        " that satisfies the requirement nosuch-crumb>=3 (from versions: none)"
    )

    require(yard, "crumb==1.0")
    assert f"installing {requirements}" in yard.run("up", "--local", "--workers", "2").err.splitlines()
    assert version(yard) == "1.0"
    assert "baker:version" in yard.run("check").out

    require(yard, "crumb==2.0")
    assert version(yard) == "2.0", "an edit while the yard runs"
    require(yard, "crumb==3.0")
    assert version(yard) == "2.0", "what cannot be installed leaves what is there"
    said = yard.run("logs", "--grep", "cannot be installed").out
    assert f"{requirements}, line 4 (crumb==3.0), cannot be installed" in said

    yard.run("down")
    for wheel in (yard.folder / "wheels").iterdir():
        wheel.unlink()
    require(yard, "crumb==1.0")
    again = yard.run("up", "--local", "--workers", "1")
    assert "installing" not in again.err, "nothing has changed: no network, no wheel is needed"
    assert version(yard) == "1.0"
