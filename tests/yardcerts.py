"""Certificates for tests: folders as `taskyard certs` makes them, and faulty ones."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from taskyard.tls_files import Files
from taskyard_ctl.certfiles import CertFolder
from taskyard_ctl.certs import LIFE, Pair, Subject, issue

MASTER = Subject("master", "master")
CLIENT = Subject("client", "client")
WORKER = Subject("worker", "a")


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def yard(path: Path, at: datetime | None = None) -> CertFolder:
    """A folder with an authority, a master, a client and a worker on host `a`."""
    folder = CertFolder(path)
    folder.ensure([MASTER, CLIENT, WORKER], at or now())
    return folder


def files(folder: CertFolder, stem: str, *, listed: bool = True) -> Files:
    """The files of one role, as TASKYARD_TLS_* would name them."""
    at = folder.path
    revoked = str(at / "revoked.pem") if listed else None
    return Files(str(at / "ca.pem"), str(at / f"{stem}.pem"), str(at / f"{stem}.key"), revoked)


def settings(folder: CertFolder, stem: str) -> dict[str, str]:
    """The same as environment variables."""
    it = files(folder, stem)
    return {"TASKYARD_TLS_CA": it.ca, "TASKYARD_TLS_CERT": it.cert, "TASKYARD_TLS_KEY": it.key}


def add(
    folder: CertFolder,
    name: str,
    subject: Subject = WORKER,
    at: datetime | None = None,
    life: timedelta = LIFE,
) -> Files:
    """One more pair of the folder's authority, made at another time or for another life."""
    pair = issue(folder.authority(), subject, at or now(), life)
    return store(folder, name, pair)


def store(folder: CertFolder, name: str, pair: Pair) -> Files:
    (folder.path / f"{name}.pem").write_text(pair.cert_pem)
    (folder.path / f"{name}.key").write_text(pair.key_pem)
    return files(folder, name)


def tls_of(certs: CertFolder) -> dict[str, str]:
    """Settings of a master that takes TLS only, by their names in lower case."""
    return {name.removeprefix("TASKYARD_").lower(): path for name, path in settings(certs, "master").items()}
