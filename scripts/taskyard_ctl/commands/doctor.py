"""`doctor`: what keeps the hosts from working, and what helps."""

import contextlib
import json
from dataclasses import asdict

import click

from taskyard.errors import EXIT_HOST, TaskyardError
from taskyard_ctl.cli import Verb, yard_of


@click.command(cls=Verb)
@click.argument("hosts", nargs=-1, metavar="[HOSTS.toml|USER@HOST...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, hosts: tuple[str, ...], as_json: bool) -> int:
    """Check this machine and every host, and say what helps.

    Looks at ssh, engine, memory, disk, clock, key, certificates, versions, and whether workers reach
    the master's port from their side. Changes nothing. The exit code is 5 if something is wrong.

    For a yard of this machine alone: key, TLS, clock, disk, engine, port, master and workers.

    \b
    Example:      taskyard doctor hosts.toml
    """
    from taskyard_ctl import checkup, mismatch
    from taskyard_ctl.doctor import HERE, Finding, examine
    from taskyard_ctl.hostprogress import table
    from taskyard_ctl.site import ENGINE, INVENTORY, Site

    folder = yard_of(ctx)
    started = folder.record().get("engine", "")
    here = not hosts and started != ENGINE and (started or not (folder.path / INVENTORY).exists())
    findings = checkup.examine(folder) if here else examine(Site.of_words(folder, hosts))
    differs = None
    if not here or any(one.check == "master" and one.ok for one in findings):
        with contextlib.suppress(TaskyardError), folder.connect() as yard:
            differs = mismatch.find(folder, yard.status().workers)
    if differs is not None:
        findings.append(Finding(HERE, "tasks", "the workers have others, or another version", differs.cure))
    if as_json:
        click.echo(json.dumps([{**asdict(one), "ok": one.ok} for one in findings]))
    else:
        rows = [("HOST", "CHECK", "STATE", "FOUND")]
        rows += [(one.host, one.check, "ok" if one.ok else "bad", one.found) for one in findings]
        for line, one in zip(table(rows), [None, *findings], strict=True):
            click.echo(line)
            if one is not None and one.cure:
                click.echo(f"    do: {one.cure}")
        for text in differs.lines()[:-1] if differs else ():
            click.echo(text)
    return 0 if all(one.ok for one in findings) else EXIT_HOST
