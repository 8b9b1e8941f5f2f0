"""`check`: what a worker could run, found out as a worker does it."""

from pathlib import Path

import click

from taskyard.errors import FunctionError
from taskyard_ctl.cli import Verb, yard_of


@click.command(cls=Verb)
@click.option("--tasks", type=click.Path(path_type=Path), metavar="DIR", help="Another tasks folder.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.pass_context
def check(ctx: click.Context, tasks: Path | None, as_json: bool) -> None:
    """List the functions that a worker could run, or why not.

    Imports the modules of the tasks folder with this Python, each in a process of its own.

    \b
    Example:      taskyard check
    """
    from taskyard.scan import scan
    from taskyard_ctl import render, shapes

    folder = tasks or Path(yard_of(ctx).basics.tasks_dir)
    found = scan(folder)
    if as_json:
        content = {"folder": str(folder), "functions": found.functions, "faults": found.faults}
        click.echo(shapes.line({**content, "digest": found.digest}), nl=False)
    else:
        render.console().print(render.listing(dict(found.functions), dict(found.faults)))
    if found.faults:
        raise FunctionError(f"{len(found.faults)} of the modules in {folder} cannot be imported")
