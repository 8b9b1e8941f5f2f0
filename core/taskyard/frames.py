"""Framing and the key handshake of `multiprocessing.connection`, without any I/O.

A frame on the wire is a length and a payload: four bytes, big-endian and signed,
or `-1` and eight unsigned bytes where the payload is beyond 2 GiB. Every
connection begins with a mutual proof that both sides know the authkey:

    server                                        client
    #CHALLENGE#{sha256}<40 random bytes>   ->
                                           <-     {sha256}<HMAC of all after #CHALLENGE#>
    #WELCOME#  (or #FAILURE#, and closes)  ->
                                           <-     #CHALLENGE#{sha256}<40 random bytes>
    {sha256}<HMAC>                         ->
                                           <-     #WELCOME#  (or #FAILURE#)

Peers up to Python 3.11 know nothing of the tag: they challenge with 20 bare bytes
and answer with a bare HMAC-MD5 of 16. Some vendors' builds of them put SHA-256,
equally bare, in place of MD5, because theirs is a machine without MD5.

The classes here take and give *payloads*; `encode` puts the length in front.
"""

import hmac
import os
import struct
from collections.abc import Iterator

from taskyard.errors import ProtocolError, RefusedError

HANDSHAKE_LIMIT = 256  # bytes in a frame until the handshake is done, as in the standard library

_SHORT_MAX = 0x7FFFFFFF
_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!iQ")


def header(length: int) -> bytes:
    """Return the bytes that announce a payload of `length` bytes: 4 of them, or 12 beyond 2 GiB."""
    return _SHORT.pack(length) if 0 <= length <= _SHORT_MAX else _LONG.pack(-1, length)


def encode(payload: bytes | bytearray | memoryview) -> bytes:
    """Return `payload` as one frame. For a large payload, write `header(len(payload))` before it instead."""
    return header(len(payload)) + payload


