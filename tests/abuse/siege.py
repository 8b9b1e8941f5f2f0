"""A master with an honest peer, and many at once who mean no good: what it costs these two."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Figures
from honest import Honest, honest
from lab import Lab
from strangers import MIB, descriptors, memory, sockets
from support import eventually

HANDSHAKE = 2.0  # seconds that the master gives a stranger here
FREED = 5.0  # seconds after their deadline in which all have to be gone
LONGEST = 20.0  # seconds that a round of the honest peer may take: some ms, and what a busy machine adds
BACK = 128 * MIB  # more than before, at most, when all is over: 64 of them are cached blocks
FILES = 4  # of the journal that may be opened meanwhile, to be read
PATIENCE = 60.0  # for a machine that is busy

pause = threading.Event()  # never set


@dataclass
class Siege:
    """A master with an honest peer, and what both were like before."""

    lab: Lab
    honest: Honest
    descriptors: int
    sockets: int
    memory: int
    quiet: float
    figures: Figures
    peak: int = 0
    longest: float = 0.0
    socks: list[socket.socket] = field(default_factory=list)
    storms: list[tuple[int, float]] = field(default_factory=list)  # rounds of the honest peer, and seconds
    lulls: list[tuple[int, float]] = field(default_factory=list)

    @contextmanager
    def storm(self) -> Iterator[None]:
        """A part of the flood, and then a while without it: so close together, they can be compared."""
        for spans, work in ((self.storms, None), (self.lulls, pause.wait)):
            rounds, begun = self.honest.rounds, time.monotonic()
            if work:
                work(0.3)
            else:
                yield
            spans.append((self.honest.rounds - rounds, time.monotonic() - begun))

    def connect(self, count: int, source: str = "127.0.0.5") -> list[socket.socket]:
        """So many connections, as quickly as it goes; not blocking."""
        made = []
        for _ in range(count):
            sock = socket.socket()
            sock.bind((source, 0))
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", self.lab.port))
            sock.setblocking(False)
            made.append(sock)
        self.socks += made
        return made

    def held(self) -> int:
        """Connections of the flood that the master still has."""
        assert self.lab.master
        self.peak = max(self.peak, memory(self.lab.master.pid))
        more = descriptors(self.lab) - self.descriptors
        return more if more > FILES else sockets(self.lab) - self.sockets  # to look at all of them takes long

    def grown(self) -> int:
        """Bytes of memory that the master has more than before."""
        assert self.lab.master
        return memory(self.lab.master.pid) - self.memory

    def freed(self, within: float) -> float:
        """Wait until the master has none of them; seconds from now."""
        begun = time.monotonic()
        while self.held() > 0:  # looked at now and then only: it is thousands of files
            assert time.monotonic() < begun + within + PATIENCE, "they are still there"
            pause.wait(0.2)
        return time.monotonic() - begun

    def end(self, row: str, deadline: float, after: float, **more: Any) -> None:
        """Judge: `after` seconds passed until all were gone, whose deadline was so many."""
        assert self.lab.master
        rounds, rate = self.honest.since, self.honest.rate()
        self.longest = self.honest.longest
        for sock in self.socks:
            sock.close()
        eventually(lambda: self.grown() < BACK, "the memory is given back", PATIENCE)  # moments after
        grown = self.grown()
        # What else the machine does differs from second to second: before and after are both its own rate.
        again = self.honest.over(1.0)
        undisturbed = (self.quiet + again) / 2
        if self.storms:
            rate, undisturbed = _rate(self.storms), _rate(self.lulls)
        self.figures.add(
            row, gone_after=round(after, 1), deadline=deadline, honest=f"{rate / undisturbed:.0%}",
            rounds_a_second=round(rate), longest_round=f"{self.longest:.2f} s",
            peak_mib=round((self.peak - self.memory) / MIB), grown_mib=round(grown / MIB), **more,
        )  # fmt: skip
        assert descriptors(self.lab) - self.descriptors <= FILES
        assert after < deadline + FREED + 30  # 30: a machine that is busy
        assert rounds > 0 and again > 0, "the honest peer was held up"
        assert self.longest < LONGEST
        assert "Traceback" not in self.lab.output()


def _rate(spans: list[tuple[int, float]]) -> float:
    return sum(rounds for rounds, _ in spans) / sum(seconds for _, seconds in spans)


@contextmanager
def stepping_back() -> Iterator[None]:
    """Attackers have machines of their own: here they leave the processors to the others, where they may."""
    if os.geteuid():
        yield  # only root gets its priority back
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@contextmanager
def besieged(lab: Lab, figures: Figures, certs: Path | None = None, **settings: str) -> Iterator[Siege]:
    """Start the master of a lab, and its honest peer, with TLS if there are certificates."""
    lab.environ["PYTHONPATH"] = str(Path(__file__).parent)
    lab.module = "hasty"
    try:
        lab.start_master(handshake=str(HANDSHAKE), **settings)
        with honest(lab, certs) as peer:
            quiet = peer.over(1.0)
            assert lab.master
            it = Siege(lab, peer, descriptors(lab), sockets(lab), memory(lab.master.pid), quiet, figures)
            with stepping_back():
                peer.mark()
                yield it
            for sock in it.socks:
                sock.close()
    finally:
        lab.stop()
