"""Joining a yard by a ticket: what the master hands over for it is kept, and the ticket is of no use again.

Nothing of the machine has to be known to anybody before, and nobody dials in: the ticket opens one
connection to the master, over which come the lasting certificate, the key and the yard's settings.
"""

import contextlib
import hashlib
import json
import logging
import os
import random
import socket
import ssl
import tempfile
import time
from collections.abc import MutableMapping
from pathlib import Path

import msgspec

from taskyard import backoff, log, messages
from taskyard.clock import Deadline
from taskyard.errors import EngineError, RefusedError, SettingsError, TaskyardError, UnreachableError
from taskyard.frames import Framer
from taskyard.invitation import Gift, Ticket
from taskyard.settings import REGISTRY, split_address
from taskyard.tls import shake
from taskyard.tls_faults import utc

STATE = "joined.json"  # written last: what it names is all there
DEFAULT = next(setting.default for setting in REGISTRY if setting.name == "JOINED")
PATIENCE_S = 60.0  # for a master that does not answer; whoever started the worker starts it again
ATTEMPT_S = 10.0
MOST_BYTES = 1 << 17

logger = logging.getLogger("taskyard_worker")


def join(environ: MutableMapping[str, str]) -> None:
    """Where there is a ticket, put what it brought into the environment; raises TaskyardError.

    Settings that are there already stay, except those that say where the master is and who we are.
    """
    path = environ.pop("TASKYARD_JOIN_FILE", "")
    text = environ.pop("TASKYARD_JOIN", "")
    with contextlib.suppress(FileNotFoundError):  # one that was used may be removed
        text = text or (Path(path).read_text() if path else "")
    folder = Path(environ.get("TASKYARD_JOINED") or DEFAULT).absolute()
    settings = kept(folder, text)
    if settings is None and text:
        log.setup("json" if environ.get("TASKYARD_LOG") == "json" else "text")
        ticket = Ticket.read(text)
        gift = Gift.read(fetch(ticket))
        settings = keep(folder, text, ticket, gift)
        log.event(logger, "admitted", f"{ticket.address} let this machine in as {ticket.host}")
    if settings is None:
        if path:
            raise SettingsError(f"TASKYARD_JOIN_FILE: {path} is not there: 'taskyard join' prints a ticket")
        return
    for name in ("AUTHKEY", "ADDRESS", "HOST"):
        environ.pop(f"TASKYARD_{name}", None)
    for name, value in settings.items():
        environ.setdefault(name, value)


# ---------------------------------------------------------------- the folder


def kept(folder: Path, ticket: str) -> dict[str, str] | None:
    """The settings that this ticket brought before; without one, those of the last. None: there are none."""
    try:
        state = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise SettingsError(f"TASKYARD_JOINED: {folder / STATE} cannot be read: {fault}") from None
    if ticket and state["ticket"] != _name(ticket):
        return None
    return {**state["environ"], **_places(folder)}


def keep(folder: Path, text: str, ticket: Ticket, gift: Gift) -> dict[str, str]:
    """Write down what was handed over, for this user only; returns the settings."""
    environ = {**gift.environ, "TASKYARD_ADDRESS": ticket.address, "TASKYARD_HOST": ticket.host}
    state = {"ticket": _name(text), "environ": environ}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / STATE).unlink(missing_ok=True)
        for name, content in (*gift.files.items(), (STATE, json.dumps(state).encode())):
            part = folder / f".{name}.part"
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / name)
    except OSError as fault:
        raise EngineError(
            f"TASKYARD_JOINED: {folder} cannot keep what the ticket brought ({fault.strerror}): make it"
            " writable, and join with a new ticket"
        ) from None
    return {**environ, **_places(folder)}


def _places(folder: Path) -> dict[str, str]:
    return {
        "TASKYARD_TLS_CA": str(folder / "ca.pem"),
        "TASKYARD_TLS_CERT": str(folder / "cert.pem"),
        "TASKYARD_TLS_KEY": str(folder / "key.pem"),
        "TASKYARD_AUTHKEY_FILE": str(folder / "authkey"),
    }


def _name(ticket: str) -> str:
    return hashlib.sha256("".join(ticket.split()).encode()).hexdigest()


# ---------------------------------------------------------------- the master


def fetch(ticket: Ticket) -> bytes:
    """Show the ticket and return what the master has for it; waits a while for one that does not answer."""
    deadline, said = Deadline.after(PATIENCE_S), False
    pauses = backoff.delays(iter(random.random, None), cap=2.0)
    while True:
        if ticket.ends <= time.time():
            raise RefusedError(
                f"the ticket for {ticket.host} ended on {utc(ticket.ends)} (the clock here says"
                f" {utc(time.time())}): 'taskyard join' makes another"
            )
        try:
            return _show(ticket)
        except UnreachableError as fault:
            if deadline.passed:
                raise
            if not said:
                log.event(logger, "no-master", f"waiting for the master: {fault}")
                said = True
        time.sleep(next(pauses))


def _show(ticket: Ticket) -> bytes:
    deadline = Deadline.after(ATTEMPT_S)
    try:
        sock = socket.create_connection(split_address(ticket.address), timeout=ATTEMPT_S)
    except OSError as fault:
        raise UnreachableError(
            f"no master answers at {ticket.address} ({fault.strerror or fault}): can this machine dial it?"
        ) from None
    with sock:
        pipe = shake(sock, ticket.address, _context(ticket), deadline)
        framer = Framer(MOST_BYTES)
        try:
            while True:
                sock.settimeout(max(0.01, deadline.left()))
                came = sock.recv(1 << 16)
                if not came:
                    raise EOFError
                for frame in framer.feed(pipe.unseal(came)):
                    return _gift(frame)
        except TimeoutError:
            raise UnreachableError(f"the master at {ticket.address} says nothing") from None
        except (OSError, EOFError):  # in TLS 1.3, it refuses us after our side of the handshake
            raise RefusedError(
                f"the master at {ticket.address} does not take the ticket for {ticket.host}: its hour is"
                " over, or it was revoked; 'taskyard join' makes another"
            ) from None


def _gift(frame: bytes) -> bytes:
    try:
        reply = messages.decode_reply(frame)
    except msgspec.MsgspecError as fault:
        raise RefusedError(f"the master speaks another protocol ({fault}): use one version") from None
    if isinstance(reply, messages.Fail):
        raise RefusedError(reply.message)
    if not isinstance(reply, messages.Gift):
        raise RefusedError("the master does not know invitations: use one version of taskyard on both sides")
    return reply.gift


def _context(ticket: Ticket) -> ssl.SSLContext:
    """TLS 1.3 to a master of the ticket's authority, and to nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=ticket.ca_pem)
        with tempfile.NamedTemporaryFile("w") as pair:  # OpenSSL reads certificates from files alone
            pair.write(ticket.pair_pem)
            pair.flush()
            context.load_cert_chain(pair.name)
    except (ssl.SSLError, OSError) as fault:
        raise TaskyardError(f"TASKYARD_JOIN: its certificate cannot be used: {fault}") from None
    return context
