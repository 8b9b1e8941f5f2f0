"""`.env`: what a shell reads is what we read, and one change leaves all other lines alone."""

import shlex
import subprocess
from pathlib import Path

import pytest

from taskyard.errors import SettingsError
from taskyard_ctl import envfile

TEXT = """\
# a comment
PLAIN=value
export EXPORTED=yes
  SPACED='two words'   # why
DOUBLE="it's # not a comment"
EMPTY=
HASH=a#b
HOME_DATA=$BASE/data
BRACES="${PLAIN}s"
LITERAL='$PLAIN'
ESCAPED="\\$PLAIN \\"x\\" \\n"
MIXED=a\\ b"$PLAIN"'c'$NOBODY.
PLAIN=later
"""


def test_it_reads_what_a_shell_reads(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(TEXT)
    values = envfile.read(path, {"BASE": "/base"})
    script = f"set -a; . {shlex.quote(str(path))}; " + "; ".join(
        f'printf "%s\\n" "${name}"' for name in values
    )
    shell = subprocess.run(
        ["sh", "-c", script], env={"BASE": "/base"}, capture_output=True, text=True, check=True
    )
    assert list(values.values()) == shell.stdout.split("\n")[:-1]
    assert values["SPACED"] == "two words"


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert envfile.read(tmp_path / ".env") == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [("just words", "write NAME=value"), ("A=two words", "in quotes"), ("A='open", "A: put a value")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(SettingsError, match=f"line 2: .*{words}"):
        envfile.read(path)


def test_put_changes_one_line(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nWORKERS=1  # old\nB=2\n")
    path.chmod(0o640)
    envfile.put(path, "WORKERS", "3")
    assert path.read_text() == "# mine\nWORKERS=3\nB=2\n"
    envfile.put(path, "C", "two words")
    assert path.read_text() == "# mine\nWORKERS=3\nB=2\nC='two words'\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_put_keeps_a_file_that_says_it_already(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    before = path.stat().st_ino
    envfile.put(path, "A", "1")
    assert path.stat().st_ino == before


def test_put_adds_a_newline_to_a_last_line_without_one(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1")
    envfile.put(path, "B", "2")
    assert path.read_text() == "A=1\nB=2\n"


def test_a_new_file_is_private(tmp_path: Path) -> None:
    envfile.write(tmp_path / ".env", "KEY=secret\n")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
