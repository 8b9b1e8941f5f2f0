"""Workers whose image has other tasks than this machine: a table of both sides, wherever somebody looks."""

import platform
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from lab import KEY, Lab
from support import eventually
from yards import TestYard

import taskyard
from taskyard.connection import Connection
from taskyard.functions import digest
from taskyard.messages import Hello

OTHER = "0123456789abcdef"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.start_master()
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def yard(lab: Lab, tmp_path: Path) -> TestYard:
    """A folder whose master is the lab's."""
    return TestYard(tmp_path / "yard", TASKYARD_ADDRESS=lab.address, TASKYARD_AUTHKEY=KEY)


class Workers:
    """Workers in name only, on hosts a and b."""

    def __init__(self, lab: Lab, digest: str, functions: list[str], version: str, baked: bool) -> None:
        def hello(host: str) -> Hello:
            return Hello(
                0, "worker", f"w-{host}", host, 1, f"boot-{host}", version, "3.13.5", slots=1,
                functions=functions, digest=digest, baked=baked,
            )  # fmt: skip

        self._connections = [
            Connection(lab.address, KEY.encode(), partial(hello, host)) for host in ("a", "b")
        ]
        for connection in self._connections:
            connection.start()
        eventually(
            lambda: [w.digest for w in lab.status().workers if w.state != "missing"] == [digest] * 2, "2"
        )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._connections:
            connection.close()


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_other_tasks_in_the_image_are_shown_on_submit_status_and_by_doctor(lab: Lab, yard: TestYard) -> None:
    here = digest(yard.folder / "tasks")
    with Workers(lab, OTHER, ["work:square", "work:old"], taskyard.__version__, baked=True):
        sent = yard.run("submit", "work:square", "--range", "0:1", "--job", "known")
        refused = yard.run("submit", "work:add", "--range", "0:1", code=2)
        shown = yard.run("status")
        doctor = yard.run("doctor", code=5)
    for text in (sent.err, refused.err, shown.out, doctor.out):
        table = words(text)
        assert ["here", "2", "workers", "on", "2", "hosts"] in table
        assert ["tasks", here, OTHER, "differs"] in table
        assert ["taskyard", taskyard.__version__, taskyard.__version__] in table
        assert ["Python", platform.python_version(), "3.13.5", "differs"] in table
        (functions,) = [line for line in text.splitlines() if line.strip().startswith("functions ")]
        assert "work:add" in functions and "work:old" in functions and "work:square" not in functions
        assert "'taskyard deploy' brings the workers what is here" in text
    assert len(sent.out.split()) == 1, "the id alone is data"
    assert refused.err.splitlines()[-1].startswith("taskyard: no joined worker can run work:add")


def test_another_version_of_taskyard_differs_and_another_python_does_not(lab: Lab, yard: TestYard) -> None:
    here = digest(yard.folder / "tasks")
    with Workers(lab, here, ["work:square"], taskyard.__version__, baked=True):
        assert "differ" not in yard.run("status").out + yard.run("doctor", "--json", code=5).out
    with Workers(lab, here, ["work:square"], "0.0.9", baked=True):
        shown = yard.run("status").out
    assert ["taskyard", taskyard.__version__, "0.0.9", "differs"] in words(shown)
    assert ["tasks", here, here] in words(shown)


def test_folders_that_are_mounted_take_up_edits_and_differ_for_a_moment_only(
    lab: Lab, yard: TestYard
) -> None:
    with Workers(lab, OTHER, ["work:square"], taskyard.__version__, baked=False):
        assert "differ" not in yard.run("status").out
