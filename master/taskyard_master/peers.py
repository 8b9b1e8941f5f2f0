"""What the server and the service know of each other: peers one way, verbs the other."""

from collections.abc import Callable
from typing import Any, Protocol

from taskyard import messages
from taskyard.messages import Hello, Notice, Reply, Request, Welcome
from taskyard.tls_identity import Identity

OWN_CERTIFICATE = "give every process its own of `taskyard certs`"  # what helps where a role does not fit


class Link(Protocol):
    """The connection under a peer, as its dialect uses it."""

    address: str  # for people: host:port
    digest: str  # how the peer proved the key
    identity: Identity | None  # who its certificate says it is; None without TLS
    heard: float  # the monotonic clock when bytes last came

    def introduced(self, *, delays_acks: bool) -> None:
        """The peer is who it should be: deadlines and limits of strangers end here."""

    def failed(self, size: int = 0) -> None:
        """A request of the peer was refused, a pickle of so many bytes; one that goes on so has to wait."""

    def send(self, payload: bytes) -> bool:
        """Write a frame, if the connection is there to write to; too much that waits unread ends it."""

    async def drained(self) -> None:
        """Return once the peer reads what it was sent: nothing large is made for one that does not."""

    def proceed(self) -> None:
        """The dialect was busy and is not any more."""

    def finish(self) -> None:
        """Close when what was sent has left."""

    def drop(self, reason: str) -> None:
        """Close at once, with a line in the log."""


class Peer:
    """One connection that has proved the key and said what it wants.

    Its id is never used again, by no later master either: leases in the journal name it. It may be
    kept for longer than its connection lives; from `Verbs.gone` on notices go nowhere.
    """

    __slots__ = ("_link", "address", "hello", "id")

    def __init__(self, name: str, link: Link) -> None:
        self.id = name
        self.address = link.address
        self.hello: Hello | None = None  # of the yard dialect; a plain peer has none
        self._link: Link | None = link

    def __repr__(self) -> str:
        return f"Peer({self.id} {self.address})"

    @property
    def heard(self) -> float:
        """The monotonic clock when bytes last came (any bytes count as life); 0 if it has ended."""
        return self._link.heard if self._link else 0.0

    def notify(self, notice: Notice) -> None:
        """Tell the peer something unasked."""
        if self._link:
            self._link.send(messages.encode(notice))

    def close(self, reason: str) -> None:
        """Drop its connection, with one line in the log that says why."""
        if self._link:
            self._link.drop(reason)

    def unlink(self) -> None:
        """Its connection has ended."""
        self._link = None


class Verbs(Protocol):
    """The service, as far as the server needs it; values of plain peers are opaque pickles.

    Whoever waits for an answer may be cancelled, because its connection ended: what was not recorded by
    then is given back, and what was handed to the journal goes its way.
    """

    connections: Callable[[], int]  # set by the server: how many are open

    async def hello(self, peer: Any, hello: Hello) -> Welcome: ...

    async def handle(self, peer: Any, request: Request) -> Reply: ...

    def invited(self, who: Identity, address: str) -> Reply:
        """What a peer gets whose certificate is for joining, and for nothing else."""

    def gone(self, peer: Any) -> None:
        """The peer's connection has ended; called once for each that said hello or made plain calls."""

    async def plain_put(self, value: bytes, timeout: float | None) -> bool: ...

    async def plain_get(self, peer: Any, timeout: float | None) -> tuple[int, int, bytes] | None: ...

    async def plain_settle(self, peer: Any, lease: int, value: bytes, timeout: float | None) -> bool: ...

    async def plain_free(self, value: bytes, timeout: float | None) -> bool: ...

    async def plain_done(self, peer: Any, lease: int) -> None: ...

    async def plain_take(self, timeout: float | None) -> bytes | None: ...

    def plain_counts(self) -> tuple[int, int, int]: ...

    async def plain_join(self) -> None: ...


class Dialect(Protocol):
    """What a connection speaks once the key was proved and the first frame has come."""

    @property
    def busy(self) -> bool:
        """It takes no further frame for now; it tells its link to `proceed` when it does again."""

    def receive(self, frame: bytes) -> None:
        """Take a frame; raises ProtocolError or RefusedError, and then the connection is dropped."""

    def ended(self, then: Callable[[], None]) -> None:
        """The connection has ended: cancel what waits, then tell the service, once, and call `then`."""
