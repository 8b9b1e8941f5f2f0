"""Keeps a yard of processes running, as compose keeps one of containers.

It starts the master and the workers, starts again what dies, keeps what they
print, and takes orders over a unix socket: one line of JSON each way. It is
one thread around one selector, and imports little, as every local yard has one.

A child that lived for a second is started again at once when it dies; deaths
sooner than that are answered with backoff. If the supervisor itself is killed,
the kernel kills its children (on Linux), so that nothing runs without one.
"""

import contextlib
import fcntl
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskyard import log
from taskyard_ctl.child import Child
from taskyard_ctl.logfiles import LogFile

logger = logging.getLogger(__name__)

MASTER, WORKER = "master", "worker"
MASTER_GRACE_S = 10.0  # how long the master may take to end once the workers have
LOGS = "logs"  # in the state folder


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run: the commands of the roles, where, and how long a stop may take."""

    folder: str  # working directory of all processes
    state: str  # the folder of lock and logs
    socket: str
    master: list[str]
    worker: list[str]
    workers: int
    grace: float

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Supervisor:
    """The loop; `run` returns when the yard has been stopped."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._logs = Path(spec.state) / LOGS
        self._logs.mkdir(exist_ok=True)
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._signalled = False
        self._stopping = False
        self._stopped: list[Callable[[], None]] = []  # called at the end

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Start everything, call `ready`, and keep it running until the order to stop."""
        self._listen_for_signals()
        self._listen_for_orders()
        self._add(MASTER)
        for _ in range(self._spec.workers):
            self._add(WORKER)
        ready()
        while self._children:
            for key, _ in self._selector.select(self._look()):
                key.data()
        for answer in self._stopped:
            answer()

    def _look(self) -> float | None:
        """Do what is due; returns the seconds until something else is."""
        if self._signalled:
            self._signalled = False
            self._stop(self._spec.grace)
        for child in list(self._children.values()):
            if not child.look(self._spec.folder):
                del self._children[child.name]
                for call in child.gone:
                    call()
        if self._stopping and list(self._children) == [MASTER] and not self._children[MASTER].ending:
            self._children[MASTER].end(MASTER_GRACE_S)  # last, so that workers could settle what they had
        if not self._children:
            return 0.0
        soonest = min(child.due for child in self._children.values())
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _add(self, role: str) -> str:
        free = (f"{WORKER}-{i}" for i in range(1, len(self._children) + 2))
        name = MASTER if role == MASTER else next(name for name in free if name not in self._children)
        argv = self._spec.master if role == MASTER else self._spec.worker
        self._children[name] = Child(name, role, argv, self._logs, self._selector)
        return name

    def _stop(self, grace: float) -> None:
        if not self._stopping:
            log.event(logger, "stopping", "stopping: the workers first, then the master")
        self._stopping = True
        for child in self._children.values():
            if child.role == WORKER or child.ending:
                child.end(grace)

    def _listen_for_signals(self) -> None:
        read, write = os.pipe()
        for fd in (read, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop

        def stop(*_: object) -> None:
            self._signalled = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self._selector.register(read, selectors.EVENT_READ, lambda: os.read(read, 4096))

    # ------------------------------------------------------------ orders

    def _listen_for_orders(self) -> None:
        path = Path(self._spec.socket)
        path.unlink(missing_ok=True)  # we hold the lock: it is a leftover
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        path.chmod(0o600)
        server.listen()

        def accept() -> None:
            peer, _ = server.accept()
            peer.settimeout(1.0)
            self._selector.register(peer, selectors.EVENT_READ, lambda: self._serve(peer))

        self._selector.register(server, selectors.EVENT_READ, accept)

    def _serve(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)

        def answer(**content: Any) -> None:
            with contextlib.suppress(OSError), peer:  # who asked may be gone
                peer.sendall(json.dumps(content).encode() + b"\n")

        try:
            with peer.makefile("rb") as lines:
                self._obey(json.loads(lines.readline(1 << 16)), answer)
        except (OSError, ValueError, KeyError, TypeError) as fault:
            answer(error=f"the supervisor did not understand: {fault!r}")

    def _obey(self, order: dict[str, Any], answer: Callable[..., None]) -> None:
        verb = order["verb"]
        if verb == "state":
            answer(pid=os.getpid(), children=[child.shown() for child in self._children.values()])
        elif verb == "add" and not self._stopping:
            answer(names=[self._add(WORKER) for _ in range(int(order["count"]))])
        elif verb == "remove":
            child = self._children.get(order["name"])
            if child is None or child.role != WORKER:
                answer(error=f"no worker is named {order['name']}")
                return
            child.gone.append(answer)
            child.end(float(order["grace"]))
        elif verb == "stop":
            self._stopped.append(answer)
            self._stop(float(order["grace"]))
        else:
            answer(error="the yard is stopping" if self._stopping else f"no such order: {verb}")


class _Into(logging.Handler):
    """The supervisor's own log, kept as those of its children."""

    def __init__(self, sink: LogFile) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._sink.feed(f"{record.levelname.lower():7} {text}\n".encode())


def main() -> int:
    """Read the Spec from stdin, answer one line on stdout once the yard starts, then keep it running."""
    spec = Spec(**json.loads(sys.stdin.buffer.read()))
    state = Path(spec.state)
    lock = os.open(state / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.stdout.write(f"another supervisor keeps the yard in {spec.folder}\n")
        return 1
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())  # for people; the lock itself is what counts
    log.setup()
    logging.getLogger().handlers[:] = [_Into(LogFile(state / "supervisor.log", max_bytes=1 << 20))]

    def ready() -> None:
        sys.stdout.write("ok\n")
        sys.stdout.flush()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)  # the terminal may close

    try:
        Supervisor(spec).run(ready)
    except Exception:
        logger.exception("the supervisor failed")
        raise
    finally:
        Path(spec.socket).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
