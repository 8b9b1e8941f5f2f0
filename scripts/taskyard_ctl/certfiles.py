"""The folder of a yard's certificates: makes what is missing, renews what ends soon, revokes.

    ca.pem ca.key                  the authority; the key stays here
    master.pem master.key          one pair a role and host
    client.pem client.key
    worker-NAME.pem worker-NAME.key
    revoked.pem                    goes wherever ca.pem goes
    history.jsonl                  every certificate that was made or revoked, also those that have no file

The folder is for its owner only, and so is each key.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from taskyard.errors import SettingsError, UsageError
from taskyard.tls_files import REVOKED, revoked_serials
from taskyard_ctl import envfile
from taskyard_ctl.certhistory import History
from taskyard_ctl.certs import (
    Pair,
    Revoked,
    Subject,
    ending,
    issue,
    names_of,
    new_authority,
    renewal,
    revocation_list,
    subject_of,
)

FOLDER = "certs"
_AUTHORITY = Subject("authority", "ca")
_PRIVATE, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class Change:
    """What was done about one file."""

    file: str
    what: str  # made, renewed, closed (its mode), or skipped
    why: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate, for `--show`; `file` is empty for those that are kept in no file."""

    file: str
    role: str
    host: str
    names: tuple[str, ...]
    not_after: str
    serial: str
    state: str  # ok, revoked, or what is wrong with it


