"""What lets a machine join a yard: a ticket to paste there, and what the master hands over for it.

A ticket is one word of text with all that is needed to reach the master over TLS, and a certificate that
opens its port once. What comes in return is a gift: the machine's lasting certificate, the key, and
settings. The master keeps a gift in memory until its ticket is shown, and cannot read the ticket's key.
"""

import base64
import binascii
import ssl
from typing import Self

import msgspec

from taskyard.errors import SettingsError
from taskyard.settings import PREFIX

MARK = "ty1-"  # begins every ticket
FILES = ("ca.pem", "revoked.pem", "cert.pem", "key.pem", "authkey")  # that a gift holds
_KEY = ("-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n")


class Ticket(msgspec.Struct, array_like=True, frozen=True):
    """Certificates and key are in DER, which is shorter."""

    address: str  # host:port that the machine dials
    host: str  # its name in the yard
    ends: int  # Unix seconds
    ca: bytes
    cert: bytes
    key: bytes  # PKCS 8

    def text(self) -> str:
        return MARK + base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Self:
        """The ticket in a text; raises SettingsError."""
        word = "".join(text.split())  # a terminal may have broken it
        try:
            if not word.startswith(MARK):
                raise ValueError(f"it does not begin with {MARK}")
            data = word.removeprefix(MARK)
            return msgspec.msgpack.decode(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)), type=cls)
        except (ValueError, msgspec.MsgspecError, binascii.Error) as fault:
            raise SettingsError(
                f"TASKYARD_JOIN: is no whole ticket ({fault}): paste all of what 'taskyard join' printed"
            ) from None

    @property
    def ca_pem(self) -> str:
        return ssl.DER_cert_to_PEM_cert(self.ca)

    @property
    def pair_pem(self) -> str:
        """Certificate and key, as OpenSSL takes them from one file."""
        lines = base64.encodebytes(self.key).decode()
        return ssl.DER_cert_to_PEM_cert(self.cert) + _KEY[0] + lines + _KEY[1]


class Gift(msgspec.Struct, array_like=True, frozen=True):
    """What a machine keeps: `environ` are settings of the yard, `files` those of FILES."""

    environ: dict[str, str]
    files: dict[str, bytes]

    def data(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Raises SettingsError if it is not what a yard gives: names of files become paths here."""
        try:
            gift = msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError as fault:
            raise SettingsError(f"the master handed over what is no gift ({fault})") from None
        if set(gift.files) != set(FILES) or not all(name.startswith(PREFIX) for name in gift.environ):
            raise SettingsError("the master handed over other files or settings than a worker has")
        return gift
