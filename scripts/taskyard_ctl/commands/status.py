"""`status`: jobs and workers."""

import time
from typing import TYPE_CHECKING

import click

from taskyard_ctl.cli import Verb, yard_of

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard_ctl.yard import YardFolder

REFRESH_S = 1.0


@click.command(cls=Verb)
@click.argument("job", default="")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"master", "jobs", "workers"}.')
@click.pass_context
def status(ctx: click.Context, job: str, watch: bool, as_json: bool) -> None:
    """Show master, jobs and workers.

    JOB, an id, the beginning of one, or a name, shows that one only.

    \b
    Example:      taskyard status --watch
    """
    folder = yard_of(ctx)
    with folder.connect() as master:
        web = folder.dashboard
        if as_json:
            _print_json(master, job, watch, web)
        else:
            _print_tables(folder, master, job, watch, web)


def _print_json(master: "Yard", job: str, watch: bool, web: str) -> None:
    from taskyard_ctl import shapes

    while True:
        click.echo(shapes.line(shapes.status(master.status(job), master.address, web)), nl=False)
        if not watch:
            return
        time.sleep(REFRESH_S)


def _print_tables(folder: "YardFolder", master: "Yard", job: str, watch: bool, web: str) -> None:
    from taskyard_ctl import mismatch, render

    screen = render.console()
    if not watch:
        reply = master.status(job)
        screen.print(render.status(reply, master.address, time.time(), web))
        differs = mismatch.find(folder, reply.workers)
        for line in differs.lines() if differs else ():
            screen.print(line, style="yellow", markup=False, soft_wrap=True)
        return
    from rich.live import Live

    with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
        while True:
            height = screen.height if screen.is_terminal else 0
            shown = render.status(master.status(job), master.address, time.time(), web, height)
            live.update(shown, refresh=True)
            time.sleep(REFRESH_S)
