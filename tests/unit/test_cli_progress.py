"""How a job goes, in words: the rate of late, what is left, who works on it."""

import pytest
from test_cli_output import job, worker

from taskyard_ctl.progress import Rate, facts


def test_the_rate_is_that_of_late() -> None:
    rate = Rate()
    assert rate.add(0, 100.0) == 0.0
    assert rate.add(1000, 101.0) == 1000.0
    for second in range(102, 130):
        last = rate.add(1000 + second - 101, float(second))
    assert last == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ended": 0.0, "completed": 4}, "2.0/s, 3.0 s left, 1 worker"),
        ({"state": "open", "ended": 0.0}, "2.0/s, still submitting, 1 worker"),
        ({"ended": 0.0, "completed": 5, "dead": 1, "retries": 7},
         "2.0/s, 2.0 s left, 1 dead, 7 retried, 1 worker"),
        ({"ended": 0.0, "completed": 4, "error": "ValueError: no"},
         "2.0/s, 3.0 s left, 1 worker, ValueError: no"),
        ({}, "2.0/s, the last results are on their way, 1 worker"),
    ],
)  # fmt: skip
def test_what_progress_says(changes: dict[str, object], text: str) -> None:
    assert ", ".join(facts(job(**changes), [worker()], 2.0)) == text
