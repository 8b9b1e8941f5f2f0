"""The examples: each function called as a worker would call it, each script as its own process."""

import gzip
import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import taskyard
from taskyard.errors import UnreachableError

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


squares, sleeps, logs, tiles = map(load, ("squares", "sleeps", "logs", "tiles"))


def script(name: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", MODULES)
def test_imports_alone_and_only_the_standard_library(name: str) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}; "
        "print(*{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == {name, "__main__"} - set(sys.stdlib_module_names)
    assert done.stderr == ""


def test_every_module_says_how_to_run_it() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert MODULES == ["logs", "sleeps", "squares", "tiles"]
    for name in MODULES:
        assert f"taskyard submit {name}:" in (load(name).__doc__ or "")
        assert f"`{name}.py`" in readme


def test_requirements_are_empty_but_explained() -> None:
    lines = (EXAMPLES / "requirements.txt").read_text().splitlines()
    assert lines and all(line.startswith("#") for line in lines)


# -- squares and sleeps ----------------------------------------------------------------------------


def test_squares() -> None:
    assert [squares.square(n) for n in range(10)] == [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
    assert squares.describe(3) == "3 * 3 = 9"


def test_nap_sleeps_as_long_as_it_says() -> None:
    began = time.monotonic()
    n, seconds = sleeps.nap(0.2)
    assert n == 0.2
    assert 0 <= seconds <= 0.2
    assert time.monotonic() - began >= seconds - 0.001


@pytest.mark.parametrize(("n", "most"), [(0, 0.0), (-5, 0.0), (2, 2.0), (10**9, 3.0)])
def test_nap_is_bounded(n: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sleeps.time, "sleep", slept.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    assert sleeps.nap(n) == (n, most)
    assert slept == [most]
    assert "task %d is finish , runtime:%d s" % sleeps.nap(n)  # noqa: UP031 (as the tutorials print it)


# -- logs ------------------------------------------------------------------------------------------

CHANGELOG = """\
bash (5.2.15-2) unstable; urgency=medium

  * Crème brûlée, due 2001-01-01; crème again

 -- Marc Haber <mh@example.org>  Thu, 25 May 2023 17:54:35 +0200

bash (5.2-1~rc2) unstable; urgency=low

  * First, with this

 -- Marc Haber <mh@example.org>  Mon,  2 Jan 2017 07:54:35 +0200
"""

LOG = """\
2025-06-18 12:00:01,123 INFO worker joined
[2025-06-20T01:02:03] WARN disk nearly full
2025-06-19 12:00:02 WARNING disk nearly full
10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200
[Fri Jun 27 09:00:00.123456 2025] [error] [pid 7] cannot open
2025-02-30 nonsense day
9355-01-25 nonsense year
Date:   Thu Jul 3 23:14:57 2025 +0200
no newline at the end"""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_summarise_a_changelog(tmp_path: Path, packed: bool, encoding: str) -> None:
    path = tmp_path / "changelog.Debian.gz"  # plain under this name, too: the content decides
    content = CHANGELOG.encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    summary = logs.summarise(str(path))
    words = summary.pop("words")
    assert summary == {
        "path": str(path),
        "files": 1,
        "lines": 11,
        "bytes": len(content),
        "first": "2017-01-02",
        "last": "2023-05-25",
        "versions": 2,
        "newest": "5.2.15-2",
        "levels": {"urgency=low": 1, "urgency=medium": 1},
    }
    assert words["crème"] == words["bash"] == 2
    assert "this" not in words and "due" not in words
    assert list(words.values()) == sorted(words.values(), reverse=True)
    json.dumps(summary)


def test_summarise_a_log(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    path.write_text(LOG)
    summary = logs.summarise(str(path))
    assert summary["lines"] == 9
    assert summary["bytes"] == len(LOG)
    assert (summary["first"], summary["last"]) == ("2000-10-10", "2025-07-03")
    assert summary["levels"] == {"WARNING": 2, "ERROR": 1, "INFO": 1}
    assert summary["words"]["nearly"] == 2
    assert (summary["versions"], summary["newest"]) == (0, None)


def test_summarise_an_empty_file_and_one_endless_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    empty = logs.summarise(str(path))
    assert (empty["lines"], empty["bytes"], empty["first"], empty["words"]) == (0, 0, None, {})
    for end in ("", "\n"):
        text = "word " * 100_000 + end
        path.write_text(text)
        summary = logs.summarise(str(path))
        assert (summary["lines"], summary["bytes"]) == (1, len(text))


def test_what_is_no_text_gets_one_clear_line(tmp_path: Path) -> None:
    whole = gzip.compress(random.Random(1).randbytes(3000).hex().encode())
    cases = {
        "program": (bytes(range(256)) * 40, "binary file"),
        "packed": (gzip.compress(bytes(range(256)) * 40), "binary file"),
        "short.gz": (whole[:-900], "damaged gzip"),
        "wrong.gz": (whole[:-8] + b"\0" * 8, "damaged gzip"),
        "flipped.gz": (whole[:10] + b"\xff" * 20 + whole[30:], "damaged gzip"),
    }
    for name, (content, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason) as caught:
            logs.summarise(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):  # a pipe would wait for ever
        with pytest.raises(ValueError, match="not a regular file"):
            logs.summarise(str(path))
    with pytest.raises(FileNotFoundError, match="missing"):
        logs.summarise(str(tmp_path / "missing"))


def test_merge_in_stages_or_at_once_is_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, text in zip(paths, (CHANGELOG, LOG, ""), strict=True):
        path.write_text(text)
    parts = [logs.summarise(str(path)) for path in paths]
    before = json.dumps(parts)
    total = logs.merge(parts)
    assert json.dumps(parts) == before
    assert total == logs.merge([logs.merge(parts[:2]), parts[2]]) == logs.merge(reversed(parts))
    assert (total["files"], total["lines"], total["versions"]) == (3, 20, 2)
    assert (total["first"], total["last"]) == ("2000-10-10", "2025-07-03")
    assert logs.merge([])["files"] == 0


def result(index: int, state: str, value: Any = None, error: str | None = None) -> bytes:
    fault = error and {"reason": "raised", "type": "ValueError", "message": error, "traceback": ""}
    line = {"job": "j1", "index": index, "state": state, "value": value, "error": fault, "attempts": 1}
    return json.dumps(line).encode() + b"\n"


@pytest.fixture
def results(tmp_path: Path) -> bytes:
    lines = []
    for index, text in enumerate((CHANGELOG, LOG)):
        path = tmp_path / f"file-{index}.gz"
        path.write_bytes(gzip.compress(text.encode()))
        lines.append(result(index, "completed", logs.summarise(str(path))))
    return b"".join(lines)


def test_the_report_of_a_pipe(results: bytes, tmp_path: Path) -> None:
    done = script("logs", stdin=results)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.decode().split("\n\n")[0].splitlines())
    assert rows["files"] == "2"
    assert rows["lines"] == "20"
    assert rows["dates"] == "2000-10-10 to 2025-07-03"
    assert rows["levels"].startswith("WARNING 2, ")
    assert str(tmp_path / "file-0.gz") in done.stdout.decode()


def test_the_report_names_what_failed(results: bytes) -> None:
    failures = b"".join(result(n, "dead", error="a binary file") for n in range(2, 14))
    done = script("logs", stdin=results + failures)
    assert done.returncode == 1
    assert done.stdout.startswith(b"files     2\n")
    assert b"logs: task 2 dead: a binary file\n" in done.stderr
    assert done.stderr.endswith(b"logs: and 2 more\n")


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", b"no results"),
        (b"no json\n", b"line 1"),
        (b"[1]\n", b"line 1"),
        (result(0, "completed", 81), b"line 1"),
        (result(0, "completed", {"files": 1}), b"line 1"),
    ],
)
def test_the_report_of_something_else_is_one_line(stdin: bytes, said: bytes) -> None:
    done = script("logs", stdin=stdin)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1


