"""Bringing a yard up, to a number of workers, and down: what `up`, `run`, `scale` and `down` share."""

import os
from pathlib import Path

from taskyard.errors import EngineError, FunctionError, UnreachableError, UsageError
from taskyard.settings import split_address
from taskyard_ctl import envfile, newyard, scaling
from taskyard_ctl.interface import Engine, Say
from taskyard_ctl.ports import check_free, first_free
from taskyard_ctl.yard import YardFolder

WORKERS = "TASKYARD_WORKERS"
WEB = "TASKYARD_WEB"


def bring_up(folder: YardFolder, workers: int | None, local: bool | None, say: Say) -> None:
    """Start the yard, or change the one that runs, and wait until its workers have joined.

    `local`: processes or containers; None means what it was before, else what this machine can do.
    """
    if not folder.has_key:
        for line in newyard.make(folder):
            say(line)
    wanted = folder.settings.workers if workers is None else workers
    engine = folder.found()
    if engine is not None and engine.name == "hosts":
        raise UsageError(
            "this yard is on several hosts: 'taskyard deploy' starts it, 'taskyard scale' grows it"
        )
    if engine is None or not engine.running():
        engine = _start(folder, engine, wanted, local, say)
    elif local is not None and engine.containers == local:
        what, option = ("containers", "--local") if local else ("processes", "--containers")
        raise UsageError(f"this yard runs as {what}: 'taskyard down' first, then 'taskyard up {option}'")
    elif workers is not None:
        scale(folder, engine, workers, say)
    count = sum(member.role == "worker" for member in engine.members())
    scaling.wait_ready(folder, engine, count)
    folder.write_record(engine=engine.name)
    if workers is not None:
        keep_workers(folder, workers, say)
    what = "containers" if engine.containers else "processes"
    say(f"the yard is up: master at {folder.settings.address}, {plural(count, 'worker')}, as {what}")
    if folder.dashboard:
        say(f"dashboard: {folder.dashboard} ('taskyard dashboard' has the way in)")


def _start(folder: YardFolder, before: Engine | None, workers: int, local: bool | None, say: Say) -> Engine:
    if not os.path.isdir(folder.settings.tasks_dir):  # noqa: PTH112 - a str
        raise FunctionError(
            f"there is no tasks folder {folder.settings.tasks_dir}: set TASKYARD_TASKS_DIR, or run"
            " 'taskyard init' for a new one"
        )
    if local is None:
        engine = before or _default(folder, say)  # its jobs are in the engine that it had
    else:
        engine = folder.local() if local else folder.compose()
    engine.check()
    _free_web(folder, say)
    say(f"starting the master and {plural(workers, 'worker')}")
    engine.up(workers, say)
    try:
        scaling.wait_ready(folder, engine, workers)
    except BaseException:
        engine.down(0.0, lambda line: None)  # nothing stays half started
        raise
    return engine


def _free_web(folder: YardFolder, say: Say) -> None:
    """Give the dashboard another port where its own is taken: that is no reason not to start."""
    web = folder.settings.web
    if not web:
        return
    host, port = split_address(web)
    try:
        check_free(host, port, WEB)
    except UnreachableError as error:
        if WEB in os.environ or WEB not in envfile.read(folder.env_file):
            raise
        other = first_free(host, newyard.WEB_PORTS)
        say(f"{error}; the dashboard takes {other} instead")
        envfile.put(folder.env_file, WEB, f"{host}:{other}")
        folder.reread()


def _default(folder: YardFolder, say: Say) -> Engine:
    """Containers where there is an engine, else processes."""
    compose = folder.compose()
    try:
        compose.check()
    except EngineError as error:
        say(f"{error}; starting processes instead, as 'taskyard up --local' does")
        return folder.local()
    return compose


def scale(folder: YardFolder, engine: Engine, workers: int, say: Say) -> None:
    """Bring the number of workers to `workers`."""
    count = sum(member.role == "worker" for member in engine.members())
    if workers > count:
        engine.grow(workers)
        scaling.wait_ready(folder, engine, workers)
    elif workers < count:
        scaling.shrink(folder, engine, workers, say)


def keep_workers(folder: YardFolder, workers: int, say: Say) -> None:
    """Remember the number in `.env`, so that a later plain `up` starts as many."""
    if os.environ.get(WORKERS, str(workers)) != str(workers):
        say(f"{WORKERS} is set to {os.environ[WORKERS]} in the environment and will win at the next 'up'")
    if folder.env_file.exists():
        envfile.put(folder.env_file, WORKERS, str(workers))


def bring_down(folder: YardFolder, grace: float | None, say: Say) -> bool:
    """Stop the yard; False if nothing ran."""
    engine = folder.found()
    if engine is None or not engine.running():
        return False
    engine.down(folder.basics.drain if grace is None else grace, say)
    return True


def restore(folder: YardFolder, file: Path, local: bool, say: Say) -> str:
    """Put a backup in the journal's place; the yard must be down. Returns what was done."""
    engine = folder.found()
    if engine is not None and engine.name == "hosts":
        return engine.restore(file.resolve())  # workers may run: they wait for a master
    if engine is not None and engine.running():
        raise UsageError(
            f"the yard in {folder.path} runs: 'taskyard down' first, so that nothing is lost by it"
        )
    engine = engine or (folder.local() if local else _default(folder, say))
    return engine.restore(file.resolve())


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
