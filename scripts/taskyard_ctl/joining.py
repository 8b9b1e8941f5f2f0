"""`join`: a line to paste on a machine that can dial the master, by which it becomes a worker of this yard.

The line holds a ticket, good once and for an hour. What it is exchanged for, among it the machine's
lasting certificate, is made here, where the authority's key is, and waits at the master.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization

from taskyard import messages as m
from taskyard.errors import TaskyardError, UsageError
from taskyard.invitation import Gift, Ticket
from taskyard.settings import PREFIX, split_address
from taskyard_ctl import baking
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.certs import Pair, names_of, wanted
from taskyard_ctl.certs import Subject as Whom
from taskyard_ctl.compose import project_name
from taskyard_ctl.containers import LOG, USER, box
from taskyard_ctl.interface import Say
from taskyard_ctl.inventory import Host, Inventory
from taskyard_ctl.inventory_keys import PIDS
from taskyard_ctl.plan import Version
from taskyard_ctl.registry import push, remote
from taskyard_ctl.yard import YardFolder

STATE = "/var/lib/taskyard"  # in a container: what a ticket brought is kept there
_DER = serialization.Encoding.DER


@dataclass(frozen=True, slots=True)
class Invitation:
    """A ticket for one machine, and what people have to know of it."""

    host: str
    address: str
    ends: datetime
    fingerprint: str  # of the yard's authority, as `openssl x509 -fingerprint -sha256` shows it
    ticket: str


def invite(folder: YardFolder, host: str, address: str) -> Invitation:
    """Make a ticket for a machine and leave at the master what it is good for; "" is what is usual.

    Raises UsageError where the yard has no TLS, or the machine could not dial the master.
    """
    certs = certs_of(folder)
    taken = _inventory_names(folder)
    host = host or _free_name(certs, taken)
    if host in taken:
        raise UsageError(f"{host} is a host of the inventory: 'taskyard deploy' makes it a worker")
    address = _address(folder, certs, address)
    now = datetime.now(UTC).replace(microsecond=0)
    lasting, revoked = certs.unfiled(host, now)
    once, authority = certs.one_use(host, now)
    files = {
        "ca.pem": authority.encode(), "revoked.pem": revoked.encode(), "cert.pem": lasting.cert_pem.encode(),
        "key.pem": lasting.key_pem.encode(), "authkey": bytes(folder.settings.authkey),
    }  # fmt: skip
    gift = Gift(_settings(folder, host, address), files)
    ends = once.cert.not_valid_after_utc
    with folder.connect() as master:
        serial = f"{once.cert.serial_number:X}"
        master.call(m.Invite(0, serial, host, ends.timestamp(), gift.data()), m.Ok)
    return Invitation(host, address, ends, _fingerprint(certs), _ticket(certs, once, host, address))


def container_line(invitation: Invitation, image: str, slots: str) -> str:
    """What to paste where there is a Docker engine."""
    name = f"taskyard-{invitation.host}"
    words = [
        "docker",
        "run",
        "--detach",
        "--name",
        name,
        "--hostname",
        invitation.host.replace(".", "-")[:60],
    ]
    words += ["--restart", "unless-stopped", "--init", "--read-only", "--tmpfs", "/tmp"]
    words += ["--tmpfs", f"/run/taskyard:uid={USER},gid={USER},mode=0700", "--cap-drop", "ALL"]
    words += ["--security-opt", "no-new-privileges", "--pids-limit", str(PIDS), "--stop-timeout", "60"]
    words += [word for item in LOG.items() for word in ("--log-opt", "=".join(item))]
    words += ["--volume", f"{name}:{STATE}", "--env", f"TASKYARD_JOINED={STATE}/joined"]
    words += ["--env", "TASKYARD_TASKS_DIR=/tasks", *(["--env", f"TASKYARD_SLOTS={slots}"] if slots else [])]
    return shlex.join([*words, "--env", f"TASKYARD_JOIN={invitation.ticket}", image])


def process_line(invitation: Invitation, slots: str) -> str:
    """What to paste where taskyard is installed, in a folder with the yard's tasks folder."""
    some = f"TASKYARD_SLOTS={slots} " if slots else ""
    return f"TASKYARD_TASKS_DIR=tasks {some}TASKYARD_JOIN={invitation.ticket} python3 -m taskyard_worker"


