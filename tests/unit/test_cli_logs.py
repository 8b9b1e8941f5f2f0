"""`taskyard logs`: which lines, since when, how they look, and one file each."""

import socket
from pathlib import Path

import pytest

from taskyard.errors import UsageError
from taskyard_ctl import logs
from taskyard_ctl.interface import Line

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def line(text: str = "words", source: str = "worker-1", container: str = "") -> Line:
    return Line("2026-01-01T00:00:00.000001Z", source, container, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("90", "2025-12-31T23:58:30.000000"),
        ("1.5s", "2025-12-31T23:59:58.500000"),
        ("10m", "2025-12-31T23:50:00.000000"),
        ("2h", "2025-12-31T22:00:00.000000"),
        ("1d", "2025-12-31T00:00:00.000000"),
        ("2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00.000000"),
    ],
)
def test_since(text: str, expected: str) -> None:
    assert logs.since(text, NOW) == expected


def test_since_that_is_no_time() -> None:
    with pytest.raises(UsageError, match="--since soon: write 90s"):
        logs.since("soon", NOW)


def test_a_stamp_of_the_same_moment_counts(tmp_path: Path) -> None:
    assert logs.since("0", NOW) <= "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("worker", "job", "grep", "found"),
    [
        ("", "", "", True),
        ("worker-1", "", "", True),
        ("1", "", "", True),
        ("worker-11", "", "", False),
        ("master", "", "", False),
        ("abcd", "", "", True),
        ("abc", "", "", False),  # too short to name a container
        ("", "0123456789ab", "", True),
        ("", "0123", "", False),
        ("", "", "wor.s", True),
        ("", "", "^words", False),
    ],
)
def test_wanted(worker: str, job: str, grep: str, found: bool) -> None:
    keep = logs.wanted(worker, job, grep)
    assert keep(line("[0123456789ab/7] words", container="abcdef")) is found


def test_prefixes_are_as_wide_as_the_widest() -> None:
    shown: list[str] = []
    printer = logs.Printer(shown.append, colour=False)
    for source in ("master", "worker-1", "worker-100", "master"):
        printer(line(source=source))
    assert shown == ["master   | words", "worker-1 | words", "worker-100 | words", "master     | words"]


def test_every_member_has_its_colour() -> None:
    shown: list[str] = []
    printer = logs.Printer(shown.append, colour=True)
    for source in ("master", "worker-1", "master"):
        printer(line(source=source))
    assert shown[0] == shown[2]
    assert shown[0].startswith("\x1b[")
    assert shown[0][:5] != shown[1][:5]


def test_one_file_each(tmp_path: Path) -> None:
    lines = [line("a", "master"), line("b"), line("c", "worker-2"), line("d")]
    assert logs.write_files(lines, tmp_path / "new" / "folder") == 3
    host = socket.gethostname()
    files = {path.name: path.read_text() for path in (tmp_path / "new" / "folder").iterdir()}
    stamp = lines[0].stamp
    assert files == {
        "master.log": f"{stamp} a\n",
        f"{host}.worker-1.log": f"{stamp} b\n{stamp} d\n",
        f"{host}.worker-2.log": f"{stamp} c\n",
    }
