"""`backup` and `restore`: a copy of all that the yard holds, and back."""

from pathlib import Path

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def backup(ctx: click.Context, file: Path) -> None:
    """Write a copy of all jobs, tasks and results to FILE.

    The yard goes on meanwhile; the copy is as of one moment. It needs as much room beside the master's
    journal for as long as it is fetched.

    \b
    Example:      taskyard backup monday.db
    """
    from taskyard_ctl.render import size

    if file.exists():
        raise UsageError(f"{file} is there already: choose another name, or remove it first")
    with yard_of(ctx).connect() as yard:
        count = yard.backup(file)
    say(f"wrote {size(count)} to {file}; 'taskyard restore {file}' puts it back")


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--local", is_flag=True, help="Restore the yard of processes, as 'taskyard up --local' starts.")
@click.pass_context
def restore(ctx: click.Context, file: Path, local: bool) -> None:
    """Put the backup FILE in the place of what the yard holds.

    The yard must be down; on several hosts, the master: the backup goes to the host that is the master
    in hosts.toml, which may be another one than before. What was there is kept beside it under another
    name. What was accepted after the backup is not in it: whoever submitted that has to submit it again.

    \b
    Example:      taskyard down; taskyard restore monday.db; taskyard up
    """
    from taskyard_ctl.lifecycle import restore as do

    say(do(yard_of(ctx), file, local, say))
    hosts = yard_of(ctx).record().get("engine") == "hosts"
    say(f"'taskyard {'deploy' if hosts else 'up'}' goes on from there")
