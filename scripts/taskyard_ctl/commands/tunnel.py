"""`tunnel`: a local plain port for scripts that know no TLS."""

import click

from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option(
    "--listen",
    default="",
    metavar="H:P",
    help="Where; 127.0.0.1 and the master's port unless told, port 0 = any.",
)
@click.pass_context
def tunnel(ctx: click.Context, listen: str) -> None:
    """Give unmodified scripts a plain port here, and carry it to the master over TLS.

    The master is TASKYARD_ADDRESS, the certificate TASKYARD_TLS_*. Scripts dial the tunnel as if it
    were the master, with the same authkey. Ends with Ctrl-C.

    \b
    Example:      taskyard tunnel --listen 127.0.0.1:5000
    """
    import asyncio

    from taskyard_ctl.tunnel import run

    settings = yard_of(ctx).basics

    def ready(address: str) -> None:
        click.echo(address)
        say(f"tunnel to {settings.address} is open; Ctrl-C ends it")

    asyncio.run(run(settings, listen, ready, lambda line: say(f"taskyard: {line}")))
