"""`init` and `up`: make a yard, and start it."""

import click

from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option(
    "--tasks", default="", metavar="DIR", help="The folder of task functions; made if it is not there."
)
@click.option("--data", default="", metavar="DIR", help="A folder of files that tasks read; made likewise.")
@click.pass_context
def init(ctx: click.Context, tasks: str, data: str) -> None:
    """Make .env with a random key, a tasks folder, and hosts.toml with comments.

    Never overwrites: what is there is kept, and only what is missing is added.

    \b
    Example:      taskyard init
    """
    from taskyard_ctl import newyard

    for line in newyard.make(yard_of(ctx), tasks, data, hosts=True):
        say(line)
    say("next: taskyard up --workers 3")


@click.command(cls=Verb)
@click.option(
    "--workers", type=click.IntRange(0), metavar="N",
    help="How many workers; TASKYARD_WORKERS unless told. A yard that runs is scaled to it.",
)  # fmt: skip
@click.option(
    "--local/--containers", default=None,
    help="Processes, which need no Docker, or containers; else as before, or what this machine has.",
)  # fmt: skip
@click.pass_context
def up(ctx: click.Context, workers: int | None, local: bool | None) -> None:
    """Start the yard, and wait until its workers have joined.

    A new yard runs in containers where a Docker engine answers, else as processes of this machine.
    Makes what 'taskyard init' makes if there is no key yet.

    \b
    Example:      taskyard up --workers 3
    """
    from taskyard_ctl.lifecycle import bring_up

    bring_up(yard_of(ctx), workers, local, say)
