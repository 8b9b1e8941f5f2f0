"""What programs and people read: JSON shapes, tables, progress."""

import io
import json
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from taskyard.allow import Allow
from taskyard.job import Outcome
from taskyard.messages import Failure, JobStatus, MasterStatus, Running, StatusReply, WorkerStatus
from taskyard_ctl import render, shapes
from taskyard_ctl.following import JobLog, Results, exit_code

NOW = 1_767_225_600.0


def job(**changes: object) -> JobStatus:
    values: dict[str, object] = {
        "id": "0123456789ab", "name": "squares", "function": "squares:square", "state": "closed", "total": 10,
        "ready": 0, "leased": 0, "delayed": 0, "suspect": 0, "completed": 10, "dead": 0, "cancelled": 0,
        "retries": 0, "seconds": 1.0, "created": NOW - 4, "ended": NOW - 2, "priority": 0, "note": "",
        "error": "",
    }  # fmt: skip
    return JobStatus(**{**values, **changes})  # type: ignore[arg-type]


def worker() -> WorkerStatus:
    return WorkerStatus(
        id="w-1", host="here", pid=7, container="", state="running", slots=1,
        running=[Running(0, "0123456789ab", 3, NOW - 1)], leased=4, completed=1234, failed=0, joined=NOW - 60,
        seen=NOW, version="0.1.0", python="3.13.5", digest="d", functions=["squares:square"], memory=30 << 20,
    )  # fmt: skip


def reply(*jobs: JobStatus, workers: bool = True) -> StatusReply:
    master = MasterStatus(
        address="0.0.0.0:5000", pid=1, version="0.1.0", python="3.13.5", started=NOW - 100, boot=1, web="",
        journal="/j", journal_bytes=2048, memory=1 << 20, connections=1, warnings=["the disk is nearly full"],
    )  # fmt: skip
    return StatusReply(1, master, list(jobs), [worker()] if workers else [])


def outcome(index: int = 0, result: object = 1, error: Failure | None = None) -> Outcome:
    return Outcome(
        index, "dead" if error else "completed", result, error, 1, "w-1", "here", NOW, 0.25, Allow()
    )


def text_of(status: StatusReply, width: int = 200) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(render.status(status, "127.0.0.1:5002", NOW))
    return file.getvalue()


def test_status_has_the_contracts_shape() -> None:
    shape = json.loads(shapes.line(shapes.status(reply(job()), "127.0.0.1:5002")))
    assert list(shape) == ["master", "jobs", "workers"]
    assert {"address", "pid", "version", "started"} <= set(shape["master"])
    assert shape["master"]["address"] == "127.0.0.1:5002"  # where it was dialled
    counts = {"total", "ready", "leased", "delayed", "completed", "dead", "cancelled"}
    assert {"id", "name", "function", *counts} <= set(shape["jobs"][0])
    wanted = {"id", "host", "pid", "container", "state", "slots", "running", "completed"}
    assert wanted <= set(shape["workers"][0])
    running = {"slot": 0, "job": "0123456789ab", "index": 3, "since": NOW - 1}
    assert shape["workers"][0]["running"] == [running]


def test_a_result_has_the_contracts_shape() -> None:
    shape = json.loads(shapes.line(shapes.result("j", outcome(3, (1, b"x")))))
    assert shape == {
        "job": "j", "index": 3, "state": "completed", "value": [1, {"$bytes": "eA=="}], "error": None,
        "attempts": 1, "worker": "w-1", "host": "here", "started": NOW, "seconds": 0.25,
    }  # fmt: skip


def test_an_error_has_the_contracts_shape() -> None:
    failure = Failure("raised", "ValueError", "no", "Traceback ...", b"secret bytes")
    shape = shapes.result("j", outcome(0, None, failure))
    assert shape["value"] is None
    assert shape["error"] == {
        "reason": "raised", "type": "ValueError", "message": "no", "traceback": "Traceback ...",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["\ud800 half a pair", 1 << 70, "ß\n\u2028", 0.1, [None, True, {"1": "x"}]])
