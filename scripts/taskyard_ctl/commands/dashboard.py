"""`dashboard`: where a browser finds it, with the token that lets it in."""

from urllib.parse import urlencode

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option("--open", "open_", is_flag=True, help="Open it in this machine's browser.")
@click.pass_context
def dashboard(ctx: click.Context, open_: bool) -> int:
    """Print the address of the dashboard, with the token.

    The token is a secret: whoever has the address may look, cancel and requeue. A browser takes it
    once, and then shows the address without it.

    \b
    Example:      taskyard dashboard --open
    """
    folder = yard_of(ctx)
    place = folder.dashboard
    if not place:
        raise UsageError(
            "this yard has no dashboard: run 'taskyard init', which adds TASKYARD_WEB and TASKYARD_WEB_TOKEN"
            " to .env, and start the yard again"
        )
    with folder.connect() as master:
        serves = bool(master.status("plain").master.web)
    if not serves:
        raise UsageError("the master serves no dashboard; 'taskyard logs --grep dashboard' says why")
    token = folder.basics.web_token
    address = f"{place}?{urlencode({'token': token})}" if token else place
    click.echo(address)
    if open_:
        say("opening it in a browser")
        click.launch(address)
    return 0