# -- tiles -----------------------------------------------------------------------------------------


def decode(data: bytes) -> tuple[int, int, bytes, bytes]:
    """Width, height, palette and pixels of an 8 bit palette PNG, every checksum verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 3, 0, 0, 0]
    lines = zlib.decompress(chunks[2][1])
    rows = [lines[start : start + width + 1] for start in range(0, len(lines), width + 1)]
    assert len(rows) == height and all(len(row) == width + 1 and row[0] == 0 for row in rows)
    return width, height, chunks[1][1], b"".join(row[1:] for row in rows)


def whole(size: int) -> bytes:
    picture: bytes = tiles.tile((size, 1, 0))
    return picture


def test_escape() -> None:
    assert [tiles.escape(x, 0.0) for x in (0.0, -1.0, -2.0, 0.25)] == [0, 0, 0, 0]
    assert tiles.escape(0.0, 1.0) == 0  # inside, but in neither bulb
    assert tiles.escape(3.0, 0.0) == 1
    assert tiles.escape(1.0, 0.0) == 3  # 1, 2, 5


@pytest.mark.parametrize("across", [1, 3, 7, 40])
def test_tiles_in_any_order_make_the_same_picture(across: int) -> None:
    numbers = list(range(across * across))
    random.Random(across).shuffle(numbers)
    parts = [(number, tiles.tile([40, across, number])) for number in numbers]
    assert tiles.assemble(40, across, parts) == whole(40)


def test_tiles_that_cannot_be() -> None:
    for spec in ((40, 4, 16), (40, 4, -1), (40, 0, 0), (4, 5, 0)):
        with pytest.raises(ValueError, match="no tile"):
            tiles.tile(spec)
    with pytest.raises(ValueError, match="tile 1 has 3 bytes, not 4"):
        tiles.assemble(4, 2, [(1, b"abc")])


def test_png_holds_the_picture() -> None:
    picture = bytes(range(256))
    width, height, palette, pixels = decode(tiles.png(16, picture))
    assert (width, height, pixels) == (16, 16, picture)
    assert len(palette) == 3 * 256
    assert palette[:3] == b"\0\0\0"


def test_the_script_draws_without_a_yard(tmp_path: Path) -> None:
    path = tmp_path / "set.png"
    done = script("tiles", "--here", "--size", "50", "--tiles", "3", "--output", str(path))
    assert done.returncode == 0, done.stderr
    assert decode(path.read_bytes())[3] == whole(50)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "many"], b"--size"),
        (["--size", "4", "--tiles", "5"], b"--size"),
        (["--size", "5000", "--tiles", "2"], b"1 MiB"),
        (["--output", "/nowhere/at/all.png"], b"no folder /nowhere/at"),
    ],
)
def test_the_script_refuses_bad_arguments(arguments: list[str], said: bytes) -> None:
    done = script("tiles", "--here", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


class Yard:
    """A yard of one process: what the script uses of the client, results in reverse order."""

    lost: frozenset[int] = frozenset()
    down = False

    @classmethod
    def from_env(cls) -> "Yard":
        if cls.down:
            raise UnreachableError("nothing answers at 127.0.0.1:5000: start it with `taskyard up`")
        return cls()

    def __enter__(self) -> "Yard":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: str, inputs: list[Any], *, name: str) -> "Yard":
        assert (function, name) == ("tiles:tile", "tiles")
        self.inputs = inputs
        return self

    def results(self, *, follow: bool) -> Iterator[SimpleNamespace]:
        assert follow
        for index in reversed(range(len(self.inputs))):
            if index in self.lost:
                yield SimpleNamespace(index=index, state="dead", value=None)
            else:
                yield SimpleNamespace(index=index, state="completed", value=tiles.tile(self.inputs[index]))


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(taskyard, "Yard", Yard, raising=False)
    return monkeypatch


def test_the_script_draws_with_a_yard(yard: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "set.png"
    assert tiles._main(["--size", "50", "--tiles", "3", "--output", str(path)]) == 0
    assert decode(path.read_bytes())[3] == whole(50)


def test_no_picture_when_tiles_are_missing(
    yard: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yard.setattr(Yard, "lost", frozenset({2, 5}))
    path = tmp_path / "set.png"
    assert tiles._main(["--size", "30", "--tiles", "3", "--output", str(path)]) == 1
    assert "2 tiles did not complete" in capsys.readouterr().err
    assert not path.exists()


def test_no_yard_is_one_line_and_its_exit_code(
    yard: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yard.setattr(Yard, "down", True)
    assert tiles._main(["--output", str(tmp_path / "set.png")]) == 3
    assert capsys.readouterr().err == (
        "tiles: nothing answers at 127.0.0.1:5000: start it with `taskyard up`\n"
    )
