"""`dashboard`: where a browser finds it, with the token that lets it in."""

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from taskyard.errors import UnreachableError, UsageError
from taskyard_ctl.cli import Verb, say, yard_of

if TYPE_CHECKING:
    from taskyard_ctl.yard import YardFolder


@click.command(cls=Verb)
@click.option("--open", "open_", is_flag=True, help="Open it in this machine's browser.")
@click.pass_context
def dashboard(ctx: click.Context, open_: bool) -> int:
    """Print the address of the dashboard, with the token.

    The token is a secret: whoever has the address may look, cancel and requeue. A browser takes it
    once, and then shows the address without it. On several hosts the address is good until Ctrl-C.

    \b
    Example:      taskyard dashboard --open
    """
    folder = yard_of(ctx)
    if folder.record().get("engine") == "hosts":
        return _through_ssh(folder, open_)
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
    _show(folder, place, open_)
    return 0


def _through_ssh(folder: "YardFolder", open_: bool) -> int:
    """Hold a connection to the master's host open for the browser."""
    link, port = folder.hosts.open_web()
    with link:
        _show(folder, f"http://127.0.0.1:{port}/", open_)
        say("the address is good until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            link.wait_end()
            raise UnreachableError(f"the connection to {link.host.name} broke off")
    return 0


def _show(folder: "YardFolder", place: str, open_: bool) -> None:
    token = folder.basics.web_token
    address = f"{place}?{urlencode({'token': token})}" if token else place
    click.echo(address)
    if open_:
        say("opening it in a browser")
        click.launch(address)
