"""Mutual TLS 1.3 between hosts: what either side dials or listens with, from three PEM files.

Both sides show a certificate of the yard's own authority, and both check the other's: the
authkey proves who may speak, TLS keeps a man in the middle from hearing and from changing what
is said. `taskyard certs` makes the files; a list of revoked certificates lies beside the
authority's as `revoked.pem`, and OpenSSL itself enforces it. The standard library alone is used.

Faults of our own files are found when a context is made, because a handshake that fails tells
neither side much. What a failed handshake does tell, `tls_faults.refusal` puts into words.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from taskyard.errors import SettingsError
from taskyard.tls_files import Files, load_pair, revoked_serials, trust
from taskyard.tls_identity import own_identity


def server_side(ca: str, cert: str, key: str, revoked: str | None = None) -> ssl.SSLContext:
    """What the master listens with; raises SettingsError if a file is missing, wrong or out of date."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, Files(ca, cert, key, revoked), server=True)
    # A ticket would let a peer come back without its certificate being looked at again.
    context.num_tickets = 0
    return context


def client_side(ca: str, cert: str, key: str, revoked: str | None = None) -> ssl.SSLContext:
    """What dials the master; `server_hostname` has to be a name or an address in its certificate."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, Files(ca, cert, key, revoked), server=False)
    context.check_hostname = True
    context.hostname_checks_common_name = False
    return context


def side(files: Files, *, server: bool) -> ssl.SSLContext:
    """The context for this side of the wire; the list of the revoked may be absent."""
    make = server_side if server else client_side
    return make(files.ca, files.cert, files.key, files.list)


class LiveContext:
    """A context that is kept in step with its files: renewed and revoked without a restart.

    context   for connections that come now; those that are open go on as they are
    revoked   serials of certificates that are not let in any more: a peer that showed one of them
              when it came (`peer_name(...).serial`) is to be dropped

    `greeted` is called, at a listener, when a peer's hello was read and the arithmetic comes next.
    """

    def __init__(self, files: Files, *, server: bool, greeted: Callable[..., None] | None = None) -> None:
        self._files = files
        self._server = server
        self._greeted = greeted
        self._seen = self._state()
        self._load()

    def refresh(self) -> bool:
        """Look at the files; True if they changed and are in use now.

        Raises SettingsError, once for each change, if the new ones are of no use: what was
        loaded before stays in use.
        """
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        if self._listed and self._files.list is None:
            raise SettingsError(f"{self._files.revoked} is gone, and what it said holds on: bring it back")
        self._load()
        return True

    def _load(self) -> None:
        listed = self._files.list
        revoked = revoked_serials(listed) if listed else frozenset()
        self.context = side(self._files, server=self._server)
        if self._greeted:
            self.context.sni_callback = self._greeted  # with a name in the hello and without
        self.revoked = revoked
        self._listed = listed is not None

    def _state(self) -> list[object]:
        found: list[object] = []
        for path in (self._files.ca, self._files.cert, self._files.key, self._files.revoked):
            try:
                stat = Path(path or "").stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append(None)
        return found


def _context(protocol: int, files: Files, *, server: bool) -> ssl.SSLContext:
    if files.revoked and files.list is None:
        raise SettingsError(f"{files.revoked}: there is no such list of revoked certificates")
    own_identity(files, server=server)
    # Not `create_default_context`: it also trusts the system's authorities, and logs keys where
    # SSLKEYLOGFILE is set.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_pair(context, files)
    trust(context, files)
    return context
