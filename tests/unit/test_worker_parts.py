"""The small parts of the worker: failures, prints and reasons in words."""

import errno
import os
import threading
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support import eventually

from taskyard import messages, values
from taskyard.errors import FunctionError, PayloadError
from taskyard.messages import Failure
from taskyard_worker import failures, memory
from taskyard_worker.prints import Printer, Prints
from taskyard_worker.reasons import Cgroup, death, size


def caught(action: object) -> BaseException:
    try:
        action()  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


@given(st.text(), st.text(), st.text(), st.binary())
def test_a_failure_is_what_msgspec_would_make(type_name: str, message: str, trace: str, value: bytes) -> None:
    data = failures.encode("raised", type_name, message, trace, value)
    expected = [part.encode(errors="replace").decode() for part in (type_name, message, trace)]
    assert messages.decode_failure(data) == Failure("raised", *expected, value)
    assert msgspec.msgpack.decode(data) == ["Failure", "raised", *expected, value]


def test_a_failure_always_fits() -> None:
    """Whatever an exception carries, and however deep it was."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("\N{SNOWMAN}" * 1_000_000, b"x" * 1_000_000)

    data = failures.raised(caught(lambda: deep(500)))
    assert len(data) < memory.ROOM
    failure = messages.decode_failure(data)
    assert failure.exception == b""
    assert failure.traceback.endswith("\n")


def test_an_exception_travels_where_it_can() -> None:
    failure = messages.decode_failure(failures.raised(caught(lambda: Path("/nosuch").stat())))
    assert failure.type == "FileNotFoundError"
    error = values.loads(failure.exception)
    assert isinstance(error, FileNotFoundError)
    assert error.errno == errno.ENOENT


def test_a_refusal_shows_what_an_import_raised() -> None:
    cause = caught(lambda: 1 // 0)
    error = FunctionError("module x cannot be imported")
    error.__cause__ = cause
    failure = messages.decode_failure(failures.refused(error, shown=True))
    assert failure.reason == "refused"
    assert failure.type == "ZeroDivisionError"
    assert "1 // 0" in failure.traceback
    plain = messages.decode_failure(failures.refused(PayloadError("too large")))
    assert (plain.type, plain.message) == ("taskyard.errors.PayloadError", "too large")


class Lines(list[tuple[str, str]]):
    def emit(self, tag: str, line: str) -> None:
        self.append((tag, line))


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 30))
def test_prints_do_not_depend_on_how_they_are_read(texts: list[bytes], step: int) -> None:
    """Marks split over reads, zero bytes and starts of marks in the output included."""
    stream = b"".join(text + b"\0token" + b"%d\n" % n for n, text in enumerate(texts))
    lines = Lines()
    prints = Prints(b"token", 1000, lines.emit)
    for at in range(0, len(stream), step):
        prints.feed(stream[at : at + step])
    assert not prints.unmarked
    for n, text in enumerate(texts):
        expected = text.decode(errors="replace").removesuffix("\n").split("\n") if text else []
        assert [line for tag, line in lines if tag == str(n)] == [
            each.removesuffix("\r") for each in expected
        ]


def test_prints_are_bounded_by_task_and_shown_while_it_runs() -> None:
    lines = Lines()
    prints = Prints(b"token", 10, lines.emit)
    prints.feed(b"one\ntw")
    prints.live("a")
    assert lines == [("a", "one")]
    prints.feed(b"o\nthree\n\0tokena\n")
    assert lines[1:] == [
        ("a", "two"),
        ("a", "th"),
        ("a", "... and 4 bytes more that were not kept (TASKYARD_PRINT)"),
    ]
    prints.feed(b"whole\n\0tokenb\n")
    assert lines[4:] == [("b", "whole")]


def test_the_printer_waits_for_nobody() -> None:
    """A stdout that nobody reads: lines are dropped, counted, and the count is said later."""
    read, write = os.pipe()
    printer = Printer(write)
    line = "x" * 10_000
    for _ in range(2000):
        printer.line("job/1", line)
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.extend(iter(lambda: os.read(read, 1 << 16), b"")))
    reader.start()
    eventually(lambda: len(b"".join(parts)) > 4 << 20)
    printer.line("job/2", "end")
    printer.close(20)
    os.close(write)
    reader.join()
    os.close(read)
    said = b"".join(parts).decode().splitlines()
    kept = sum(1 for each in said if each == f"[job/1] {line}")
    assert said[-2:] == [f"[taskyard] {2000 - kept} lines were dropped: nobody read them", "[job/2] end"]


def test_deaths_in_words(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("536870912\n")
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (tmp_path / "cgroup").write_text("12:cpu:/x\n0::/not/visible\n")
    group = Cgroup.find(tmp_path, tmp_path / "cgroup")
    assert group.limit() == 512 << 20
    said = "its process was killed by signal 9, out of memory: container limit 512 MiB"
    assert death(-9, group, 0) == said
    assert death(-9, group, 1) == said.replace("out of", "probably out of")
    assert death(-9, Cgroup(), 0) == "its process was killed by signal 9, probably out of memory"
    assert death(-11, group, 0) == "its process was killed by signal 11 (segmentation fault)"
    assert death(-15, group, 0) == "its process was killed by signal 15"
    assert death(3, group, 0) == "its process ended with exit code 3"
    assert size(1536) == "1.5 KiB"


def test_cgroups_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "cgroup").write_text("4:memory:/docker/abc\n0::/\n")
    group = Cgroup.find(tmp_path, tmp_path / "cgroup")
    assert group.limit() is None
    assert group.kills() == 2
    assert Cgroup.find(tmp_path, tmp_path / "none").limit() is None
