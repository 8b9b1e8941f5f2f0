"""The PEM files of TLS, and loading them: what is wrong with one is said in one line with its cure."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from taskyard.errors import SettingsError
from taskyard.settings import Settings

REVOKED = "revoked.pem"  # beside the authority's file

# Certificates that Python 3.13 and later refuse are refused by every Python, so that an upgrade breaks none.
_STRICT = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST
_MARK = "revoked "  # begins a line of the list that people and `revoked_serials` read; OpenSSL skips it


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of what a side needs; `revoked` need not exist, the others have to."""

    ca: str
    cert: str
    key: str
    revoked: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """What TASKYARD_TLS_* name; None where TLS is off."""
        if not settings.tls:
            return None
        ca = settings.tls_ca
        return cls(ca, settings.tls_cert, settings.tls_key, str(Path(ca).with_name(REVOKED)))

    @property
    def list(self) -> str | None:
        """The list of revoked certificates, if there is one."""
        return self.revoked if self.revoked and Path(self.revoked).exists() else None


def revoked_serials(path: str) -> frozenset[int]:
    """Serials in a list of revoked certificates, by the lines that `taskyard certs` writes above it."""
    lines = Path(path).read_text(errors="replace").splitlines()
    return frozenset(int(line.split()[1], 16) for line in lines if line.startswith(_MARK))


def revoked_line(serial: int, note: str) -> str:
    """A line of the list, for `revoked_serials`."""
    return f"{_MARK}{serial:X} {note}"


def trust(context: ssl.SSLContext, files: Files) -> None:
    """Take peers of this authority only, and none that it has revoked."""
    _load(context, "TASKYARD_TLS_CA", files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _STRICT
    if files.list:
        _load(context, "the list of revoked certificates", files.list)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def load_pair(context: ssl.SSLContext, files: Files) -> None:
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "TASKYARD_TLS_CERT", files.cert)
    _readable("TASKYARD_TLS_KEY", files.key)

    def no_password() -> str:  # without this, OpenSSL asks at the terminal
        raise SettingsError(f"TASKYARD_TLS_KEY: {files.key} asks for a password: use a key without one")

    try:
        context.load_cert_chain(files.cert, files.key, no_password)
    except ssl.SSLError as fault:
        if fault.reason == "KEY_VALUES_MISMATCH":
            text = f"is not the key of {files.cert}: both have to come from the same `taskyard certs`"
        else:
            text = f"cannot be used as a key ({fault.reason or 'no PEM'}): `taskyard certs` makes a new one"
        raise SettingsError(f"TASKYARD_TLS_KEY: {files.key} {text}") from fault


def _load(context: ssl.SSLContext, name: str, path: str) -> None:
    _readable(name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as fault:
        raise SettingsError(
            f"{name}: {path} holds no certificate in PEM form: `taskyard certs` makes a new one"
        ) from fault


def _readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as fault:
        raise SettingsError(
            f"{name}: {path} cannot be read: {fault.strerror}: `taskyard certs` makes what is missing"
        ) from fault
