"""What a task costs in frames, commits and bytes does not grow unseen: see benchmarks/guard.py."""

import json
import sys

from machine import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import guard


def test_tasks_cost_no_more_than_the_file_says() -> None:
    dearer = guard.grown(guard.count(), json.loads(guard.FILE.read_text()))
    assert not dearer, "if that is meant: make bench-guard ARGS=--renew, and commit benchmarks/guard.json"


def test_the_guard_names_what_has_grown() -> None:
    kept = {"single task": {"frames": 100, "commits": 2}}
    assert guard.grown({"single task": {"frames": 110, "commits": 2}}, kept) == []
    assert guard.grown({"single task": {"frames": 111, "commits": 3}}, kept) == [
        "single task: frames: 111, and 100 in guard.json",
        "single task: commits: 3, and 2 in guard.json",
    ]
    assert guard.grown({"another": {"frames": 1}}, kept) == ["another: frames: 1, and 0 in guard.json"]
