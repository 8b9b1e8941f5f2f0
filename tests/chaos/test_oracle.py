"""The oracle itself: it finds each kind of damage, and nothing where there is none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from taskyard import batch
from taskyard.messages import JobStatus, Row
from taskyard_ctl import render
from taskyard_ctl.chaos.oracle import Log, Report, check

TASKS = 10


def row(
    at: int, first: int, count: int = 1, text: str = "", round_: int = 0, state: Any = "completed"
) -> Row:
    block = batch.pack([text.encode() or b"%d" % index for index in range(first, first + count)])
    return Row(at, first, count, state, round_, 1, "w", "h", 0.0, 0.0, block)


def status(total: int = TASKS, completed: int = TASKS, dead: int = 0, leased: int = 0) -> JobStatus:
    return JobStatus(
        "j", "", "f", "closed", total, 0, leased, 0, 0, completed, dead, 0, 0, 0.0, 0.0, 0.0, 0, "", ""
    )


def decode(row: Row) -> Iterable[bytes]:
    return batch.unpack(row.block, row.count)


def judged(tmp_path: Path, rows: list[Row], read: Iterable[Row] = (), **more: Any) -> Report:
    log = Log(tmp_path / "log")
    log.tried(0, TASKS)
    log.accepted(more.pop("accepted", TASKS))
    for one in read:
        log.read(one)
    log.close()
    return check(
        log.path, rows, more.pop("status", status()), decode, lambda n: b"%d" % n, faults={"kills": 1}, **more
    )


def test_all_is_well(tmp_path: Path) -> None:
    rows = [row(1, 0, 4), row(2, 4, 6)]
    report = judged(tmp_path, rows, read=rows)
    assert (report.verdict, report.completed, report.recovered) == ("held", TASKS, 0)


def test_no_fault_is_no_proof(tmp_path: Path) -> None:
    report = judged(tmp_path, [row(1, 0, TASKS)])
    report.faults = {"kills": 0}
    assert report.verdict == "no fault happened"


def test_what_was_not_answered_may_be_there(tmp_path: Path) -> None:
    report = judged(tmp_path, [row(1, 0, 8)], accepted=6, status=status(8, 8))
    assert (report.verdict, report.recovered) == ("held", 2)


@pytest.mark.parametrize(
    ("words", "rows", "more"),
    [
        ("I1: task 9 was accepted", [row(1, 0, 9)], {"status": status(TASKS, 9)}),
        ("I1: 1 tasks are unfinished", [row(1, 0, TASKS)], {"status": status(leased=1)}),
        ("I1: task 3 is dead", [row(1, 0, 3), row(2, 3, state="dead"), row(3, 4, 6)], {}),
        ("I2: task 5 has two outcomes", [row(1, 0, TASKS), row(2, 5)], {}),
        ("I2: the master counts 11", [row(1, 0, TASKS)], {"status": status(completed=11)}),
        ("I3: task 10 was never submitted", [row(1, 0, TASKS + 1)], {}),
        ("I3: the result of task 2", [row(1, 0, 2), row(2, 2, text="other"), row(3, 3, 7)], {}),
        ("I4: outcome", [row(1, 0, TASKS)], {"read": [row(7, 0)]}),
        ("I5: the job has 11 tasks", [row(1, 0, TASKS)], {"status": status(11)}),
    ],
)
def test_it_finds(tmp_path: Path, words: str, rows: list[Row], more: dict[str, Any]) -> None:
    report = judged(tmp_path, rows, **more)
    assert report.verdict == "broken"
    assert any(violation.startswith(words) for violation in report.violations), report.violations


def test_it_finds_a_result_without_a_run_and_a_second_run(tmp_path: Path) -> None:
    executions = tmp_path / "executions"
    lines = [f"{n} {what}" for n in range(9) for what in ("begun", "ended")]
    executions.write_text("\n".join([*lines, "4 begun"]) + "\n")
    report = judged(tmp_path, [row(1, 0, TASKS)], executions=executions, undisturbed=True)
    assert (report.executions, report.reruns) == (10, 1)
    assert [violation[:10] for violation in report.violations] == ["I6: task 9", "I6: task 4"]


def test_what_is_said_after_the_end_is_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.accepted(3)
    log.close()
    with (tmp_path / "other").open("w"):  # it has the descriptor now
        log.accepted(4)
        log.close()
    assert (tmp_path / "log").read_text() == '{"accepted": 3}\n'
    assert (tmp_path / "other").read_text() == ""


def test_people_are_told_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(seed=5, accepted=TASKS, completed=TASKS - 1, lost=1, faults={"worker kills": 60})
    report.violations.append("I1: task 3 was accepted and has no end")
    render.console().print(render.chaos(report.to_dict()))
    *table, why, verdict = capsys.readouterr().out.splitlines()
    assert ["lost", "1", "accepted,"] in [line.split()[:3] for line in table]
    assert ["executions", "-"] in [line.split()[:2] for line in table], "no run was noted: not none"
    assert why == report.violations[0]
    assert verdict == "BROKEN (seed 5)"
