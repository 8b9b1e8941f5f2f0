"""`join`: one more machine, by a line that is pasted there."""

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.argument("name", required=False)
@click.option("--address", default="", metavar="H[:P]", help="What it dials to reach the master.")
@click.option(
    "--slots", default="", metavar="N", help="How many tasks it runs at a time, or auto; 1 unless told."
)
@click.option(
    "--process", is_flag=True, help="A line for a machine without Docker that has taskyard installed."
)
@click.option("--revoke", metavar="NAME", help="Let this machine in no more, and drop it if it is connected.")
@click.pass_context
def join(
    ctx: click.Context, name: str | None, address: str, slots: str, process: bool, revoke: str | None
) -> None:
    """Print a line that makes the machine where it is pasted a worker.

    The machine needs no SSH, it only dials the master. The line works once and for an hour; what the
    machine gets for it stays good until it is revoked. NAME is what status shows it as.

    \b
    Example:      taskyard join desk
                  taskyard join --revoke desk
    """
    from taskyard_ctl import joining

    folder = yard_of(ctx)
    if revoke is not None:
        if name or address or slots or process:
            raise UsageError("--revoke stands alone")
        joining.revoke(folder, revoke, say)
        return
    if slots and slots != "auto" and not (slots.isdigit() and int(slots)):
        raise UsageError(f"--slots {slots}: must be a number, 1 or more, or auto")
    image = "" if process else joining.image(folder, say)
    made = joining.invite(folder, name or "", address)
    if process:
        say(f"paste this on {made.host}, in a folder with the tasks; good once, until {made.ends:%H:%M} UTC:")
        click.echo(joining.process_line(made, slots))
    else:
        say(f"paste this on {made.host}; good once, until {made.ends:%H:%M} UTC:")
        click.echo(joining.container_line(made, image, slots))
        if "/" not in image:
            say(f"it needs the image there: docker save {image} | gzip > worker.tar.gz, docker load -i there")
    say(f"it dials {made.address}, and takes nobody for the master but who has a certificate of")
    say(made.fingerprint)
