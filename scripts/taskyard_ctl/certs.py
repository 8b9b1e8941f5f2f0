"""Certificates of a yard: an authority of its own, one certificate a role and host, a list of the revoked.

Everything here is a pure function of its arguments and of random bits; `certfiles.py` keeps the results in
a folder. What a certificate carries: O=taskyard, OU=its role, CN=its host, the names and addresses it is
good for, and whether it may serve (the master) or only dial (all others), so that a stolen worker's
certificate cannot play the master.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskyard.errors import UsageError
from taskyard.tls_files import revoked_line
from taskyard.tls_identity import ONCE

AUTHORITY_LIFE = timedelta(days=3653)
LIFE = timedelta(days=365)
RENEW = timedelta(days=30)  # what has less left is made anew
BEFORE = timedelta(hours=1)  # certificates begin in the past, for hosts whose clocks are behind
EVERYWHERE = ("master", "localhost", "127.0.0.1", "::1")  # names of every master: compose, local, through ssh
_HOST = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
)  # fits into a common name, and into the name of a file


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for: a role on a host, and the names and addresses that lead to it."""

    role: str  # master, worker or client
    host: str
    names: tuple[str, ...] = ()

    @property
    def bare(self) -> "Subject":
        """Who it is, whatever leads there."""
        return Subject(self.role, self.host)

    @property
    def stem(self) -> str:
        """The name of its files, without the ending."""
        return f"worker-{self.host}" if self.role == "worker" else self.role


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> str:
        return self.cert.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is not let in any more."""

    serial: int
    role: str
    host: str
    when: datetime
    ends: datetime  # of the certificate: nothing need be said of it afterwards


def new_authority(now: datetime) -> Pair:
    """An authority for ten years with a name of its own, so that messages tell them apart."""
    key = ec.generate_private_key(ec.SECP256R1())
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    name = _name("authority", f"taskyard authority {digest.hex()[:8]}")
    builder = _builder(name, name, key, key, now, now + AUTHORITY_LIFE, authority=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Pair, subject: Subject, now: datetime, life: timedelta = LIFE, once: bool = False
) -> Pair:
    """A new key and a certificate for it, which ends with its authority at the latest."""
    if not _HOST.fullmatch(subject.host):
        raise UsageError(
            f"host {subject.host!r}: a name in a certificate has 1 to 64 letters, digits, '-', '_', '.'"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(subject.role, subject.host, ONCE if once else "")
    ends = min(now + life, authority.cert.not_valid_after_utc)
    serves = ExtendedKeyUsageOID.SERVER_AUTH if subject.role == "master" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(name, authority.cert.subject, key, authority.key, now, ends, authority=False)
        .add_extension(x509.ExtendedKeyUsage([serves]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*map(_general, wanted(subject))]), critical=False)
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def revocation_list(authority: Pair, revoked: Iterable[Revoked], now: datetime) -> str:
    """The list as a file: lines for people and for the master, then what OpenSSL enforces.

    It is good for as long as its authority: one that ended earlier would shut everybody out.
    """
    lines = ["# Certificates that are not let in any more; `taskyard certs --revoke HOST` adds to it."]
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.cert.subject)
        .last_update(now - BEFORE)
        .next_update(authority.cert.not_valid_after_utc)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False)
    )
    for one in revoked:
        if one.ends <= now:
            continue
        lines.append(revoked_line(one.serial, f"{one.role} {one.host} {one.when:%Y-%m-%dT%H:%M:%SZ}"))
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.when)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    return "\n".join(lines) + "\n" + signed


def renewal(pair: Pair, authority: Pair, subject: Subject, now: datetime) -> str:
    """Why a certificate has to be made anew; empty if it is good as it is."""
    try:
        pair.cert.verify_directly_issued_by(authority.cert)
    except (InvalidSignature, ValueError):
        return "it is of another authority"
    if pair.cert.public_key() != pair.key.public_key():
        return "its key is another"
    missing = [name for name in wanted(subject) if name not in names_of(pair.cert)]
    if missing or subject_of(pair.cert) != (subject.role, subject.host):
        return f"it is not for {', '.join(missing) or subject.host}"
    return ending(pair.cert, now)


def ending(cert: x509.Certificate, now: datetime) -> str:
    """ "it ends on ..." if its end is near or past; else empty."""
    near = cert.not_valid_after_utc - now < RENEW
    return (
        f"it end{'s' if cert.not_valid_after_utc > now else 'ed'} on {cert.not_valid_after_utc:%Y-%m-%d}"
        if near
        else ""
    )


def wanted(subject: Subject) -> tuple[str, ...]:
    """The names and addresses that a certificate for it carries, each once."""
    everywhere = EVERYWHERE if subject.role == "master" else ()
    return tuple(dict.fromkeys(_plain(name) for name in (subject.host, *subject.names, *everywhere)))


def names_of(cert: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that it is good for, as `wanted` writes them."""
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(one.value) for one in found)


def subject_of(cert: x509.Certificate) -> tuple[str, str]:
    """Its role and its host."""
    units = cert.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(units[0].value) if units else "", str(names[0].value) if names else ""


def _name(role: str, host: str, mark: str = "") -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in (role, mark) if unit]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "taskyard"),
            *units,
            x509.NameAttribute(NameOID.COMMON_NAME, host),
        ]
    )


def _builder(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    ends: datetime,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    """What all certificates have; the critical marks and both key identifiers are for strict peers."""
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )  # fmt: skip


def _plain(name: str) -> str:
    """A name or an address in one way of writing, the one of certificates."""
    try:
        return str(ipaddress.ip_address(name.strip("[]").partition("%")[0]))
    except ValueError:
        pass
    name = name.rstrip(".").lower()
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except ValueError as fault:
        raise UsageError(f"{name!r} is neither a name nor an address of a host: {fault}") from None


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
