"""Which line of requirements.txt failed, from what pip says in each case."""

import os
import sys
from pathlib import Path

import pytest

from taskyard import environment
from taskyard.errors import RequirementsError

TEXT = "# numbers\nsix\n\n./local-thing\nno-such-package==1.0  # note\n-r more.txt\nmsgspec==0.1\n"
CASES = {
    "not there": (
        "Collecting six (from -r r.txt (line 2))\n"
        "ERROR: Could not find a version that satisfies the requirement no-such-package==1.0"
        " (from versions: none)\n"
        "ERROR: No matching distribution found for no-such-package==1.0\n",
        (5, "no-such-package==1.0", "Could not find a version that satisfies the requirement"),
    ),
    "no requirement": (
        "ERROR: Invalid requirement: 'six six' (from line 2 of tasks/requirements.txt)\n",
        (2, "six", "Invalid requirement: 'six six'"),
    ),
    "another file": (
        "ERROR: Could not open requirements file: [Errno 2] No such file or directory: 'tasks/more.txt'\n",
        (6, "-r more.txt", "Could not open requirements file"),
    ),
    "contradiction, in BuildKit's log": (
        "#9 1.204 Collecting six (from -r r.txt (line 2))\n"
        "#9 1.377 ERROR: Cannot install msgspec==0.1 because these package versions have conflicting"
        " dependencies.\n"
        "#9 1.377 ERROR: ResolutionImpossible: for help visit https://pip.pypa.io\n",
        (7, "msgspec==0.1", "Cannot install msgspec==0.1 because"),
    ),
    "a build that fails": (
        "Processing ./local-thing\n  Preparing metadata (pyproject.toml): finished with status 'error'\n"
        "  error: subprocess-exited-with-error\n  \n  \u00d7 Preparing metadata did not run successfully.\n"
        "  │ exit code: 1\n  ╰─> [1 lines of output]\n      KeyError: 'HOME'\n      [end of output]\n",
        (4, "./local-thing", "KeyError: 'HOME'"),
    ),
    "of a dependency": (
        "Collecting six (from -r r.txt (line 2))\nCollecting deep>=2 (from sixpence->-r r.txt (line 2))\n"
        "ERROR: No matching distribution found for deep>=2\n",
        (2, "six", "No matching distribution found for deep>=2"),
    ),
    "nobody knows": ("Segmentation fault\n\n", (0, "", "Segmentation fault")),
    "silence": ("", (0, "", "it said nothing")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_line_that_failed(name: str) -> None:
    output, (number, asked, words) = CASES[name]
    found = environment.failure(TEXT, output)
    assert found[:2] == (number, asked)
    assert found[2].startswith(words)


def test_many_versions_are_not_listed() -> None:
    error = "ERROR: No version (from versions: " + ", ".join(f"1.{n}" for n in range(90)) + ")"
    assert environment.failure("six\n", error)[2] == "No version (from versions: ..., 1.87, 1.88, 1.89)"


@pytest.mark.parametrize("text", ["", "\n# six\n  # more\n", None])
def test_what_asks_for_nothing_needs_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "requirements.txt").write_text(text)
    assert environment.python_for(tmp_path, tmp_path / "home") == sys.executable
    assert not (tmp_path / "home").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"\xff")
    with pytest.raises(RequirementsError, match=r"requirements\.txt cannot be read"):
        environment.requirements(tmp_path)
    assert environment.there(tmp_path, tmp_path) == sys.executable


def test_the_latest_environments_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "complete").touch()
        os.utime(tmp_path / str(number) / "complete", (number, number))
    environment.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5"]
