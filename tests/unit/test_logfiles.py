"""Log files: stamped lines, rotation by size, and readers that lose nothing across it."""

import re
from pathlib import Path

from taskyard_ctl.logfiles import KEEP, LONGEST, STAMP, LogFile, Tail, rotated, sources

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (.*)")


def texts(lines: list[bytes]) -> list[str]:
    return [line.decode()[STAMP + 1 :] for line in lines]


def test_lines_are_stamped_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = LogFile(path)
    log.feed(b"one\ntw")
    assert path.read_text().count("\n") == 1
    log.feed(b"o\r\nthree")
    log.close()
    matches = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert [match and match[1] for match in matches] == ["one", "two", "three"]


def test_rotation_keeps_so_many_files(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_bytes=200)
    for number in range(100):
        log.feed(b"line %d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    assert sources(tmp_path) == [tmp_path / "a.log"]
    assert all(rotated(tmp_path / "a.log", n).stat().st_size <= 200 for n in range(KEEP))


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    log.feed(b"x" * (3 * LONGEST + 5))
    log.close()
    assert (
        sum(len(line) - STAMP - 1 for line in (tmp_path / "a.log").read_bytes().splitlines())
        == 3 * LONGEST + 5
    )


def test_a_reader_sees_every_line_once_across_rotations(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_bytes=1000)
    for number in range(30):
        log.feed(b"%d\n" % number)
    tail = Tail(tmp_path / "a.log")
    seen = texts([*tail.past(), *tail.lines()])
    for number in range(30, 300):
        log.feed(b"%d\n" % number)
        seen += texts(list(tail.lines()))
    tail.close()
    log.close()
    assert seen == [str(number) for number in range(300)]


def test_a_disk_that_fails_costs_only_the_lines(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    log = LogFile(folder / "a.log")
    log.feed(b"lost\n")
    folder.mkdir()
    log.feed(b"kept\n")
    log.close()
    assert texts((folder / "a.log").read_bytes().splitlines()) == ["kept"]