class CertFolder:
    """One folder of certificates; `now` is an argument everywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History(path / "history.jsonl")

    def ensure(self, subjects: Iterable[Subject], now: datetime) -> list[Change]:
        """Make what is missing and renew what is near its end; what is good stays as it is, to the byte."""
        with self._locked():
            authority, changes = self._ensure_authority(now)
            for subject in subjects:
                changes += self._ensure_pair(authority, subject, now)
            return changes + self._ensure_list(authority, now)

    def renew(self, subject: Subject, now: datetime) -> list[Change]:
        """Make a new pair now, also for a host that was revoked."""
        with self._locked():
            authority, changes = self._ensure_authority(now)
            self._issue(authority, subject, now)
            changes.append(Change(f"{subject.stem}.pem", "renewed", "asked for"))
            return changes + self._ensure_list(authority, now)

    def revoke(self, host: str, now: datetime) -> list[Revoked]:
        """Let no certificate in that this host was ever given, and remove its files.

        `host` may also be the name of a file without its ending. Raises UsageError if nothing of
        it is left to revoke.
        """
        with self._locked():
            authority = self.authority()
            good = self.history.revocable(now)
            chosen = [event for event in good if host in (event.host, event.subject.stem)]
            if not chosen:
                known = ", ".join(sorted({event.host for event in good})) or "none"
                raise UsageError(
                    f"host {host!r} has no certificate that could be revoked; there are: {known}"
                )
            done = [self.history.revoke(event, now) for event in chosen]
            self._ensure_list(authority, now)
            for subject in {event.subject for event in chosen if not event.once}:
                for suffix in (".key", ".pem"):
                    (self.path / (subject.stem + suffix)).unlink(missing_ok=True)
            return [event.revoked for event in done]

    def unfiled(self, host: str, now: datetime) -> tuple[Pair, str]:
        """A worker's lasting certificate for a machine that joins, kept in no file here, and the list of
        the revoked that goes with it."""
        with self._locked():
            authority = self.authority()
            subject = Subject("worker", host)
            pair = issue(authority, subject, now)
            self.history.issued(pair, subject, now, once=True)
            self._ensure_list(authority, now)
            return pair, (self.path / REVOKED).read_text()

    def one_use(self, host: str, now: datetime, life: timedelta = timedelta(hours=1)) -> tuple[Pair, str]:
        """A worker's certificate for joining, kept in no file, and the authority's to go with it."""
        with self._locked():
            authority = self.authority()
            subject = Subject("worker", host)
            pair = issue(authority, subject, now, life, once=True)
            self.history.issued(pair, subject, now, once=True)
            return pair, authority.cert_pem

    def entries(self, now: datetime) -> list[Entry]:
        """Everything that is here, and what was revoked and has not ended."""
        if not (self.path / "ca.pem").exists():
            raise self._empty()
        revoked = self.history.revoked()
        gone = {event.serial for event in revoked}
        files = sorted(self.path.glob("*.pem"), key=_order)
        found = [self._entry(path, gone, now) for path in files if path.name != REVOKED]
        shown = {entry.serial for entry in found}
        for event in revoked:
            if event.serial not in shown and event.ends > now.timestamp():
                ends = event.revoked.ends.isoformat()
                found.append(Entry("", event.role, event.host, (), ends, event.serial, "revoked"))
        return found

    def subjects(self) -> list[Subject]:
        """Whom the pairs that are here are for, with all their names."""
        found = []
        for path in sorted(self.path.glob("*.pem"), key=_order):
            if path.name not in ("ca.pem", REVOKED):
                cert = _read_cert(path)
                found.append(Subject(*subject_of(cert), names_of(cert)))
        return found

    # ------------------------------------------------------------ inside

    def _ensure_authority(self, now: datetime) -> tuple[Pair, list[Change]]:
        path = self.path / "ca.pem"
        if path.exists():
            why = ending(_read_cert(path), now)
            if not why:
                return self.authority(), self._close("ca")
        elif (self.path / "ca.key").exists():
            raise SettingsError(
                f"{path} is gone and ca.key is there: bring it back, or move {self.path} away"
            )
        else:
            why = ""
        pair = new_authority(now)
        self.history.issued(pair, _AUTHORITY, now)
        self._write("ca", pair)
        return pair, [Change("ca.pem", "renewed" if why else "made", why)]

    def _ensure_pair(self, authority: Pair, subject: Subject, now: datetime) -> list[Change]:
        file = f"{subject.stem}.pem"
        if (self.path / file).exists() and (self.path / file).with_suffix(".key").exists():
            why = renewal(self.pair(subject.stem), authority, subject, now)
            if not why:
                return self._close(subject.stem)
            self._issue(authority, subject, now)
            return [Change(file, "renewed", why)]
        if self.history.barred(subject):
            why = f"{subject.host} is revoked: 'taskyard certs --renew {subject.host}' lets it in again"
            return [Change(file, "skipped", why)]
        self._issue(authority, subject, now)
        return [Change(file, "made")]

    def _ensure_list(self, authority: Pair, now: datetime) -> list[Change]:
        path = self.path / REVOKED
        listed = [event.revoked for event in self.history.revoked()]
        serials = {one.serial for one in listed if one.ends > now}
        if path.exists():
            with contextlib.suppress(ValueError):
                signed = x509.load_pem_x509_crl(path.read_bytes())
                key = authority.key.public_key()
                there = {one.serial_number for one in signed} & revoked_serials(str(path))
                if signed.is_signature_valid(key) and serials <= there:
                    return []
        what = "renewed" if path.exists() else "made"
        envfile.write(path, revocation_list(authority, listed, now), _PUBLIC)
        return [Change(REVOKED, what)]

    def _issue(self, authority: Pair, subject: Subject, now: datetime) -> None:
        pair = issue(authority, subject, now)
        self.history.issued(pair, subject, now)
        self._write(subject.stem, pair)

    def _write(self, stem: str, pair: Pair) -> None:
        # A process that ends between the two leaves a pair that does not fit, which is made anew.
        envfile.write(self.path / f"{stem}.key", pair.key_pem, _PRIVATE)
        envfile.write(self.path / f"{stem}.pem", pair.cert_pem, _PUBLIC)

    def _close(self, stem: str) -> list[Change]:
        """A key that others may read is closed to them."""
        path = self.path / f"{stem}.key"
        if not path.stat().st_mode & 0o077:
            return []
        path.chmod(_PRIVATE)
        return [Change(path.name, "closed", "others could read it")]

    def authority(self) -> Pair:
        """What signs here; raises UsageError or SettingsError if it is not all there."""
        if not (self.path / "ca.pem").exists():
            raise self._empty()
        if not (self.path / "ca.key").exists():
            raise SettingsError(f"{self.path / 'ca.key'} is not here: certificates are made where it is kept")
        if not self.history.path.exists():  # without it, those who were revoked would be let in again
            raise SettingsError(f"{self.history.path} is gone: bring it back, or move {self.path} away")
        pair = self.pair("ca")
        if pair.cert.public_key() != pair.key.public_key():
            raise SettingsError(f"{self.path}: ca.key is not the key of ca.pem: bring the right one back")
        return pair

    def _empty(self) -> UsageError:
        return UsageError(f"{self.path} holds no certificates: 'taskyard certs' makes them")

    def pair(self, stem: str) -> Pair:
        """A certificate and its key, as its files hold them."""
        path = self.path / f"{stem}.key"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as fault:
            raise SettingsError(
                f"{path} cannot be used ({fault}): move it away, or bring the right one back"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SettingsError(f"{path} is not a key that 'taskyard certs' made: move it away")
        return Pair(_read_cert(path.with_suffix(".pem")), key)

    def _entry(self, path: Path, gone: set[str], now: datetime) -> Entry:
        cert = _read_cert(path)
        role, host = subject_of(cert)
        serial = f"{cert.serial_number:X}"
        state = "revoked" if serial in gone else ending(cert, now) or "ok"
        if not path.with_suffix(".key").exists():
            state = "its key is not here"
        return Entry(
            path.name, role, host, names_of(cert), cert.not_valid_after_utc.isoformat(), serial, state
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two at once would each make an authority."""
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as fault:
            raise SettingsError(f"{self.path} cannot be used: {fault.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _read_cert(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise SettingsError(
            f"{path} is no certificate ({fault}): move it away, and it is made anew"
        ) from None


def _order(path: Path) -> tuple[int, str]:
    first = ("ca.pem", "master.pem", "client.pem")
    return (first.index(path.name) if path.name in first else len(first), path.name)