class Framer:
    """Cuts a stream of bytes into payloads; `for payload in framer.feed(data)` is all there is to it.

    Frames are cut one at a time, and `limit` (the most bytes that a payload may have) is read
    afresh for each: raising it on the last frame of a handshake applies to the very next frame,
    even when both came in one read. A length beyond the limit raises ProtocolError as soon as it
    is seen, and again on every later call: nothing after it can be trusted.
    """

    __slots__ = ("_at", "_data", "_part", "_size", "limit")

    def __init__(self, limit: int = HANDSHAKE_LIMIT) -> None:
        self.limit = limit
        self._data = b""  # what came last; cut up to `_at`
        self._at = 0
        self._part = bytearray()  # the begun header, or the begun payload once `_size` is known
        self._size = -1  # of the payload that `_part` belongs to; -1: its header is not complete

    @property
    def waiting(self) -> bool:
        """Whether a frame has begun whose end has not come, which is what a deadline should watch."""
        return self._size >= 0 or bool(self._part) or self._at < len(self._data)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Take bytes as they were read and return an iterator over the payloads now complete.

        What is left uncut, should the caller stop early, is cut after the next `feed`.
        """
        rest = self._data[self._at :]
        self._data = rest + data if rest else bytes(data)
        self._at = 0
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._size < 0:
            self._size = self._cut_header()
            if self._size < 0:
                raise StopIteration
        data, at, part, size = self._data, self._at, self._part, self._size
        end = at + size - len(part)
        self._at = min(end, len(data))
        if part or end > len(data):
            part += memoryview(data)[at:end]
            if len(part) < size:
                raise StopIteration
            payload = bytes(part)
            self._part = bytearray()
        else:
            payload = data[at:end]
        self._size = -1
        return payload

    def _cut_header(self) -> int:
        """Cut a header off and return the size in it, or keep what there is of it and return -1."""
        data, at, part = self._data, self._at, self._part
        if not part and len(data) - at >= _SHORT.size:
            (size,) = _SHORT.unpack_from(data, at)
            if 0 <= size <= self.limit:
                self._at = at + _SHORT.size
                return int(size)
        # Split over two reads, long, or wrong: rare, so this part is written to be short.
        for wanted in (_SHORT.size, _LONG.size):
            end = self._at + max(0, wanted - len(part))
            part += data[self._at : end]
            self._at = min(end, len(data))
            if len(part) < wanted:
                return -1
            long = wanted == _LONG.size
            size = int.from_bytes(part[4:]) if long else int.from_bytes(part[:4], signed=True)
            if long or size != -1 or self.limit <= _SHORT_MAX:
                break
        self._check(size, long)
        part.clear()
        return int(size)

    def _check(self, size: int, long: bool) -> None:
        if size == -1 and not long:
            raise ProtocolError(
                f"a frame beyond 2 GiB was announced and {self.limit} bytes is the most that is taken:"
                " send less at once"
            )
        if size < 0 or (long and size <= _SHORT_MAX):
            raise ProtocolError(
                f"a frame announces an impossible length ({size}): what connected here is not a yard's peer"
            )
        if size > self.limit:
            raise ProtocolError(
                f"a frame of {size} bytes was announced and {self.limit} is the most that is taken here:"
                " send less at once, or check that the peer speaks this protocol"
            )


_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
_NONCE = 40  # random bytes in our challenges
_OLD_NONCE = 20  # length of an untagged challenge, which no tagged one has
_TAG = b"{sha256}"
_MD5_SIZE = 16
_SHA256_SIZE = 32
# What a challenge may ask us for. Only the first is in use up to Python 3.15; the standard
# library reserves the others, and answering them costs nothing.
_TAGS = {b"{%s}" % name.encode(): name for name in ("sha256", "sha384", "sha3_256", "sha3_384")}


class _Handshake:
    """What both sides share: proving the key, and asking for proof."""

    def __init__(self, authkey: bytes, allow_md5: bool = True) -> None:
        self.done = False
        self.digest = ""
        self.farewell: list[bytes] = []
        self._authkey = authkey
        self._allow_md5 = allow_md5
        self._message = b""  # what the peer has to sign
        self._untagged = False  # the peer signs with SHA-256 and leaves the tag out
        self._step = 0

    def receive(self, payload: bytes) -> list[bytes]:
        """Take the peer's next payload and return the payloads to send, in order.

        Raises RefusedError where the key or the digest is refused by either side, and
        ProtocolError for all that is not of the protocol. `farewell` then holds what to send
        before closing; every later call raises ProtocolError.
        """
        step, self._step = self._step, -1  # first of all, so that a refusal is final
        replies = self._advance(step, payload)
        self._step = step + 1
        return replies

    def _advance(self, step: int, payload: bytes) -> list[bytes]:
        raise NotImplementedError

    def _challenge(self) -> bytes:
        self._message = _TAG + os.urandom(_NONCE)
        return _CHALLENGE + self._message

    def _verify(self, answer: bytes, refusal: str) -> None:
        """Check the answer to our challenge; what is signed includes our tag, so it cannot be swapped."""
        if len(answer) == len(_TAG) + _SHA256_SIZE and answer.startswith(_TAG):
            digest, mac = "sha256", answer[len(_TAG) :]
        elif len(answer) == _SHA256_SIZE:
            digest, mac = "sha256", answer
            self._untagged = True
        elif len(answer) == _MD5_SIZE:
            digest, mac = "md5", answer
        else:
            raise ProtocolError(
                f"the peer answered the challenge with {len(answer)} bytes that are no digest:"
                " check that it speaks this protocol"
            )
        self.farewell = [_FAILURE]
        if not hmac.compare_digest(self._mac(self._message, digest), mac):
            raise RefusedError(refusal)
        self.farewell = []
        self.digest = digest

    def _answer(self, payload: bytes) -> bytes:
        """Return the answer to the peer's challenge, in the digest and the form that it asks for."""
        message = payload[len(_CHALLENGE) :]
        if not payload.startswith(_CHALLENGE) or len(message) < _OLD_NONCE:
            raise ProtocolError("the peer sent no challenge: check that it speaks this protocol")
        if len(message) == _OLD_NONCE:
            return self._mac(message, "sha256" if self._untagged else "md5")
        tag = message[: message.find(b"}") + 1]
        if tag not in _TAGS:
            raise ProtocolError("the peer's challenge asks for an unknown digest: check its version")
        return tag + self._mac(message, _TAGS[tag])

    def _mac(self, message: bytes, digest: str) -> bytes:
        if digest == "md5" and not self._allow_md5:
            raise RefusedError(
                "the peer uses HMAC-MD5, as Python up to 3.11 does, and TASKYARD_ALLOW_MD5=0 refuses it:"
                " use Python 3.12 or later there, or set TASKYARD_ALLOW_MD5=1 here"
            )
        try:
            return hmac.digest(self._authkey, message, digest)
        except ValueError as error:  # this machine is in FIPS mode
            raise RefusedError(
                f"the peer uses HMAC-{digest.upper()}, which OpenSSL does not offer on this machine:"
                " use Python 3.12 or later there"
            ) from error

    @staticmethod
    def _expect_welcome(payload: bytes, refusal: str) -> None:
        if payload == _FAILURE:
            raise RefusedError(refusal)
        if payload != _WELCOME:
            raise ProtocolError(
                "the peer neither took nor refused the authkey: check that it speaks this protocol"
            )


class ServerHandshake(_Handshake):
    """The side that accepts: send `first()`, then give `receive` every payload until `done`.

    done      both sides have proved that they know the authkey
    digest    how the peer proved it: "sha256" or "md5", "" before that
    farewell  payloads to send before closing, once `receive` has raised
    allow_md5 whether peers up to Python 3.11 are let in
    """

    def first(self) -> bytes:
        """Return the payload that opens the handshake."""
        return self._challenge()

    def _advance(self, step: int, payload: bytes) -> list[bytes]:
        if step == 0:
            self._verify(payload, "the peer does not know the authkey: check TASKYARD_AUTHKEY on both sides")
            return [_WELCOME]
        if step == 1:
            return [self._answer(payload)]
        if step == 2:
            self._expect_welcome(
                payload, "the peer refused this authkey: check TASKYARD_AUTHKEY on both sides"
            )
            self.done = True
            return []
        raise ProtocolError("a payload after the end of the handshake was taken for one of it")


class ClientHandshake(_Handshake):
    """The side that connects: it waits for the first payload; otherwise as ServerHandshake.

    The last reply and `done` come together: what follows it may be sent in the same write.
    """

    def _advance(self, step: int, payload: bytes) -> list[bytes]:
        if step == 0:
            return [self._answer(payload)]
        if step == 1:
            self._expect_welcome(
                payload, "the master refused the authkey: check TASKYARD_AUTHKEY on both sides"
            )
            return [self._challenge()]
        if step == 2:
            self._verify(
                payload,
                "the master does not know the authkey: check TASKYARD_ADDRESS, and TASKYARD_AUTHKEY there",
            )
            self.done = True
            return [_WELCOME]
        raise ProtocolError("a payload after the end of the handshake was taken for one of it")
