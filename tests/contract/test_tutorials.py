"""The scripts of tutorials on distributed multiprocessing, unmodified, run by every Python there is.

Each Python has a master of its own, and they all run at the same time: the scripts mostly sleep.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scripts import Script, all_pythons, tutorial
from serving import KEY, Serving, journaled, serving
from support import eventually


@pytest.fixture
def masters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Serving]]:
    """One for each version of Python; the parameter is TASKYARD_PLAIN_MAXSIZE."""
    maxsize = getattr(request, "param", 0)
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(
                serving(maker=journaled, journal=tmp_path / version, plain_maxsize=maxsize)
            )
            for version in all_pythons()
        }


def start(masters: dict[str, Serving], script: str) -> dict[str, Script]:
    return {
        version: tutorial(all_pythons()[version], script, it.address, KEY) for version, it in masters.items()
    }


def have_tasks(masters: dict[str, Serving], count: int = 10) -> None:
    for version, master in masters.items():
        eventually(lambda m=master: m.counts()[0] == count, f"the tasks of Python {version}")


def is_done(master: Serving) -> None:
    """Nothing is left, and every script's connection has ended."""
    eventually(lambda: master.server.connections == 0)
    assert master.counts() == (0, 0, 0)
    job = master.call(master.service.ledger.status, "plain")
    assert (job.total, job.completed) == (10, 10)


@pytest.mark.parametrize("masters", [10], indirect=True)
def test_until_the_queue_is_empty_and_until_it_is_full(masters: dict[str, Serving]) -> None:
    producers = start(masters, "master_until_full.py")
    have_tasks(masters)
    workers = start(masters, "worker_until_empty.py")
    for version, master in masters.items():
        out = producers[version].output()
        assert len(re.findall(r"^task \d+ is finish , runtime:[01] s$", out, re.M)) == 10
        assert workers[version].output().count("run task") == 10
        is_done(master)


def test_ten_times_with_a_timeout(masters: dict[str, Serving]) -> None:
    producers = start(masters, "producer_ten_results.py")
    have_tasks(masters)
    workers = start(masters, "worker_ten_times.py")
    for version, master in masters.items():
        results = re.findall(r"^Result: (\d+) \* (\d+) = (\d+)$", producers[version].output(), re.M)
        assert len(results) == 10
        assert all(int(a) == int(b) and int(a) * int(b) == int(c) for a, b, c in results)
        assert workers[version].output().splitlines()[-1] == "worker exit."
        is_done(master)


def test_the_names_of_other_tutorials_and_two_workers(masters: dict[str, Serving]) -> None:
    workers = [start(masters, "worker_queue_names.py") for _ in range(2)]
    producers = start(masters, "producer_queue_names.py")
    for version, master in masters.items():
        assert producers[version].output().count("Result: ") == 10
        outs = [some[version].output() for some in workers]
        assert sum(out.count("run task") for out in outs) == 10
        is_done(master)


def test_every_method_is_as_in_the_standard_library(masters: dict[str, Serving]) -> None:
    for script in start(masters, "queue_methods.py").values():
        assert script.output() == "all as it should be\n"


def test_pythons_old_and_new_work_for_one_master(tmp_path: Path) -> None:
    """The first answers the handshake with MD5, the last with SHA-256."""
    first, *_, last = all_pythons().values()
    with serving(maker=journaled, journal=tmp_path / "journal") as master:
        producer = tutorial(first, "producer_ten_results.py", master.address, KEY)
        worker = tutorial(last, "worker_queue_names.py", master.address, KEY)
        assert producer.output().count("Result: ") == 10
        worker.output()
        is_done(master)
