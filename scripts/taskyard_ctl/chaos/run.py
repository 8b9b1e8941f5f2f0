"""One chaos run on a yard that is up: load, faults, rest, and what the oracle says."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskyard.errors import EngineError, TaskyardError, UnreachableError
from taskyard_ctl.chaos import oracle, probe, victims
from taskyard_ctl.chaos.faults import Faults, Plan
from taskyard_ctl.chaos.load import Load, rest, values_of
from taskyard_ctl.interface import Say

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard_ctl.yard import YardFolder

JOIN_S = 30.0  # for the workers to see the function that was put into their folder
REST_S = 300.0  # for everything to come to its end after the last fault


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    seconds: float
    seed: int
    plan: Plan
    tasks: int = 0  # 0: as many as there is time for
    keep: bool = False  # the oracle's files too where all is well
    shortest: float = 0.005  # seconds that a task takes
    longest: float = 0.05


def run(folder: "YardFolder", request: Request, say: Say) -> oracle.Report:
    """Put the yard under load, hit it, wait for it to come to rest, and compare."""
    yards = victims.of(folder)
    place = folder.state / "chaos" / f"{time.strftime('%Y%m%d-%H%M%S')}-{request.seed}"
    place.mkdir(parents=True)
    executions = place / "executions.log" if yards.logs_executions else None
    try:
        module = probe.write(Path(folder.settings.tasks_dir), executions)
    except OSError as error:
        raise EngineError(
            f"chaos puts a module of its own into the tasks folder while it runs: {error}"
        ) from None
    try:
        with folder.connect(persistent=True) as yard:
            function = probe.function(module)
            _await_function(yard, function)
            report = _measure(yard, yards, request, function, place, executions, say)
    finally:
        module.unlink(missing_ok=True)
    if report.verdict == "held" and not request.keep:
        shutil.rmtree(place)
    else:
        say(f"what was tried, answered and run is in {place}")
    return report


def _await_function(yard: "Yard", function: str) -> None:
    deadline = time.monotonic() + JOIN_S
    while True:
        workers = yard.status().workers
        if workers and all(function in worker.functions for worker in workers):
            return
        if time.monotonic() > deadline:
            if not workers:
                raise EngineError("no workers have joined: taskyard scale 4")
            raise EngineError(
                f"the workers do not see {function} in their tasks folder: is it part of their image?"
            )
        time.sleep(0.1)


def _measure(
    yard: "Yard", yards: victims.Yards, request: Request, function: str, place: Path,
    executions: Path | None, say: Say,
) -> oracle.Report:  # fmt: skip
    log = place / "oracle.log"
    tasks = probe.Tasks(request.seed, request.shortest, request.longest)
    load = Load(yard, function, log, tasks, request.seed, request.tasks, request.seconds)
    faults = Faults(yards, request.plan, request.seed, say)
    begun = time.monotonic()
    load.start()
    faults.start()
    try:
        while time.monotonic() - begun < request.seconds and not load.failed and faults.error is None:
            time.sleep(0.1)
    finally:
        faults.finish()
    lease = yard.connection.welcome.lease if yard.connection.welcome else 0.0
    say(
        "no more faults: waiting for the rest of the tasks; what a worker held that died together with"
        f" the master comes back after a lease, {lease:g} s"
    )
    if not load.finish(REST_S) or not rest(yard, load.job, REST_S):
        say(f"the job {load.job} has not come to rest within {REST_S:.0f} s")
    seconds = time.monotonic() - begun
    report = _check(yard, load, tasks, log, executions, faults)
    report.seed, report.seconds = request.seed, round(seconds, 1)
    if report.verdict == "held" and not request.keep:
        yard.delete(load.job)
    return report


def _check(
    yard: "Yard", load: Load, tasks: probe.Tasks, log: Path, executions: Path | None, faults: Faults
) -> oracle.Report:
    try:
        job = yard.job(load.job)
        return oracle.check(
            log, job.rows(), job.status(), values_of, tasks.result,
            executions=executions, faults=faults.happened,
        )  # fmt: skip
    except UnreachableError:
        raise
    except TaskyardError as error:
        report = oracle.Report(faults=dict(faults.happened))
        report.violations.append(f"I1: the job cannot be read: {error}")
        return report
