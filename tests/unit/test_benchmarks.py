"""The benchmarks' own arithmetic: what is met, what the page says, which picture of the peers it gives."""

import sys
from pathlib import Path

import pytest
from machine import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import report
from book import Book
from goals import GOALS, verdicts
from rows.slots import best, share_of


def book(yard: float = 700_000.0) -> Book:
    """Some rounds of some peers, not all that there is to measure."""
    found = Book()
    for rate in (yard, yard * 2, yard / 2):
        found.add("throughput", "taskyard", "tasks/s", rate, "1,000,000 tasks a round")
        found.add("throughput", "tutorial pattern", "tasks/s", 7000.0 if rate <= yard else 14_000.0)
        found.add("throughput", "Pool, chunk 100", "tasks/s", 2_000_000.0)
    for side, p50, p99 in (("taskyard", 0.6, 1.3), ("tutorial pattern", 0.2, 0.9), ("Huey", 1.0, 3.0)):
        found.add("single", side, "ms p50", p50)
        found.add("single", side, "ms p99", p99)
    found.add("disk", "2,000,000 tasks", "bytes a task", 41.0)
    return found


def test_goals_are_judged_by_the_median_of_the_rounds() -> None:
    judged = {verdict.goal: verdict for verdict in verdicts(book())}
    assert judged[">= 100x the tutorial pattern"].measured == "100x (50 to 100)"
    assert judged[">= 100x the tutorial pattern"].met
    assert judged[">= 0.25x Pool with chunks of 100"].met
    assert judged["<= 4x the tutorial's p50"].met
    assert judged["<= 6x the tutorial's p50"].met is False  # 1.3 ms beside a median of 0.2
    assert judged["p50 under every durable peer"].met
    assert judged["<= 40 bytes"].met is False
    slower = {verdict.goal: verdict for verdict in verdicts(book(699_000.0))}
    assert slower[">= 100x the tutorial pattern"].met is False


def test_what_was_not_measured_is_neither_met_nor_failed() -> None:
    judged = verdicts(Book())
    assert len(judged) == len(GOALS)
    assert {verdict.met for verdict in judged} == {None}


def test_the_page_shows_goals_spread_and_who_is_faster(tmp_path: Path) -> None:
    kept = book()
    kept.skipped.append("RQ: there is no redis-server here")
    kept.save(tmp_path / "results.json")
    report.write(*Book.load(tmp_path / "results.json"), tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| journal on disk, a no-op task | <= 40 bytes | 41.0 bytes | **not met** |" in page
    assert "| taskyard | 700,000 (350,000 to 1,400,000) | 100x | 0.6 | 1.3 |" in page
    assert "Where this yard loses: more tasks a second, Pool, chunk 100 (2.9x);" in page
    assert "a quicker single task, tutorial pattern (3x)." in page
    assert "- RQ: there is no redis-server here" in page


def test_the_best_end_and_the_share_of_the_slots_time() -> None:
    assert best([1, 1, 1, 3], 2) == 3
    assert best([2, 2, 2], 2) == 4
    assert share_of([(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)], 2) == pytest.approx(100)
    assert share_of([(0.0, 1.0)], 2) == pytest.approx(50)
