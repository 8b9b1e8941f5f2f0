"""`down` and `destroy`: stop the yard, and remove what it keeps."""

import sys

import click

from taskyard.errors import EngineError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option(
    "--deadline", type=click.FloatRange(0), metavar="S",
    help="Seconds for what runs to finish; TASKYARD_DRAIN unless told. The rest is done after the next 'up'.",
)  # fmt: skip
@click.pass_context
def down(ctx: click.Context, deadline: float | None) -> None:
    """Stop the yard; its jobs go on at the next 'up'.

    \b
    Example:      taskyard down
    """
    from taskyard_ctl.lifecycle import bring_down

    folder = yard_of(ctx)
    again = "deploy" if folder.record().get("engine") == "hosts" else "up"
    was_up = bring_down(folder, deadline, say)
    say(f"the yard is down; 'taskyard {again}' goes on" if was_up else "no yard runs here")


@click.command(cls=Verb)
@click.option("--volumes", is_flag=True, help="Also the journal: all jobs and results.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def destroy(ctx: click.Context, volumes: bool, yes: bool) -> None:
    """Stop the yard, and remove its logs and images.

    Its jobs and results go only with --volumes; .env and the tasks are yours and stay.

    \b
    Example:      taskyard destroy --volumes
    """
    from taskyard_ctl.lifecycle import bring_down

    folder = yard_of(ctx)
    if volumes and not yes and sys.stdin.isatty():
        click.confirm(f"Remove all jobs and results of the yard in {folder.path}?", abort=True, err=True)
    if folder.record().get("engine") == "hosts":
        folder.hosts.destroy(volumes, say)
        folder.drop_record()
        return
    bring_down(folder, 0.0, say)
    folder.drop_record()
    folder.local().destroy(volumes, say)
    compose = folder.compose()
    try:
        compose.check()
    except EngineError:
        return  # without an engine there is nothing of it to remove
    compose.destroy(volumes, say)
