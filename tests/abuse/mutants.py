"""Real frames, kept in `corpus/`, and what may become of them on the way.

    python tests/abuse/mutants.py       records them anew: real peers of both dialects, through a relay

Each file holds frames as they were on the wire, one after the other; those of one kind and length are
kept once.
"""

import random
import socket
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from taskyard.frames import Framer, encode

FOLDER = Path(__file__).parent / "corpus"
KINDS = ("plain-requests", "plain-replies", "yard-requests", "yard-replies", "handshakes")
_LONGEST = 4096  # bytes of a frame that is kept
_MOST = 250  # frames of a kind

# Numbers at which something is likely to go wrong, as bytes in both orders.
_EDGES = [
    value.to_bytes(size, order, signed=value < 0)
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, -1, 127, -128, (1 << 8 * size - 1) - 1, -(1 << 8 * size - 1), (1 << 8 * size) - 1)
    if -(1 << 8 * size - 1) <= value < 1 << (8 * size)
]


def load(kind: str) -> list[bytes]:
    """The payloads that are kept of a kind."""
    return list(Framer(_LONGEST).feed((FOLDER / f"{kind}.frames").read_bytes()))


class Mutator:
    """Damages frames, in ways that follow from its seed alone."""

    def __init__(self, corpus: list[bytes], seed: int) -> None:
        self.corpus = corpus
        self.draw = random.Random(seed)

    def some(self, count: int) -> Iterator[bytes]:
        """So many damaged frames; now and then one that is as it was."""
        choice, chance = self.draw.choice, self.draw.random
        for _ in range(count):
            data = bytearray(choice(self.corpus))
            self._damage(data)
            while chance() < 0.4:
                self._damage(data)
            yield bytes(data)

    def _damage(self, data: bytearray) -> None:
        draw = self.draw
        at = int(draw.random() * (len(data) + 1))
        how = int(draw.random() * 8)
        if how == 0 and at < len(data):
            data[at] ^= 1 << int(draw.random() * 8)
        elif how == 1 and at < len(data):
            data[at] = int(draw.random() * 256)
        elif how == 2:
            data.insert(at, int(draw.random() * 256))
        elif how == 3:
            del data[at : at + 1 + int(draw.random() * 8)]
        elif how == 4:
            del data[at:]
        elif how == 5:
            edge = draw.choice(_EDGES)
            data[at : at + len(edge)] = edge
        elif how == 6:  # a piece of it again, somewhere else
            end = at + 1 + int(draw.random() * 32)
            start = int(draw.random() * (len(data) + 1))
            data[start:start] = data[at:end]
        else:  # a piece of another frame
            other = draw.choice(self.corpus)
            start = int(draw.random() * (len(other) + 1))
            data[at : at + int(draw.random() * 16)] = other[start : start + 1 + int(draw.random() * 48)]


# ------------------------------------------------------------ recording


class Recorder:
    """A relay to a master that keeps what both sides say, a pair of byte strings for each connection."""

    def __init__(self, port: int) -> None:
        self.master = ("127.0.0.1", port)
        self.taken: list[tuple[bytearray, bytearray]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            client, _ = self.listener.accept()
            with suppress(OSError):  # the master has gone before the client
                self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        master = socket.create_connection(self.master)
        for sock in (client, master):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = (bytearray(), bytearray())
        self.taken.append(said)
        for source, sink, keep in ((client, master, said[0]), (master, client, said[1])):
            threading.Thread(target=self._carry, args=(source, sink, keep), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, keep: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                keep += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def _peers(folder: Path) -> Iterator[Recorder]:
    """A yard whose worker, client and old scripts all talk through a relay."""
    from lab import KEY, running_lab
    from scripts import all_pythons, tutorial

    from taskyard import Yard
    from taskyard.messages import Renew

    with running_lab(folder) as lab:
        recorder = Recorder(lab.port)
        address = f"127.0.0.1:{recorder.port}"
        where = ("127.0.0.1", recorder.port)
        for program in all_pythons().values():
            tutorial(program, "queue_methods.py", where, KEY).output()
        first = next(iter(all_pythons().values()))
        pair = [tutorial(first, f"{name}_ten_results.py", where, KEY) for name in ("producer",)]
        pair.append(tutorial(first, "worker_queue_names.py", where, KEY))
        lab.start_worker(address=address, host="host")
        with Yard(address, KEY) as yard:
            job = yard.submit("squares:square", range(300), name="squares", priority=1)
            list(job.results(follow=True))
            failing = yard.submit("squares:nothing", range(3), max_attempts=1)
            failing.cancel()
            strange = yard.submit("squares:square", ["x", None, 3], max_attempts=1)
            list(strange.results(follow=True))
            strange.requeue()
            list(strange.results(follow=True, ordered=True))
            worker = yard.status().workers[0].id
            yard.drain(worker)
            yard.drain(worker, undo=True)
            open_job = yard.open("squares:square", name="open")
            yard.call(Renew(0, open_job.job))
            yard.backup(folder / "copy.db")
            job.delete()
        for script in pair:
            script.output()
        yield recorder


def record() -> dict[str, list[bytes]]:
    found: dict[str, dict[bytes, None]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder, _peers(Path(folder)) as recorder:
        for said, heard in recorder.taken:
            requests, replies = (list(Framer(1 << 30).feed(part)) for part in (said, heard))
            found["handshakes"].update(dict.fromkeys(requests[:3] + replies[:3]))
            dialect = "yard" if len(requests) > 3 and requests[3].startswith(b"yard/") else "plain"
            for side, frames in (("requests", requests[3:]), ("replies", replies[3:])):
                kept = [frame for frame in frames if len(frame) <= _LONGEST]
                found[f"{dialect}-{side}"].update(dict.fromkeys(kept))
    # A nonce has other letters each time; everything else begins with what it is about.
    return {kind: _varied(list(frames), 0 if kind == "handshakes" else 9) for kind, frames in found.items()}


def _varied(frames: list[bytes], letters: int) -> list[bytes]:
    """At most _MOST of them, as different as can be had: one of each sort in turn."""
    sorts: dict[object, list[bytes]] = defaultdict(list)
    for frame in frames:
        sorts[len(frame), frame[:letters]].append(frame)
    turns = (some[at] for at in range(_MOST) for some in sorts.values() if at < len(some))
    return list(islice(turns, _MOST))


if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parents[1] / "contract")]
    for kind, frames in record().items():
        (FOLDER / f"{kind}.frames").write_bytes(b"".join(map(encode, frames)))
        print(kind, len(frames), sum(map(len, frames)))
