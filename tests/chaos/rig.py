"""A lab for chaos tests: it starts again what ends, as compose does, and the oracle watches the load."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab import KEY, Lab
from support import eventually

from taskyard import Yard
from taskyard.failpoints import EXIT_FIRED
from taskyard.messages import Options
from taskyard_ctl.chaos import oracle
from taskyard_ctl.chaos.load import Load, rest, values_of
from taskyard_ctl.chaos.probe import Tasks

HERE = Path(__file__).parent
REST_S = 90.0
POLL_S = 0.02
ENDS = {-9: "killed", 0: "stopped", EXIT_FIRED: "died at a failpoint"}


class Rig(Lab):
    """A lab whose master and workers are started again when they end; `ends` counts how they ended."""

    def __init__(self, folder: Path, *, lease: str = "2", grace: str = "0.5", **settings: str) -> None:
        tasks = folder / "tasks"
        tasks.mkdir()
        (tasks / "work.py").write_text((HERE / "work.py.txt").read_text())
        super().__init__(folder, tasks, lease=lease, grace=grace, **settings)
        self.executions = folder / "executions.log"
        self.environ["CHAOS_LOG"] = str(self.executions)
        self.environ["PYTHONPATH"] = os.pathsep.join(
            [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self.ends: Counter[tuple[str, int]] = Counter()
        self.faults: Counter[str] = Counter()  # besides ends, by kind
        self._reported: Counter[tuple[str, int]] = Counter()
        self.seed = 1
        self.before = 0  # what `fired` said at the beginning of a test
        self.far = False  # the next worker is started elsewhere, see `wrap`
        self.new_workers: dict[str, str] = {}  # settings of those that are started in the place of others
        self.wrap: Callable[[str, list[str]], list[str]] = lambda module, command: command
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._loads = 0

    def _start(self, module: str, **settings: str) -> "subprocess.Popen[bytes]":
        self._started += 1
        environ = {**self.environ, **{f"TASKYARD_{n.upper()}": v for n, v in settings.items()}}
        program = "small_master" if module == "taskyard_master" else module
        command = self.wrap(module, [sys.executable, "-m", program])
        with (self.folder / f"{module}-{self._started}.log").open("wb") as output:
            return subprocess.Popen(command, env=environ, stdout=output, stderr=output, cwd=self.folder)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address.partition(":")[0], self.port)) == 0

    def keep(self) -> None:
        """From now on, start again whatever ends."""
        self._keeper.start()

    def _keep(self) -> None:
        while not self._over.wait(POLL_S):
            with self._lock:
                self._look()

    def _look(self) -> None:
        if self.master is not None and self.master.poll() is not None:
            self.ends["master", self.master.returncode] += 1
            self.master = self._start("taskyard_master")
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.ends["worker", worker.returncode] += 1
                self.workers[place] = self._start("taskyard_worker", **self.new_workers)

    def replace_master(self, **settings: str) -> None:
        """A master with other settings in the place of this one; when that ends, an ordinary one follows."""
        with self._lock:
            assert self.master is not None
            self.master.kill()
            self.master.wait()
            self.master = self._start("taskyard_master", **settings)

    def replace_worker(self, place: int, **settings: str) -> None:
        with self._lock:
            self.workers[place].kill()
            self.workers[place].wait()
            self.workers[place] = self._start("taskyard_worker", **settings)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """What ends within this is started again only after it."""
        with self._lock:
            yield

    def yard(self) -> Yard:
        """The first connection may have to wait for a master that dies at its start, and for the next one."""
        return Yard(self.address, KEY, patience=20)

    def joined(self, yard: Yard) -> bool:
        """Whether those processes that are there now have joined, and no others."""
        return {worker.pid for worker in self.workers} == {worker.pid for worker in yard.status().workers}

    def fired(self) -> int:
        """How many processes have ended at their failpoint so far."""
        return self.ends["master", EXIT_FIRED] + self.ends["worker", EXIT_FIRED]

    def counted(self) -> dict[str, int]:
        """What has happened since the last count, by kind."""
        counted, self.faults = self.faults, Counter()
        for (role, code), count in (self.ends - self._reported).items():
            counted[f"{role} {ENDS.get(code, f'ended with {code}')}"] += count
        self._reported = Counter(self.ends)
        return dict(counted)

    def stop(self) -> None:
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        super().stop()

    # ------------------------------------------------------------ load

    def load(
        self,
        yard: Yard,
        tasks: Any = None,
        most: int = 100,  # 0: until `check`
        seconds: float = 0.0,
        options: Options | None = None,
    ) -> "Watched":
        self._loads += 1
        tasks = tasks or Tasks(self.seed, 0.001, 0.01)
        self.executions.unlink(missing_ok=True)
        log = self.folder / f"oracle-{self._loads}.log"
        load = Load(yard, "work:probe", log, tasks, self.seed, most, seconds, options)
        return Watched(self, yard, load, log, tasks)


class Watched:
    """A load and the oracle that watches it."""

    def __init__(self, rig: Rig, yard: Yard, load: Load, log: Path, tasks: Any) -> None:
        self.load = load
        self._rig = rig
        self._yard = yard
        self._log = log
        self._tasks = tasks
        load.start()

    def check(self, rest_seconds: float = REST_S, **more: Any) -> oracle.Report:
        """Wait for the rest, and compare; `more` goes to the oracle. Does not judge the report."""
        done = self.load.finish(rest_seconds) and rest(self._yard, self.load.job, rest_seconds)
        job = self._yard.job(self.load.job)
        report = oracle.check(
            self._log, job.rows(), job.status(), values_of, self._tasks.result,
            executions=self._rig.executions, faults=self._rig.counted(), **more,
        )  # fmt: skip
        if not done:
            report.violations.append("I1: the yard did not come to rest")
        note(report)
        return report

    def held(self, **more: Any) -> oracle.Report:
        """The same, and nothing may be wrong."""
        report = self.check(**more)
        assert not report.violations, f"{report}\n{self._rig.output()[-6000:]}"
        assert (report.lost, report.duplicated, report.unexpected) == (0, 0, 0), report
        return report


def note(report: oracle.Report) -> None:
    """Keep what a test has come to, for the report of `make chaos-long`."""
    path = os.environ.get("CHAOS_REPORT")
    if path:
        entry = {"test": os.environ.get("PYTEST_CURRENT_TEST", ""), **report.to_dict()}
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")


@contextlib.contextmanager
def running_rig(folder: Path, workers: int = 2, **settings: str) -> Iterator[Rig]:
    """A rig with joined workers, kept alive."""
    rig = Rig(folder, **settings)
    try:
        rig.start_master()
        rig.start_workers(workers)
        rig.keep()
        yield rig
    finally:
        rig.stop()


def stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken hold of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def halt(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: stopped(process.pid), "it is stopped")


def held_by(rig: Rig, pid: int) -> int:
    """How many tasks a worker process holds."""
    return sum(worker.leased for worker in rig.status().workers if worker.pid == pid)


def many(ci: int, long: int) -> int:
    """How often a fault is repeated: in CI, and where `make chaos-long` does it."""
    return long if "CHAOS_MINUTES" in os.environ else ci
