"""CPython's own tests of executors, run on a YardExecutor: the files of whichever Python has them.

The functions that they use are replaced by those of tests/pool_tasks, because workers run only what is
defined in the tasks folder. What is left out, and why, is in LEFT_OUT and in docs/executor.md.
"""

import importlib
import importlib.util
import subprocess
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from lab import KEY, Lab, running_lab
from machine import lacking
from pythons import VERSIONS, python

from taskyard import YardExecutor

TASKS = Path(__file__).resolve().parent.parent / "pool_tasks"
sys.path.append(str(TASKS))
import pooltasks  # noqa: E402

LEFT_OUT = {
    "test_no_stale_references": "sends a bound method, whose object would have to travel",
    "test_processes_terminate": "sends a lock, and counts processes",
    "test_interpreter_shutdown": "a script with another executor; see test_executor.py",
    "test_submit_after_interpreter_shutdown": "a script with another executor; see test_executor.py",
    "test_hang_gh83386": "a script with another executor; see test_executor.py",
    "test_context_manager_shutdown": "looks at processes; see test_executor.py",
    "test_del_shutdown": "looks at processes; see test_executor.py",
    "test_shutdown_no_wait": "looks at processes; see test_executor.py",
}
REPLACED = {
    "mul": pooltasks.mul,
    "capture": pooltasks.capture,
    "make_dummy_object": pooltasks.make_thing,
    "sleep_and_raise": pooltasks.sleep_and_raise,
    "pow": pooltasks.power,
    "divmod": pooltasks.quotient,
    "str": pooltasks.text,
    "abs": pooltasks.absolute,
    "int": pooltasks.zero,
    "time": SimpleNamespace(sleep=pooltasks.sleep, monotonic=time.monotonic),
}


def find() -> Path | None:
    """The folder of CPython's tests of executors, of the newest Python that has one."""
    for version in reversed(VERSIONS):
        try:
            program = python(version)
        except pytest.skip.Exception:
            continue
        words = [program, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]
        found = Path(subprocess.check_output(words, text=True).strip(), "test", "test_concurrent_futures")
        if (found / "executor.py").exists():
            return found
    return None


def load(folder: Path, name: str) -> ModuleType:
    """One of its modules, with our functions in the places of its own and of builtins."""
    from test import support

    if not hasattr(support, "Py_GIL_DISABLED"):  # these files may be of a newer Python than this one
        support.Py_GIL_DISABLED = False
    if "cpython_futures" not in sys.modules:
        package = ModuleType("cpython_futures")
        package.__path__ = [str(folder)]
        sys.modules["cpython_futures"] = package
    module = importlib.import_module(f"cpython_futures.{name}")
    vars(module).update(REPLACED)
    return module


class Pool(YardExecutor):
    """An executor made as those of the standard library are."""

    address = ""

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(self.address, KEY, max_workers=max_workers, allow=[pooltasks.Thing])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab"), workers=2, tasks=TASKS, slots="2") as lab:
        Pool.address = lab.address
        yield lab


FOLDER = find()


def test_cpythons_tests_are_here() -> None:
    if FOLDER is None:
        lacking("a Python that has its own tests of concurrent.futures")


if FOLDER is not None:
    util = load(FOLDER, "util")

    @pytest.mark.usefixtures("lab")
    class OnYard(util.ExecutorMixin, util.BaseTestCase):  # type: ignore[misc, name-defined]
        executor_type = Pool

        def tearDown(self) -> None:
            from test import support

            super().tearDown()
            assert not support.environment_altered, "a thread of the executor is left"

    def on_yard(module: str, name: str) -> type[unittest.TestCase]:
        mixin: Any = getattr(load(FOLDER, module), name)  # type: ignore[arg-type]
        left_out = {test: None for test in LEFT_OUT if hasattr(mixin, test)}
        return type(f"Yard{name}", (mixin, OnYard), left_out)

    TestExecutor = on_yard("executor", "ExecutorTest")
    TestWait = on_yard("test_wait", "WaitTests")
    TestAsCompleted = on_yard("test_as_completed", "AsCompletedTests")
    TestShutdown = on_yard("test_shutdown", "ExecutorShutdownTest")
    del OnYard