def image(folder: YardFolder, say: Say) -> str:
    """The worker's image with the tasks in it: that of the last deploy, or one that is made now."""
    if folder.record().get("engine") == "hosts":
        registry, name = folder.hosts.site.inventory.registry, folder.hosts.version().worker
        if registry:
            say(f"pushing {name} to {registry}")
            push(registry, name)
        return remote(registry, name) if registry else name
    return baking.bake(project_name(folder.path), Path(folder.settings.tasks_dir), say).worker


def revoke(folder: YardFolder, host: str, say: Say) -> None:
    """Let nobody in any more with what this machine was given, and tell the master now."""
    certs = certs_of(folder)
    if host in _inventory_names(folder):
        raise UsageError(f"{host} is a host of the inventory: 'taskyard certs --revoke {host}' is for those")
    for one in certs.revoke(host, datetime.now(UTC).replace(microsecond=0)):
        say(f"revoked {one.role} {one.host}, serial {one.serial:X}")
    tell_master(folder, certs.path, say)


def tell_master(folder: YardFolder, path: Path, say: Say) -> None:
    """See to it that the list of revoked certificates of the folder `path` reaches the master at once."""
    if folder.record().get("engine") == "hosts" and path == folder.hosts.site.certs.path:
        try:
            where = folder.hosts.put_revoked()
        except TaskyardError as fault:
            say(f"the master does not know it yet ({fault}): 'taskyard deploy' tells it")
            return
        say(f"the master on {where} knows it within a second")
    else:
        say(f"{path / 'revoked.pem'} says so: it has to lie beside the master's ca.pem")


def certs_of(folder: YardFolder) -> CertFolder:
    """Where the yard's certificates are made."""
    if folder.record().get("engine") == "hosts":
        certs: CertFolder = folder.hosts.site.certs
        return certs
    if not folder.settings.tls:
        raise UsageError(
            "a machine joins over TLS, which this yard has not: 'taskyard certs', then set TASKYARD_TLS_CA,"
            " _CERT and _KEY; or 'taskyard deploy', which makes it"
        )
    return CertFolder(Path(folder.settings.tls_ca).parent)


# ---------------------------------------------------------------- inside


def _inventory_names(folder: YardFolder) -> list[str]:
    return folder.hosts.site.names if folder.record().get("engine") == "hosts" else []


def _free_name(certs: CertFolder, taken: Iterable[str]) -> str:
    names = {event.host for event in certs.history.events()} | set(taken)
    number = 1
    while f"joined-{number}" in names:
        number += 1
    return f"joined-{number}"


def _address(folder: YardFolder, certs: CertFolder, address: str) -> str:
    """What the machine dials; the master's certificate has to be good for it."""
    hosts = folder.record().get("engine") == "hosts"
    usual = folder.hosts.site.inventory.master.address if hosts else folder.settings.address
    port = split_address(usual)[1]
    if address and not address.rpartition(":")[2].isdigit():
        address = f"{address}:{port}"
    host = split_address(address or usual)[0]
    if not address and host in ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost"):
        raise UsageError(
            f"other machines cannot dial {usual}: name what they dial with --address, and let the master"
            " listen there (TASKYARD_ADDRESS)"
        )
    names = names_of(certs.pair("master").cert)
    [plain, *_] = wanted(Whom("client", host))
    if plain not in names:
        raise UsageError(
            f"the master's certificate is not for {host}: 'taskyard certs --name {host}' makes one that is;"
            f" it has {', '.join(names)}"
        )
    return address or usual


def _settings(folder: YardFolder, host: str, address: str) -> dict[str, str]:
    """The yard's own for a worker, without what the machine decides."""
    if folder.record().get("engine") == "hosts":
        inventory = folder.hosts.site.inventory
    else:
        inventory = Inventory("yard", (Host("master", "", "master", address),))
    made = box(inventory, Host(host, ""), "worker", Version("", "", ""), folder.environ, "")
    given = made.options["environment"]
    own = {"ADDRESS", "HOST", "TASKS_DIR", "AUTHKEY_FILE", "TLS_CA", "TLS_CERT", "TLS_KEY"}
    return {name: value for name, value in given.items() if name.removeprefix(PREFIX) not in own}


def _ticket(certs: CertFolder, once: Pair, host: str, address: str) -> str:
    key = once.key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    ends = int(once.cert.not_valid_after_utc.timestamp())
    authority = certs.pair("ca").cert.public_bytes(_DER)
    return Ticket(address, host, ends, authority, once.cert.public_bytes(_DER), key).text()


def _fingerprint(certs: CertFolder) -> str:
    return certs.pair("ca").cert.fingerprint(hashes.SHA256()).hex(":").upper()
