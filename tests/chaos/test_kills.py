"""The user's command, as CI runs it: kills of workers and the master for a minute, and nothing is lost."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from yards import TestYard

MINUTES = float(os.environ.get("CHAOS_MINUTES", "1"))
TASKS = int(os.environ.get("CHAOS_TASKS", "5000"))


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestYard]:
    yard = TestYard(tmp_path_factory.mktemp("kills") / "yard", TASKYARD_LEASE="3", TASKYARD_GRACE="1")
    yard.run("up", "--local", "--workers", "5")
    yield yard
    yard.run("down", "--deadline", "5")


@pytest.mark.timeout(60 * MINUTES + 600)
def test_a_minute_of_kills(yard: TestYard) -> None:
    asked = ("chaos", "--minutes", f"{MINUTES}", "--tasks", f"{TASKS}", "--seed", "4", "--json")
    with yard.start(*asked) as process:
        out, err = process.communicate(timeout=60 * MINUTES + 400)
    assert process.returncode == 0, f"{out}{err}"
    report = json.loads(out)
    if path := os.environ.get("CHAOS_REPORT"):
        with open(path, "a") as file:
            file.write(json.dumps({"test": os.environ["PYTEST_CURRENT_TEST"], **report}) + "\n")
    assert report["verdict"] == "held", report
    assert report["completed"] == report["accepted"] == TASKS
    assert (report["lost"], report["duplicated"], report["unexpected"], report["charged"]) == (0, 0, 0, 0)
    assert report["faults"]["worker kills"] >= 60 * MINUTES
    assert report["faults"]["master kills"] >= 4 * MINUTES
    assert report["reruns"] > 0, "a kill that costs no run hit nobody"
    assert not list(yard.folder.glob("tasks/taskyard_chaos*")), "its module is gone"


def test_without_a_fault_it_says_so(yard: TestYard) -> None:
    quiet = ("--worker-every", "0", "--master-every", "0", "--stop-every", "0")
    done = yard.run("chaos", "--minutes", "0.05", "--tasks", "50", *quiet, "--json", code=1)
    report = json.loads(done.out)
    assert report["verdict"] == "no fault happened"
    assert (report["completed"], report["executions"], report["reruns"]) == (50, 50, 0)


def test_without_a_yard_it_says_so(tmp_path: Path) -> None:
    yard = TestYard(tmp_path / "yard")
    assert "no yard runs" in yard.run("chaos", code=3).err
