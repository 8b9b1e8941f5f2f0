"""`python -m honest PORT FILE [CERTS]`: an honest client and worker that submit, lease and settle in turn.

FILE is eight bytes that count their rounds, and eight for the longest round in nanoseconds since somebody
wrote zeros there. It is a process of its own, so that those who flood the master do not hold it up in Python.
CERTS is a folder of `taskyard certs`, for TLS.
"""

import mmap
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import Lab
from serving import Raw
from support import eventually

from taskyard import batch
from taskyard.messages import GREETING, Chunk, Hello, Lease, Open, Options, Outcome, Settle, encode
from taskyard_ctl.certfiles import CertFolder

TASKS = 10  # in a round
_BLOCK = batch.pack([b"x" * 20] * TASKS)


def work(port: int, path: str, *folder: str) -> None:
    from strangers import Stranger
    from tlspeers import client_of, worker_of

    certs = CertFolder(Path(folder[0])) if folder else None
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        lab: Any = type("Place", (), {"port": port})
        client: Raw = Stranger(lab, context=client_of(certs) if certs else None).prove()
        client.greet("honest")
        peer: Raw = Stranger(lab, context=worker_of(certs) if certs else None).prove()
        hello = Hello(0, "worker", "honest", "h", 1, "honest", "0", "3", slots=1, functions=["honest:f"])
        peer.send(GREETING + encode(hello))
        peer.reply()
        client.ask(Open(1, "honest", "honest", "honest:f", Options(), "s"))
        first = 0
        while True:
            began = time.monotonic_ns()
            client.ask(Chunk(2, "honest", first, TASKS, batch.digest(_BLOCK), _BLOCK))
            first += TASKS
            for grant in peer.ask(Lease(3, TASKS)).grants:
                held = (grant.lease, grant.job, grant.first, grant.count)
                peer.ask(Settle(4, [Outcome(*held, "completed", 1.0, 1.0, grant.block)]))
            rounds, longest = struct.unpack("QQ", shared[:])
            shared[:] = struct.pack("QQ", rounds + 1, max(longest, time.monotonic_ns() - began))


class Honest:
    """Its rounds, as the test sees them."""

    def __init__(self, path: Path, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._file = path.open("r+b")
        self._shared = mmap.mmap(self._file.fileno(), 16)
        self._mark = (0, 0.0)

    @property
    def rounds(self) -> int:
        assert self.process.poll() is None, "the honest peer has ended"
        return int(struct.unpack("QQ", self._shared[:])[0])

    def mark(self) -> None:
        """Begin to measure."""
        self._shared[8:] = bytes(8)
        self._mark = self.rounds, time.monotonic()

    @property
    def since(self) -> int:
        """Rounds since the mark."""
        return self.rounds - self._mark[0]

    def rate(self) -> float:
        """Rounds a second since the mark."""
        return self.since / (time.monotonic() - self._mark[1])

    @property
    def longest(self) -> float:
        """Seconds of the longest round since the mark."""
        return int(struct.unpack("QQ", self._shared[:])[1]) / 1e9

    def over(self, seconds: float) -> float:
        """Its rate over the next so many seconds."""
        self.mark()
        threading.Event().wait(seconds)
        return self.rate()

    def close(self) -> None:
        self._shared.close()
        self._file.close()


@contextmanager
def honest(lab: Lab, certs: Path | None = None) -> Iterator[Honest]:
    path = lab.folder / "honest"
    path.write_bytes(bytes(16))
    environ = {**lab.environ, "PYTHONPATH": ":".join(sys.path)}
    where = [str(lab.port), str(path), *([str(certs)] if certs else [])]
    process = subprocess.Popen([sys.executable, "-m", "honest", *where], env=environ)
    it = Honest(path, process)
    try:
        eventually(lambda: it.rounds > 5, "the honest peer works")
        yield it
    finally:
        process.kill()
        process.wait()
        it.close()


if __name__ == "__main__":
    work(int(sys.argv[1]), *sys.argv[2:])
