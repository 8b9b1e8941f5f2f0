"""`taskyard doctor` for a yard of this machine: a line a check, with the cure of what is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import KEY, Lab
from yardcerts import settings, yard

from taskyard.errors import EXIT_HOST

Found = dict[str, dict[str, str]]
Doctor = Callable[..., tuple[int, Found]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    def run(**environ: str) -> tuple[int, Found]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
        clean |= {f"TASKYARD_{name}": value for name, value in environ.items()}
        done = subprocess.run(
            [sys.executable, "-m", "taskyard_ctl", "doctor", "--json"], cwd=tmp_path, env=clean,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}

    return run


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    it = Lab(tmp_path / "lab")
    it.start_master()
    yield it
    it.stop()


def test_without_a_key_it_says_where_one_comes_from(doctor: Doctor) -> None:
    code, found = doctor()
    assert code == EXIT_HOST
    assert "taskyard init" in found["settings"]["cure"]


def test_nothing_runs_and_others_may_listen(doctor: Doctor) -> None:
    code, found = doctor(AUTHKEY=KEY, ADDRESS="0.0.0.0:1")
    assert code == EXIT_HOST
    assert "taskyard up" in found["port"]["cure"]
    assert "taskyard up" in found["engine"]["cure"]
    assert "taskyard certs" in found["TLS"]["cure"]
    assert found["disk"]["ok"] and found["clock"]["ok"] and found["key"]["ok"]
    assert KEY not in json.dumps(found)


def test_a_master_that_answers_or_does_not_let_us_in(doctor: Doctor, lab: Lab) -> None:
    _, found = doctor(AUTHKEY=KEY, ADDRESS=lab.address)
    assert found["port"]["ok"] and found["master"]["ok"]
    assert "taskyard scale" in found["workers"]["cure"]
    _, found = doctor(AUTHKEY="another key of sixteen", ADDRESS=lab.address)
    assert "TASKYARD_AUTHKEY" in found["master"]["cure"]


def test_tls_is_on_with_its_dates_or_of_no_use(doctor: Doctor, tmp_path: Path) -> None:
    certs = yard(tmp_path / "certs")
    tls = {name.removeprefix("TASKYARD_"): path for name, path in settings(certs, "client").items()}
    _, found = doctor(AUTHKEY=KEY, ADDRESS="127.0.0.1:1", **tls)
    assert found["TLS"]["ok"] and "client client until 20" in found["TLS"]["found"]
    _, found = doctor(AUTHKEY=KEY, ADDRESS="127.0.0.1:1", **{**tls, "TLS_KEY": tls["TLS_CA"]})
    assert "taskyard certs" in found["TLS"]["cure"]
