"""`logs`: what master and workers say, merged by time."""

import contextlib
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskyard.errors import TaskyardError, UnreachableError
from taskyard_ctl.cli import Verb, say, yard_of

if TYPE_CHECKING:
    from taskyard_ctl.interface import Engine
    from taskyard_ctl.yard import YardFolder


@click.command(cls=Verb)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, across restarts and new workers.")
@click.option("--since", default="", metavar="T", help="From 90s, 10m, 2h or 1d ago, or a time.")
@click.option("--host", default="", metavar="H", help="Of this host only.")
@click.option("--worker", default="", metavar="W", help="Of this worker only: its name, number or container.")
@click.option("--job", default="", metavar="J", help="What tasks of this job printed: its id or name.")
@click.option("--grep", default="", metavar="RE", help="Lines that match a regular expression.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), metavar="DIR", help="Write one file a worker instead."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def logs(
    ctx: click.Context, follow: bool, since: str, host: str, worker: str, job: str, grep: str,
    output_dir: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what master, workers and tasks say, merged by time.

    \b
    Example:      taskyard logs -f --job squares
    """
    import re

    from taskyard_ctl import logs as tools
    from taskyard_ctl import shapes

    here = socket.gethostname()
    folder = yard_of(ctx)
    begin, _ = tools.since(since, time.time()), tools.wanted("", "", grep)  # what is wrong is told first
    engine = _engine(folder, host)
    keep = tools.wanted(_source(folder, engine, worker), _id(folder, job), grep)
    lines = (line for line in engine.lines(begin, follow) if keep(line))
    if output_dir is not None:
        count = tools.write_files(lines, output_dir)
        say(f"wrote {count} files to {output_dir}")
        return
    if as_json:
        for line in lines:
            shape = {"time": line.stamp, "source": line.source, "host": line.host or here, "line": line.text}
            click.echo(shapes.line(shape), nl=False)
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    printer = tools.Printer(click.echo, colour)
    marked = re.compile(grep) if grep and colour else None
    for line in lines:
        if marked is not None:
            text = marked.sub(lambda match: click.style(match[0], bold=True, fg="red"), line.text)
            line = replace(line, text=text)
        printer(line)


def _engine(folder: "YardFolder", host: str) -> "Engine":
    """The engine that runs, else the one that ran: processes leave their logs when they are stopped."""
    if host or folder.record().get("engine") == "hosts":
        return folder.on(host)
    engine = folder.found()
    if engine is not None and engine.running():
        return engine
    if (folder.state / "logs").is_dir():
        return folder.local()
    return folder.engine()  # which says what to do


def _id(folder: "YardFolder", job: str) -> str:
    """The id of a job by its name, if the master can be asked."""
    if job:
        with contextlib.suppress(UnreachableError), folder.connect() as master:
            return master.job(job).id
    return job


def _source(folder: "YardFolder", engine: "Engine", worker: str) -> str:
    """The name in the logs of a worker that may be called by its id in 'taskyard status'."""
    from taskyard_ctl.scaling import status_of

    members = engine.members() if worker else []
    if any(worker in (member.name, member.name.rpartition("-")[2]) for member in members):
        return worker
    with contextlib.suppress(TaskyardError):
        if members and folder.has_key:
            with folder.connect() as master:
                workers = master.status().workers
            for member in members:
                status = status_of(member, workers)
                if status is not None and status.id.startswith(worker):
                    return member.name
    return worker
