"""What all connections of a server share: its limits, who is open, and whose turn it is to get much."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskyard.messages import Reply
from taskyard.tls_identity import Identity
from taskyard_master.limits import Admission, Complaints, Door
from taskyard_master.peers import Dialect
from taskyard_master.watch import Watch

if TYPE_CHECKING:
    from taskyard_master.connection import Connection

OUTPUTS = 8  # times the most that may wait for one peer may wait for all


@dataclass(slots=True)
class Common:
    """One a server, given to each of its connections."""

    loop: asyncio.AbstractEventLoop
    authkey: bytes
    allow_md5: bool
    handshake_seconds: float
    frame_limit: int
    output_limit: int
    watch: Watch
    admission: Admission
    complaints: Complaints
    door: Door
    choose: Callable[["Connection", bytes], Dialect]  # by the first frame
    invited: Callable[[Identity, str], Reply]  # for who comes to join
    open: set["Connection"] = field(default_factory=set)
    choked: set["Connection"] = field(default_factory=set)  # those who do not read what they are sent
    # Large replies are begun one in a turn of the loop: many who ask for much at once hold up one another,
    # and not those who ask for little.
    turns: asyncio.Lock = field(default_factory=asyncio.Lock)
    emptied: Callable[[], None] | None = None  # called when the last of `open` has ended

    def relieve(self) -> None:
        """Drop who lets most wait, while too much waits for several of them together."""
        waiting = {one: size for one in self.choked if (size := one.unread)}
        total = sum(waiting.values())
        while len(waiting) > 1 and total > OUTPUTS * self.output_limit:
            greedy = max(waiting, key=waiting.__getitem__)
            total -= waiting.pop(greedy)
            greedy.drop("too much waits for peers that do not read, and most of it for this one")
