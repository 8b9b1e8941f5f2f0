"""`check`: what a worker could run, found out as a worker does it."""

from pathlib import Path

import click

from taskyard.errors import FunctionError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option("--tasks", type=click.Path(path_type=Path), metavar="DIR", help="Another tasks folder.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.pass_context
def check(ctx: click.Context, tasks: Path | None, as_json: bool) -> None:
    """List the functions that a worker could run, or why not.

    Imports the modules of the tasks folder with this Python, each in a process of its own; where
    workers are processes, with the packages of requirements.txt.

    \b
    Example:      taskyard check
    """
    from taskyard import environment
    from taskyard.scan import scan
    from taskyard_ctl import render, shapes

    yard = yard_of(ctx)
    folder = tasks or Path(yard.basics.tasks_dir)
    if yard.record().get("engine") == "local":
        python = environment.python_for(folder.resolve(), yard.environments, say)
    else:
        python = environment.there(folder, yard.environments)
    found = scan(folder, python=python)
    if as_json:
        content = {"folder": str(folder), "functions": found.functions, "faults": found.faults}
        click.echo(shapes.line({**content, "digest": found.digest}), nl=False)
    else:
        render.console().print(render.listing(dict(found.functions), dict(found.faults)))
    if found.faults:
        raise FunctionError(f"{len(found.faults)} of the modules in {folder} cannot be imported")