def test_any_value_is_a_line_of_json(value: object) -> None:
    text = shapes.line(shapes.result("j", outcome(0, value)))
    assert text.count("\n") == 1
    assert json.loads(text)["value"] == value


def test_tables_of_status() -> None:
    text = text_of(reply(job(), job(id="plain", name="plain", total=0)))
    assert "master 127.0.0.1:5002  version 0.1.0  up 100 s" in text
    assert "warning: the disk is nearly full" in text
    assert "squares" in text
    assert "5.0/s" in text
    assert "plain" not in text  # until somebody uses it
    assert "1,234" in text
    assert "0123456789ab/3 1.0 s" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
def test_tables_fit_and_cut_no_number(width: int) -> None:
    """Where it is narrow, text is cut and columns go; what is shown of counts and ids is whole."""
    status = reply(
        job(id="feedfeedfeed", name="a name that goes on and on", completed=123_456_789, total=123_456_789),
        job(dead=7, completed=3, leased=2, delayed=1, note="no joined worker can run elsewhere:function"),
    )
    lines = text_of(status, width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    shown = " ".join(" ".join(lines).split())
    for whole in ("feedfeedfeed", "0123456789ab", "123,456,789", "1,234", "w-1", "dead", "running"):
        assert re.search(rf"(?<!\S){whole}(?!\S)", shown), f"{whole}\n" + "\n".join(lines)
    assert "no joined worker" in shown, "a note is told beneath where the table has no room for it"
    assert ("squares:squ" in shown) == (width >= 160), "a function is the first to go"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
def test_a_table_of_results_fits(width: int) -> None:
    file = io.StringIO()
    table = render.ResultTable(Console(file=file, width=width))
    table.add([shapes.result("j", outcome(123_456_789, "text that goes on " * 30))])
    table.add([shapes.result("j", outcome(error=Failure("raised", "ValueError", "two\nlines")))])
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert {len(line) for line in lines} == {len(lines[0])} and len(lines[0]) <= width
    assert "123456789  completed" in lines[1]
    assert "dead       ValueError: two" in lines[2]


def test_a_text_of_several_lines_or_wide_letters_keeps_its_row() -> None:
    status = reply(job(name="\u5bb6" * 40, note="two\nlines", dead=1), job(name="x"))
    lines = text_of(status, 100).splitlines()
    assert len(lines) == len(text_of(reply(job(), job()), 100).splitlines()) + 1, "a note beneath"
    assert max(cell_len(line) for line in lines) <= 100


def test_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert render.console().width == render.PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "47")
    assert render.console().width == 47


def crowd(jobs: int, hosts: int, each: int) -> StatusReply:
    """Many jobs, of which the first and the last are unfinished, and workers of which one a host is busy."""
    listed = [
        job(id=f"{n:012x}", created=NOW - 1000 + n, ended=0.0 if n in (0, jobs - 1) else NOW, completed=1)
        for n in range(jobs)
    ]
    workers = []
    for n in range(hosts * each):
        one = worker()
        one.id, one.host, one.slots = f"w-{n:04d}", f"host{n // each:02d}", 4
        if n % each:
            one.state, one.leased, one.running = "idle", 0, []
        workers.append(one)
    return StatusReply(1, reply().master, listed, workers)


def test_hosts_in_sums_where_there_are_several() -> None:
    text = text_of(crowd(1, hosts=3, each=10))
    (row,) = [line.split() for line in text.splitlines() if line.startswith("host02 ")]
    assert row[1:5] == ["10", "40", "4", "12,340"], "workers, slots, busy ones, completed"
    assert "missing" not in text
    assert "host " not in text_of(reply(job())).partition("worker ")[0], "one host needs no sum"


