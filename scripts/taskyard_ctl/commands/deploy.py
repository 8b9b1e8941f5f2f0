"""`deploy` and `rollback`: the yard on several hosts."""

import signal
from typing import Literal

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.argument("hosts", nargs=-1, metavar="[HOSTS.toml|USER@HOST...]")
@click.option(
    "--engine", type=click.Choice(["ssh", "swarm"]),
    help="Who starts containers: this command, or Docker Swarm. As before, else ssh.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("--audit", is_flag=True, help="Print who did what, from the first deploy on.")
@click.option("--unlock", is_flag=True, help="Take away the lock of a deploy that was cut off.")
@click.pass_context
def deploy(
    ctx: click.Context, hosts: tuple[str, ...], engine: Literal["ssh", "swarm"] | None, dry_run: bool,
    audit: bool, unlock: bool,
) -> int:  # fmt: skip
    """Bring hosts to what HOSTS.toml and the tasks folder say.

    Hosts need nothing but SSH and a Docker engine. Workers get the tasks in their image, which travels
    through ssh; master and workers talk TLS. New workers join before old ones finish and leave, so
    nothing is lost. A second time nothing is left to do. Without a file, the first host is the master.
    The exit code is 5 if a host failed. With --engine swarm it is Docker Swarm that runs the containers;
    one is made of the hosts, if they are in none.

    \b
    Examples:     taskyard deploy hosts.toml --dry-run
                  taskyard deploy root@192.0.2.1 root@192.0.2.2
    """
    from taskyard_ctl import deploy as flow

    if dry_run + audit + unlock > 1:
        raise UsageError("choose one of --dry-run, --audit and --unlock")
    if audit:
        click.echo(flow.audit(yard_of(ctx), hosts), nl=False)
        return 0
    if unlock:
        flow.unlock(yard_of(ctx), hosts, say)
        return 0
    _end_gently()
    return flow.deploy(yard_of(ctx), hosts, dry_run, say, engine)


@click.command(cls=Verb)
@click.pass_context
def rollback(ctx: click.Context) -> int:
    """Go back to the version that was deployed before.

    A second time comes back to the later one. Three versions are kept.

    \b
    Example:      taskyard rollback
    """
    from taskyard_ctl import deploy as flow

    _end_gently()
    return flow.rollback(yard_of(ctx), say)


def _end_gently() -> None:
    """A SIGTERM, as of a CI job that is cancelled, ends like a Ctrl-C: no step is left half done."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
