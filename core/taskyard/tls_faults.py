"""What a failed TLS handshake means, in one line with its cure; for both sides of the wire."""

import ssl
import time

from taskyard.errors import RefusedError, TaskyardError, UnreachableError

# OpenSSL's verdicts (X509_V_ERR_*) on the certificate that the peer showed.
_VERDICTS = {
    2: "foreign", 18: "foreign", 19: "foreign", 20: "foreign", 21: "foreign", 30: "foreign",
    9: "early", 10: "expired", 23: "revoked", 26: "purpose", 62: "name", 64: "name",
    3: "no list", 12: "old list", 44: "no list",
}  # fmt: skip
_SAID = {
    "foreign": "its certificate is not of the authority in TASKYARD_TLS_CA: use files of one"
    " `taskyard certs` on both sides; if they are, somebody else answers there",
    "early": "its certificate is not valid yet (the clock here says {now}): set the clock",
    "expired": "its certificate has expired (the clock here says {now}): `taskyard certs` renews it there",
    "revoked": "its certificate is revoked: if it may come back, `taskyard certs --renew` makes a new one",
    "purpose": "its certificate is for another role: give every process its own of `taskyard certs`",
    "name": "its certificate is not for this name: dial one that `taskyard certs --show` lists, or add yours",
    "no list": "its certificate cannot be checked, revoked.pem is of another authority: use files of one"
    " `taskyard certs`",
    "old list": "its certificate cannot be checked, revoked.pem has expired: `taskyard certs` renews it",
}
# The peer's verdict on ours, by the alert that it sent. (asyncio sends none: see `hung_up`.)
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a certificate: set TASKYARD_TLS_CA, _CERT and _KEY here",
    "CERTIFICATE_REVOKED": "our certificate is revoked: ask for a new one (`taskyard certs --renew`)",
    "CERTIFICATE_EXPIRED": "our certificate has expired (the clock here says {now}): `taskyard certs` renews"
    " it",
    "UNKNOWN_CA": "our certificate is not of its authority: use files of one `taskyard certs` on both sides",
    "BAD_CERTIFICATE": "it does not take our certificate: use files of one `taskyard certs` on both sides",
    "UNSUPPORTED_CERTIFICATE": "our certificate is for another role: give every process its own of"
    " `taskyard certs`",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3: update Python or OpenSSL there",
}
_PLAIN = (
    "it does not speak TLS: set TASKYARD_TLS_CA, _CERT and _KEY on both sides or on none;"
    " an unmodified script goes through `taskyard tunnel`"
)
# What went wrong before any certificate was looked at.
_REASONS = {
    "WRONG_VERSION_NUMBER": _PLAIN,
    "PACKET_LENGTH_TOO_LONG": _PLAIN,
    "HTTP_REQUEST": "it speaks HTTP: this port takes only a yard's TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate: set TASKYARD_TLS_CERT and _KEY there",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3: update Python or OpenSSL there",
    "UNEXPECTED_EOF_WHILE_READING": "it hung up during the TLS handshake: its log says why",
}


def refusal(fault: OSError, peer: str) -> TaskyardError:
    """The error to raise, or to log, for `fault` in a handshake with `peer` ("the master at h:5000")."""
    text = _text(fault)
    if text:
        return RefusedError(f"{peer}: {text.format(now=utc(time.time()))}")
    if isinstance(fault, ssl.SSLError):
        return RefusedError(f"{peer}: TLS failed ({_reason(fault) or fault.args[-1]}): its log may say why")
    if isinstance(fault, TimeoutError):
        return UnreachableError(f"{peer} does not answer in time: check the address and that it runs")
    return UnreachableError(
        f"{peer} cannot be reached: {fault.strerror or fault}: check the address and that it runs"
    )


def hung_up(peer: str) -> RefusedError:
    """The error for a peer that closes after the handshake and before its first byte.

    In TLS 1.3 the client has finished before the server looks at its certificate, and asyncio
    closes without the alert that would say what was wrong with it.
    """
    return RefusedError(
        f"{peer} hung up right after the TLS handshake: it may not take our certificate (revoked, expired, of"
        " another `taskyard certs`); its log says why"
    )


def utc(seconds: float) -> str:
    """A moment for people, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _text(fault: OSError) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _SAID.get(_VERDICTS.get(fault.verify_code, ""), "") or (
            f"its certificate was refused ({fault.verify_message}): use files of one `taskyard certs` on both"
            " sides"
        )
    if not isinstance(fault, ssl.SSLError):
        return ""
    reason = _reason(fault) or ("UNEXPECTED_EOF_WHILE_READING" if isinstance(fault, ssl.SSLEOFError) else "")
    if "ALERT" in reason:
        return next((text for end, text in _ALERTS.items() if reason.endswith(end)), "")
    return _REASONS.get(reason, "")


def _reason(fault: ssl.SSLError) -> str:
    """OpenSSL's name for it; errors that were not raised by OpenSSL have none."""
    return getattr(fault, "reason", None) or ""
