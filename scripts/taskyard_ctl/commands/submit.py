"""`submit` and `run`: give the yard something to do."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of

if TYPE_CHECKING:
    from taskyard_ctl.submission import Request

F = TypeVar("F", bound=Callable[..., Any])


def _job_options(function: F) -> F:
    """The options that describe a job."""
    options = [
        click.argument("function", metavar="MODULE:FUNCTION"),
        click.option("--range", default="", metavar="A:B", help="The numbers from A up to B, without B."),
        click.option("--input", default="", metavar="FILE", help="One task a line; - reads stdin."),
        click.option("--jsonl", is_flag=True, help="Lines are JSON: lists are arguments, objects keywords."),
        click.option("--glob", default="", metavar="PATTERN", help="The files that match; ** is any depth."),
        click.option("--arg", multiple=True, metavar="JSON", help="One task; may be repeated."),
        click.option("--job", default="", metavar="NAME", help="A name for the job."),
        click.option(
            "--max-attempts", type=click.IntRange(1), default=3, metavar="N", show_default=True,
            help="How often a task that fails is tried.",
        ),
        click.option(
            "--timeout", type=click.FloatRange(0), default=0.0, metavar="S",
            help="Seconds that one task may run; no limit unless told.",
        ),
        click.option("--priority", type=int, default=0, metavar="N", help="Higher goes first."),
        click.option("--ordered", is_flag=True, help="Results by index instead of by time."),
        click.option("--json", "as_json", is_flag=True, help="JSON in a terminal too."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=Verb)
@_job_options
@click.option("--wait", is_flag=True, help="Wait, and print the results instead of the job's id.")
@click.option("--dry-run", is_flag=True, help="Show the first five calls, and submit nothing.")
@click.pass_context
def submit(ctx: click.Context, /, wait: bool, dry_run: bool, **asked: Any) -> int:
    """Submit a job: one task for each input. Prints the job's id.

    Inputs are read as fast as they are submitted, so there may be more than memory holds; with
    --wait results come out meanwhile. The exit code is then 1 if some tasks did not complete.

    \b
    Examples:     taskyard submit squares:square --range 0:1000000 --job squares
                  taskyard submit logs:summarise --glob '/var/log/**/*.gz' --wait
                  generate | taskyard submit tiles:tile --input - --jsonl --wait | use
                  taskyard submit logs:summarise --input paths.txt --dry-run
    """
    from taskyard_ctl.rehearsal import rehearse
    from taskyard_ctl.submission import submit as do

    if asked["ordered"] and not wait:
        raise UsageError("--ordered goes with --wait; 'taskyard results JOB --ordered' has it later")
    folder = yard_of(ctx)
    if dry_run:
        return rehearse(folder, _request(asked), folder.in_containers)
    return do(folder, _request(asked), wait, folder.in_containers)


@click.command(cls=Verb)
@_job_options
@click.option("--workers", type=click.IntRange(0), metavar="N", help="How many workers the yard should have.")
@click.option("--local/--containers", default=None, help="As what a yard is started, as with 'up'.")
@click.pass_context
def run(ctx: click.Context, /, workers: int | None, local: bool | None, **asked: Any) -> int:
    """Start a yard if none runs, submit, wait, print the results.

    The yard stays up for the next one; 'taskyard down' stops it.

    \b
    Example:      taskyard run squares:square --range 0:10
    """
    from taskyard_ctl.lifecycle import bring_up
    from taskyard_ctl.submission import submit as do

    folder = yard_of(ctx)
    engine = folder.found() if folder.has_key else None
    if engine is None or not engine.running() or workers is not None:
        bring_up(folder, workers, local, say)
    return do(folder, _request(asked), True, folder.in_containers)


def _request(asked: dict[str, Any]) -> "Request":
    from taskyard_ctl.submission import Request

    return Request(**asked)
