"""The inputs of `submit`: what each option makes of what it is given, and how lazily."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskyard.errors import UsageError
from taskyard_ctl import inputs


def anything(path: str) -> None:
    """Every path is fine."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0:3", range(3)), (":2", range(2)), ("-2:2", range(-2, 2)), ("1_0:20", range(10, 20))],
)  # fmt: skip
def test_a_range_is_half_open(text: str, expected: range) -> None:
    assert inputs.of_range(text) == expected


@pytest.mark.parametrize("text", ["3", "a:b", "1:2:3", "0:", "0:1.5"])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=f"--range {text}"):
        inputs.of_range(text)


def test_arguments_are_json() -> None:
    given = inputs.of_arguments(["1", '"text"', "[1, 2]", '{"a": 1}', "null", "[[1, 2]]"])
    assert given == [
        ((1,), {}),
        (("text",), {}),
        ((1, 2), {}),
        ((), {"a": 1}),
        ((None,), {}),
        (([1, 2],), {}),
    ]


def test_an_argument_that_is_no_json_says_how_to_quote() -> None:
    with pytest.raises(UsageError, match=r"--arg text: is not JSON \(.*a string needs quotes"):
        inputs.of_arguments(["text"])
    with pytest.raises(UsageError, match=r"--arg \[1: is not JSON"):
        inputs.of_arguments(["[1"])


def test_lines_are_strings(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("one\n two \r\n\nGrüße\nlast".encode())
    assert list(inputs.of_lines(str(path), anything)) == ["one", " two ", "", "Grüße", "last"]


def test_json_lines_are_calls(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('1\n\n["a", 2]\n{"n": 3}\n"s"')
    assert list(inputs.of_json_lines(str(path))) == [((1,), {}), (("a", 2), {}), ((), {"n": 3}), (("s",), {})]


@pytest.mark.parametrize(
    ("content", "read", "words"),
    [
        (b"1\n{\n", inputs.of_json_lines, "line 2: is not JSON"),
        (b"a\n\xff\n", lambda name: inputs.of_lines(name, anything), "line 2: is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, read: Callable[[str], Any], words: str) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    items = read(str(path))
    next(items)
    with pytest.raises(UsageError, match=words):
        next(items)


def test_a_missing_file_fails_before_the_first_line() -> None:
    with pytest.raises(UsageError, match="No such file"):
        inputs.of_lines("/no/such/file", anything)


def test_stdin_is_read_as_lines_come(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(read, "rb")))
    items = inputs.of_lines("-", anything)
    os.write(write, b"first\n")
    assert next(items) == "first"
    os.write(write, b"second\n")
    assert next(items) == "second"
    os.close(write)
    assert list(items) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b/2.txt",
        "b/1.txt",
        "a/x/deep.txt",
        "a/note.md",
        ".hidden/h.txt",
        "c.txt",
        "a/.secret.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.txt", ["c.txt", "a/x/deep.txt", "b/1.txt", "b/2.txt"]),
        ("*.txt", ["c.txt"]),
        ("b/*", ["b/1.txt", "b/2.txt"]),
        ("[ab]/*.txt", ["b/1.txt", "b/2.txt"]),
        ("*/note.md", ["a/note.md"]),
        ("**", ["c.txt", "a/note.md", "a/x/deep.txt", "b/1.txt", "b/2.txt"]),
        ("c.txt", ["c.txt"]),
        ("none*", []),
        ("a/.*", ["a/.secret.txt"]),
    ],
)
def test_a_glob_gives_files_in_order(tree: Path, pattern: str, expected: list[str]) -> None:
    found = list(inputs.of_glob(f"{tree}/{pattern}", anything))
    assert found == [str(tree / name) for name in expected]


def test_a_glob_is_absolute(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "b")
    assert list(inputs.of_glob("../*.txt", anything)) == [str(tree / "c.txt")]


def test_a_glob_of_a_folder_that_is_not_there_is_refused(tree: Path) -> None:
    with pytest.raises(UsageError, match=f"there is no folder {tree}/nowhere"):
        inputs.of_glob(f"{tree}/nowhere/*.txt", anything)


def test_paths_outside_the_data_folder_are_refused_in_containers(tree: Path) -> None:
    check = inputs.seen_by_workers(str(tree / "a"), lambda: True)
    assert list(inputs.of_glob(f"{tree}/a/*.md", check)) == [f"{tree}/a/note.md"]
    with pytest.raises(UsageError, match="is not inside TASKYARD_DATA_DIR"):
        inputs.of_glob(f"{tree}/b/*.txt", check)
    with pytest.raises(UsageError, match="is not inside TASKYARD_DATA_DIR"):
        inputs.of_glob(f"{tree}/a/../b/*.txt", check)
    lines = tree / "lines"
    lines.write_text(f"{tree}/a/note.md\n/no/file\n{tree}/b/1.txt\n")
    items = inputs.of_lines(str(lines), check)
    assert [next(items), next(items)] == [f"{tree}/a/note.md", "/no/file"]
    with pytest.raises(UsageError, match="is not inside TASKYARD_DATA_DIR"):
        next(items)
    with pytest.raises(UsageError, match="name a folder in TASKYARD_DATA_DIR"):
        inputs.of_glob(f"{tree}/*", inputs.seen_by_workers("", lambda: True))


def test_processes_see_every_path(tree: Path) -> None:
    asked = []

    def in_containers() -> bool:
        asked.append(1)
        return False

    check = inputs.seen_by_workers("", in_containers)
    assert list(inputs.of_glob(f"{tree}/b/*.txt", check)) == [f"{tree}/b/1.txt", f"{tree}/b/2.txt"]
    assert asked == [1]
