"""Submitting a job and, if wanted, waiting for it: what `submit` and `run` share."""

import difflib
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from taskyard.errors import EXIT_DONE, FunctionError, UsageError
from taskyard_ctl import inputs, mismatch, shapes
from taskyard_ctl.cli import say
from taskyard_ctl.following import Results, conclude
from taskyard_ctl.interrupts import Interrupts
from taskyard_ctl.progress import Progress
from taskyard_ctl.yard import YardFolder

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard.job import Job
    from taskyard.messages import WorkerStatus
    from taskyard.scan import Listing

NAME_LIMIT = 5  # of functions named in an error
TAKE_UP_S = 5.0  # in which workers notice an edit: they look every second
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    function: str
    range: str
    input: str
    glob: str
    arg: tuple[str, ...]
    jsonl: bool
    job: str
    max_attempts: int
    timeout: float
    priority: int
    ordered: bool
    as_json: bool

    @property
    def calls(self) -> bool:
        """Are the inputs calls, (args, kwargs), instead of one argument each?"""
        return self.jsonl or bool(self.arg)


def submit(folder: YardFolder, request: Request, wait: bool, containers: Callable[[], bool]) -> int:
    """Submit and print the job's id, or wait and print its results; returns the exit code."""
    items = items_of(folder, request, containers)
    with folder.connect(persistent=True) as yard:
        alone = check_function(folder, yard, request.function)
        return _follow(yard, request, items) if wait else _leave(yard, request, items, alone)


def _leave(yard: "Yard", request: Request, items: Iterable[Any], alone: bool) -> int:
    job = secrets.token_hex(6)
    with Progress(yard, job) as progress, Interrupts(job, progress.notice, submitting=True):
        _submit(yard, request, job, items)
    click.echo(shapes.line({"job": job}).rstrip() if request.as_json else job)
    if alone:
        say("no workers yet: taskyard scale 2")
    return EXIT_DONE


def _follow(yard: "Yard", request: Request, items: Iterable[Any]) -> int:
    """Results are read while inputs are still being submitted: a pipe at both ends works."""
    job = secrets.token_hex(6)
    output = Results(job, request.as_json)
    reader = _Reader(lambda: output.write(yard.job(job).results(follow=True, ordered=request.ordered)))
    with (
        Progress(yard, job, output.flush, output.screen) as progress,
        Interrupts(job, progress.notice, submitting=True) as interrupts,
    ):
        said = _Announced(items, lambda: say(f"job {job}"), reader.start)
        _submit(yard, request, job, said if isinstance(items, Collection) else iter(said))
        interrupts.submitting = False
        reader.finish()
    return conclude(yard, job)


def _submit(yard: "Yard", request: Request, job: str, items: Iterable[Any]) -> "Job":
    return yard.submit(
        request.function, items, name=request.job, job=job, max_attempts=request.max_attempts,
        timeout=request.timeout, priority=request.priority, calls=request.calls,
    )  # fmt: skip


def items_of(folder: YardFolder, request: Request, containers: Callable[[], bool]) -> Iterable[Any]:
    """The inputs that the request names, read only as they are used."""
    given = [request.range, request.input, request.glob, request.arg]
    if sum(map(bool, given)) != 1:
        raise UsageError("give the inputs by one of --range, --input, --glob and --arg")
    if request.jsonl and not request.input:
        raise UsageError("--jsonl goes with --input")
    if request.range:
        return inputs.of_range(request.range)
    if request.arg:
        return inputs.of_arguments(request.arg)
    if request.jsonl:
        return inputs.of_json_lines(request.input)
    check = inputs.seen_by_workers(folder.settings.data_dir, containers)
    if request.glob:
        return inputs.of_glob(request.glob, check)
    return inputs.of_lines(request.input, check)


def check_function(folder: YardFolder, yard: "Yard", function: str) -> bool:
    """Refuse what no joined worker can run; true if none has joined yet."""
    module, colon, name = function.partition(":")
    if not (module and colon and name):
        raise FunctionError(f"{function!r} names no function: write MODULE:FUNCTION, as in squares:square")
    workers = yard.status().workers
    differs = mismatch.find(folder, workers)
    for line in differs.lines() if differs else ():
        say(line)
    known = _able(workers)
    if known is None or function in known:
        return known is None
    here = _here(folder)
    if function in here.functions:
        say("waiting for the workers to take up an edit of the tasks folder")
        pause, end = threading.Event(), time.monotonic() + TAKE_UP_S
        while time.monotonic() < end and not pause.wait(LOOK_S):
            known = _able(yard.status().workers) or known
            if function in known:
                return False
    raise FunctionError(f"no joined worker can run {function}: {_why_not(here, function, known)}")


def _able(workers: "list[WorkerStatus]") -> set[str] | None:
    """What the joined workers can run; None if there are none."""
    return {function for worker in workers for function in worker.functions} if workers else None


def _here(folder: YardFolder) -> "Listing":
    """What the tasks folder here offers, perhaps since a moment ago."""
    from taskyard.scan import Listing

    try:
        return folder.listing()
    except FunctionError:
        return Listing()  # no tasks folder here: a client elsewhere


def _why_not(here: "Listing", function: str, known: set[str]) -> str:
    """What is near, else what the tasks folder here says."""
    near = difflib.get_close_matches(function, known, n=2, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(near)}?"
    module = function.partition(":")[0]
    if module in here.faults:
        return f"module {module} cannot be imported ({here.faults[module]})"
    if function in here.functions:
        return "it is in the tasks folder here; do the workers have the same?"
    if not known:
        return "they can run nothing; 'taskyard check' may say why"
    more = ", ..." if len(known) > NAME_LIMIT else ""
    return f"they can run {', '.join(sorted(known)[:NAME_LIMIT])}{more}"


class _Announced(Collection[Any]):
    """The inputs, and a word when the first is asked for: then the job is open."""

    def __init__(self, items: Iterable[Any], *calls: Callable[[], None]) -> None:
        self._items = items
        self._calls = calls

    def __iter__(self) -> Iterator[Any]:
        for call in self._calls:
            call()
        yield from self._items

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]

    def __contains__(self, item: object) -> bool:
        return item in self._items


class _Reader:
    """Something done in a thread whose error is raised by `finish`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="results", daemon=True)
        self.start = self._thread.start

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised by finish
            self._error = error

    def finish(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
