"""`certs`: the certificates with which hosts talk to each other."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskyard.errors import UsageError
from taskyard_ctl.cli import Verb, say, yard_of

if TYPE_CHECKING:
    from taskyard_ctl.certfiles import CertFolder, Entry
    from taskyard_ctl.certs import Subject

INVENTORY = "hosts.toml"


@click.command(cls=Verb)
@click.argument(
    "hosts", required=False, type=click.Path(path_type=Path, dir_okay=False), metavar="[HOSTS.toml]"
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), metavar="DIR",
    help="Where they are kept; certs/ beside HOSTS.toml unless told.",
)  # fmt: skip
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="One more name or address of the master."
)
@click.option(
    "--worker", "workers", multiple=True, metavar="HOST", help="A host of workers, if no HOSTS.toml."
)
@click.option("--show", is_flag=True, help="List what there is, and change nothing.")
@click.option("--revoke", metavar="HOST", help="Let nobody in any more with a certificate of this host.")
@click.option("--renew", metavar="HOST", help="Make a new pair for this host, also after --revoke.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def certs(
    ctx: click.Context,
    hosts: Path | None,
    folder: Path | None,
    names: tuple[str, ...],
    workers: tuple[str, ...],
    show: bool,
    revoke: str | None,
    renew: str | None,
    as_json: bool,
) -> None:
    """Make the certificates that are missing, and renew those that end within 30 days.

    What is good stays as it is. The folder holds the authority's key: keep it to yourself, and make
    certificates where it is.

    \b
    Example:      taskyard certs --worker build1 --name 192.0.2.10
                  taskyard certs --revoke build1
    """
    from taskyard_ctl import certhosts
    from taskyard_ctl.certfiles import FOLDER, CertFolder

    if show + (revoke is not None) + (renew is not None) > 1:
        raise UsageError("choose one of --show, --revoke and --renew")
    yard = yard_of(ctx).path
    if hosts is None and not workers and (yard / INVENTORY).exists():
        hosts = yard / INVENTORY
    kept = CertFolder(folder or (hosts.parent if hosts else yard) / FOLDER)
    now = datetime.now(UTC).replace(microsecond=0)
    if show:
        _show(kept.entries(now), as_json)
        return
    if revoke is not None:
        _revoke(kept, revoke, now, as_json)
        from taskyard_ctl.joining import tell_master

        tell_master(yard_of(ctx), kept.path, say)
        return
    if hosts is not None:
        wanted = certhosts.of_inventory(hosts, names)
    else:
        wanted = certhosts.of_folder(kept.subjects(), workers, names)
    if renew is not None:
        known = dict.fromkeys([*(one.bare for one in wanted), *kept.history.subjects()])
        named = {one.bare: one for one in wanted}
        chosen = _chosen([named.get(one, one) for one in known], renew)
        changes = [change for one in chosen for change in kept.renew(one, now)]
    else:
        changes = kept.ensure(wanted, now)
    for change in changes:
        say(f"{change.what} {kept.path / change.file}" + (f": {change.why}" if change.why else ""))
    if as_json:
        click.echo(json.dumps({"folder": str(kept.path), "changes": [asdict(change) for change in changes]}))
    elif not changes:
        first = min(entry.not_after for entry in kept.entries(now) if entry.file)
        say(f"all certificates in {kept.path} are good, the first ends on {first[:10]}")


def _chosen(wanted: list["Subject"], host: str) -> list["Subject"]:
    chosen = [one for one in wanted if host in (one.host, one.stem)]
    if not chosen:
        known = ", ".join(sorted({one.host for one in wanted}))
        raise UsageError(f"there is no host {host!r}; there are: {known}")
    return chosen


def _revoke(kept: "CertFolder", host: str, now: datetime, as_json: bool) -> None:
    done = kept.revoke(host, now)
    for one in done:
        say(f"revoked {one.role} {one.host}, serial {one.serial:X}")
    if as_json:
        revoked = [{"role": one.role, "host": one.host, "serial": f"{one.serial:X}"} for one in done]
        click.echo(json.dumps({"folder": str(kept.path), "revoked": revoked}))


def _show(entries: list["Entry"], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    rows = [("FILE", "ROLE", "HOST", "ENDS", "STATE", "NAMES")] + [
        (one.file or "-", one.role, one.host, one.not_after[:10], one.state, " ".join(one.names) or "-")
        for one in entries
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
