"""Who a certificate says that somebody is: the peer of a connection, or we ourselves."""

import ssl
import time
from dataclasses import dataclass
from typing import Any

from taskyard.errors import RefusedError, SettingsError
from taskyard.tls_faults import utc
from taskyard.tls_files import Files, load_pair, trust

ONCE = "once"  # a second unit in the subject of a certificate that is for joining only

_ANY_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name
_IS_REVOKED, _WRONG_PURPOSE = 23, 26  # X509_V_ERR_CERT_REVOKED, X509_V_ERR_INVALID_PURPOSE


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says that somebody is; `str()` of it is for people."""

    role: str  # master, worker or client; empty in a certificate that `taskyard certs` did not make
    host: str
    serial: int
    starts: float  # Unix seconds
    ends: float
    names: tuple[str, ...]  # names and addresses that it is good for
    once: bool = False  # it is for joining only

    def __str__(self) -> str:
        return f"{self.role} {self.host}".strip()


def peer_name(peer: ssl.SSLObject | ssl.SSLSocket) -> Identity:
    """Who is at the other end, by the certificate that the handshake has verified."""
    found = peer.getpeercert()
    if not found:
        raise RefusedError("the peer showed no certificate")
    return _identity(found)


def own_identity(files: Files, *, server: bool, now: float | None = None) -> Identity:
    """Who our own certificate says we are; raises SettingsError if a peer would not take it.

    A handshake in memory against a peer that trusts `ca` is OpenSSL's own verdict, and the only
    way in which the standard library reads a certificate from a file.
    """
    prover = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    verifier = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER)
    prover.check_hostname = verifier.check_hostname = False
    prover.verify_mode = ssl.CERT_NONE
    for context in (prover, verifier):
        load_pair(context, files)
    trust(verifier, files)
    verifier.verify_flags |= _ANY_TIME  # so that an expired one is read, and its date told
    try:
        identity = peer_name(_rehearse(prover, verifier, server))
    except ssl.SSLCertVerificationError as fault:
        raise SettingsError(f"TASKYARD_TLS_CERT: {files.cert} {_verdict(fault, files, server)}") from fault
    now = time.time() if now is None else now
    if identity.ends <= now:
        raise SettingsError(
            f"TASKYARD_TLS_CERT: {files.cert} ({identity}) expired on {utc(identity.ends)}:"
            " `taskyard certs` renews it"
        )
    if identity.starts > now:
        raise SettingsError(
            f"TASKYARD_TLS_CERT: {files.cert} ({identity}) begins on {utc(identity.starts)}, and the clock"
            f" here says {utc(now)}: set the clock, or let `taskyard certs` make a new one"
        )
    return identity


def _verdict(fault: ssl.SSLCertVerificationError, files: Files, server: bool) -> str:
    if fault.verify_code == _IS_REVOKED:
        return "is revoked: if this host may come back, `taskyard certs --renew` makes a new one"
    if fault.verify_code == _WRONG_PURPOSE:
        return f"is not for {'a master' if server else 'who dials a master'}: use that of this process's role"
    return (
        f"is not of the authority {files.ca} ({fault.verify_message}): both have to come from the same"
        " `taskyard certs`"
    )


def _rehearse(prover: ssl.SSLContext, verifier: ssl.SSLContext, proves_as_server: bool) -> ssl.SSLObject:
    """Let the two shake hands in memory and return the verifier's end; raises what the verifier says."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        prover.wrap_bio(there, back, server_side=proves_as_server),
        verifier.wrap_bio(back, there, server_side=not proves_as_server),
    )
    for _ in range(4):  # flights, and one to spare
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1]


def _identity(found: Any) -> Identity:
    subject: dict[str, list[str]] = {}
    for ((name, value),) in found["subject"]:
        subject.setdefault(name, []).append(value)
    units = subject.get("organizationalUnitName", [])
    ours = subject.get("organizationName") == ["taskyard"]
    return Identity(
        role=units[0] if ours and units else "",
        host=subject.get("commonName", ["?"])[0],
        serial=int(found["serialNumber"], 16),
        starts=ssl.cert_time_to_seconds(found["notBefore"]),
        ends=ssl.cert_time_to_seconds(found["notAfter"]),
        names=tuple(value for _, value in found.get("subjectAltName", ())),
        once=ours and ONCE in units[1:],
    )
