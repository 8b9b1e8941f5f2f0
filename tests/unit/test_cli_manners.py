"""Manners of the command line: dry runs, completion, plain text where no colour is wanted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard_ctl.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A yard that does not run: a dry run needs none."""
    (tmp_path / ".env").write_text("TASKYARD_ADDRESS=127.0.0.1:1\nTASKYARD_AUTHKEY=0123456789abcdef\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("taskyard_ctl.yard.PATIENCE_S", 0.1)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "calls", "said"),
    [
        (["--range", "0:1000000"], [f"a:b({n})" for n in range(5)], "the first 5 of 1,000,000 calls"),
        (["--range", "0:2"], ["a:b(0)", "a:b(1)"], "all 2 calls"),
        (["--arg", '[1, "x"]', "--arg", '{"n": 2}'], ["a:b(1, 'x')", "a:b(n=2)"], "all 2 calls"),
        (["--input", "lines"], [f"a:b('{n}')" for n in range(5)], "the first 5 of more calls"),
        (["--input", "lines", "--jsonl"], [f"a:b({n})" for n in range(5)], "the first 5 of more calls"),
    ],
)
def test_a_dry_run_shows_the_first_calls(
    arguments: list[str], calls: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lines").write_text("".join(f"{n}\n" for n in range(7)))
    assert main(["submit", "a:b", *arguments, "--dry-run"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == calls
    assert output.err.splitlines()[-1] == f"dry run: {said}; nothing was submitted"
    assert "is not known: no master answers" in output.err


def test_a_dry_run_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "a:b", "--arg", '{"n": 2}', "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"function": "a:b", "args": [], "kwargs": {"n": 2}}


def test_a_dry_run_finds_a_bad_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lines").write_text("1\n{\n")
    assert main(["submit", "a:b", "--input", "lines", "--jsonl", "--dry-run"]) == 2
    assert "lines, line 2: is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_TASKYARD_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "found"), [("taskyard su", "submit"), ("taskyard submit --dry", "--dry-run")]
)
def test_bash_completes(words: str, found: str) -> None:
    last = len(words.split()) - 1
    environ = {
        **os.environ, "_TASKYARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(last)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "taskyard_ctl"], env=environ, capture_output=True, text=True, check=True
    )
    assert f"plain,{found}" in done.stdout.splitlines()


def test_a_shell_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
