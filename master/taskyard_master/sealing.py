"""TLS at the master's port: its files are followed while it runs, and who is not let in is named."""

import asyncio
import logging
import ssl
from collections.abc import Collection
from typing import Protocol

from taskyard.errors import SettingsError
from taskyard.log import event
from taskyard.tls_context import LiveContext
from taskyard.tls_faults import refusal
from taskyard.tls_identity import Identity

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between two looks at the files


class Sealed(Protocol):
    """A connection, as far as its certificate goes."""

    @property
    def identity(self) -> Identity | None: ...

    def drop(self, reason: str) -> None: ...


async def follow(tls: LiveContext, connections: Collection[Sealed]) -> None:
    """Take new files as they come, for ever, and drop those whose certificate was revoked.

    What is of no use is said once, and what was in use stays so.
    """
    while True:
        await asyncio.sleep(PERIOD)
        try:
            if not tls.refresh():
                continue
        except SettingsError as fault:
            event(log, "tls-kept", f"{fault}; the certificates loaded before stay in use", logging.ERROR)
            continue
        except Exception:  # the files are being written at this moment, or worse: never without a watcher
            log.exception("the files of TLS could not be looked at; those loaded before stay in use")
            continue
        event(log, "tls-renewed", "TLS has new files, and uses them from now on")
        for one in list(connections):
            if one.identity and one.identity.serial in tls.revoked:
                one.drop("its certificate was revoked")


def not_let_in(fault: OSError, address: str) -> str:
    """The line for the log about who did not get through TLS, with the cure."""
    if isinstance(fault, ssl.SSLError):
        return str(refusal(fault, f"{address} was refused"))
    words = fault.strerror or str(fault) or type(fault).__name__
    return f"{address} was refused: the connection ended in the TLS handshake ({words})"