def test_many_workers_are_only_counted() -> None:
    text = text_of(crowd(1, hosts=40, each=25))
    assert f"and {1000 - render.WORKERS} more workers: --json has them all" in text
    assert all(f"w-{host * 25:04d}" in text for host in range(40)), "the busy ones are shown"


@pytest.mark.parametrize("height", [12, 24, 50])
@pytest.mark.parametrize("hosts", [1, 40])
def test_a_watched_yard_fits_the_screen(height: int, hosts: int) -> None:
    """A thousand workers and jobs on a screen: what is unfinished and who is busy."""
    file = io.StringIO()
    view = render.status(crowd(1000, hosts, 1000 // hosts), "127.0.0.1:5002", NOW, height=height)
    Console(file=file, width=100).print(view)
    text = file.getvalue()
    lines = text.splitlines()
    assert len(lines) <= max(height, 19)
    assert f"{0:012x}" in text and f"{999:012x}" in text, "both jobs that are not over"
    assert "w-0000" in text
    assert ("host39" in text or "more hosts" in text) == (hosts > 1)


def test_an_empty_yard_says_what_to_do() -> None:
    text = text_of(reply(workers=False))
    assert "no workers yet: taskyard scale 2" in text
    assert "no jobs yet: taskyard submit" in text


def test_old_jobs_are_only_counted() -> None:
    jobs = [job(id=f"{i:012x}") for i in range(30)]
    text = text_of(reply(job(id="unfinished", ended=0.0), *jobs))
    assert "unfinished" in text
    assert "and 10 more that ended earlier" in text
    assert [f"{i:012x}" in text for i in range(30)] == [False] * 10 + [True] * 20


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "completed"),
        ({"dead": 1}, "dead"),
        ({"ended": 0.0}, "running"),
        ({"ended": 0.0, "note": "no workers yet"}, "waiting"),
        ({"state": "open", "ended": 0.0}, "open"),
        ({"state": "cancelled"}, "cancelled"),
    ],
)
def test_a_jobs_state_in_a_word(changes: dict[str, object], word: str) -> None:
    row = next(line for line in text_of(reply(job(**changes))).splitlines() if "squares:square" in line)
    assert row.split()[3] == word


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"dead": 1}, 1), ({"cancelled": 1}, 1), ({"state": "incomplete"}, 1), ({"ready": 5}, 0)],
)
def test_the_exit_code_says_whether_all_completed(changes: dict[str, object], code: int) -> None:
    assert exit_code(job(**changes)) == code


def test_results_are_lines_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    Results("j", as_json=False).write(outcome(i, i * i) for i in range(3))
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 4]


def test_results_are_a_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    failure = Failure("raised", "ValueError", "[b]no[/b]")
    Results("j", as_json=False).write([outcome(0, {"a": 1}), outcome(1, None, failure)])
    lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()
    assert lines[0].split() == ["index", "state", "value", "or", "error", "attempts", "seconds", "worker"]
    assert "{'a': 1}" in lines[1]
    assert "ValueError: [b]no[/b]" in lines[2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (4.23, "4.2 s"), (75, "75 s"), (180, "3 min"), (7500, "2 h 5 min"), (300_000, "3 d")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (31 << 20, "31 MiB"), (1 << 41, "2048 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text


def test_the_joblog_is_that_of_gnu_parallel(capsys: pytest.CaptureFixture[str]) -> None:
    """Its columns, separated by tabs; what did not complete exits with 1."""
    failure = Failure("raised", "ValueError", "no")
    JobLog("j1", "work:square").write([outcome(0), outcome(4, None, failure)])
    head, first, second = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert " ".join(head) == "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command"
    assert len(first) == len(second) == len(head)
    assert (first[0], first[6], first[8]) == ("1", "0", "work:square j1/0")
    assert (second[0], second[6], second[8]) == ("5", "1", "work:square j1/4")
    assert float(first[2]) >= 0 and float(first[3]) >= 0
