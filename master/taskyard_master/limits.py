"""Who may connect, how often, and how much is said about those who may not: no sockets in here.

Time comes from a clock that is handed in, so that tests need not wait.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address

from taskyard.log import event

# An address may fail the handshake this often; one that does so more often is turned away at the door
# until it pauses. A failed handshake costs some 0.2 ms, so a flood of wrong keys from one address gets at
# most a few hundredths of a CPU; what is connected goes on, whoever shares the address.
FAILURES_PER_SECOND = 100.0
FAILURES_AT_ONCE = 200.0
# What strangers cost, in seconds of a CPU: one who gets in, one who begins a TLS handshake besides, and one
# who gets no further than the door.
STRANGER = 200e-6
TLS_HELLO = 900e-6
_TURNED_AWAY = 15e-6
_ADDRESSES = 4096  # that failed lately and are remembered


def group(host: str) -> str:
    """The part of an address that one peer cannot change at will: for IPv6 the network of 64 bits."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class Admission:
    """Counts connections, in all and by address, and remembers who fails the handshake."""

    def __init__(self, total: int, per_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._total = total
        self._per_address = per_address
        self._clock = clock
        self._by_address: dict[str, int] = {}
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level of a bucket, and when

    def enter(self, address: str) -> str:
        """Count a connection in and return "", or say why it may not come in."""
        if self.count >= self._total:
            return f"{self._total} connections are open, which is TASKYARD_CONNECTIONS"
        mine = self._by_address.get(address, 0)
        if mine >= self._per_address:
            return f"it has {mine} connections open, which is TASKYARD_CONNECTIONS_PER_ADDRESS"
        if self._failures and self._level(address) > FAILURES_AT_ONCE - 1:
            return f"it fails the handshake more than {FAILURES_PER_SECOND:.0f} times a second"
        self.count += 1
        self._by_address[address] = mine + 1
        return ""

    def leave(self, address: str) -> None:
        """Count out a connection that `enter` let in."""
        self.count -= 1
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]

    def failed(self, address: str) -> None:
        """A connection from this address ended before it had proved the key."""
        self._failures[address] = (self._level(address) + 1, self._clock())
        self._failures.move_to_end(address)
        if len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)

    def _level(self, address: str) -> float:
        level, at = self._failures.get(address, (0.0, 0.0))
        return max(0.0, level - (self._clock() - at) * FAILURES_PER_SECOND)


class Door:
    """Lets in so many strangers in a round that a flood of them gets a small part of a CPU, evenly spread;
    those who are in already have the rest.
    """

    ROUND = 0.004  # seconds
    SHARE = 0.075  # of a CPU
    CREDIT = 0.02  # seconds of a CPU, at most, that those who had the key leave to others
    DEBT = 0.6  # seconds of a CPU, at most, that later rounds have to make up for

    def __init__(self, *, tls: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._whole = STRANGER + (TLS_HELLO if tls else 0.0)  # cost of one who gets as far as the key
        self._clock = clock
        self._ends = 0.0
        self._left = 0.0  # of this round; less than nothing where strangers have cost more
        self._earned = 0.0

    def shut(self) -> float:
        """Seconds until the next stranger may come in, or ask again; 0 if one may come now."""
        now = self._clock()
        if now >= self._ends:
            share = self.ROUND * self.SHARE
            rounds = 1 + (now - self._ends) // self.ROUND
            self._left = min(self._left + rounds * share, share)
            self._ends = now + self.ROUND
        return 0.0 if self._left > 1e-9 or self._earned > 1e-9 else self._ends - now

    def passed(self, *, turned_away: bool) -> None:
        """One has come, in or only to the door."""
        self._charge(_TURNED_AWAY if turned_away else STRANGER)

    def began_tls(self) -> None:
        """One who is in has begun a TLS handshake, which not every stranger does."""
        self._charge(TLS_HELLO)

    def proved(self) -> None:
        """One who was let in had the key: one more may come, so that many workers join quickly."""
        self._earned = min(self._earned + self._whole, self.CREDIT)

    def _charge(self, cost: float) -> None:
        if self._left > 1e-9 or self._earned <= 1e-9:
            self._left = max(self._left - cost, -self.DEBT)
        else:
            self._earned -= cost


class Faults:
    """How often a peer's requests have failed: beyond a thousand a second the next one waits.

    One that fails costs some 0.05 ms, and a long pickle up to 0.2 s until it is refused, for which it counts
    as many: so a peer which does nothing else gets a small part of a CPU.
    """

    PER_SECOND = 1000.0
    AT_ONCE = 1000.0
    BYTES = 500.0  # of a pickle that count as a request

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level, self._at = 0.0, clock()

    def count(self, size: int = 0) -> float:
        """One more has failed, of so many bytes if it was a pickle; seconds that the next has to wait."""
        now = self._clock()
        self._level = max(0.0, self._level - (now - self._at) * self.PER_SECOND) + 1 + size / self.BYTES
        self._at = now
        return max(0.0, self._level - self.AT_ONCE) / self.PER_SECOND


class Complaints:
    """Log lines about peers, so many of a kind in a while: a flood of them must not fill the disk."""

    LINES = 5
    SECONDS = 10.0

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # since when, and how many since then

    def say(self, name: str, message: str, level: int = logging.WARNING) -> None:
        """Log it, unless there were enough of this event just now; the next that is logged counts those."""
        now = self._clock()
        since, said = self._kinds.get(name, (now, 0))
        if now - since >= self.SECONDS:
            if said > self.LINES:
                message += f" (and {said - self.LINES} more like it were not shown)"
            since, said = now, 0
        self._kinds[name] = (since, said + 1)
        if said < self.LINES:
            event(self._logger, name, message, level)
