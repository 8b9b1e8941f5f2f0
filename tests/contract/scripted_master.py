"""A master that does what a test says, over a real socket, and the worker that it has."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from support import eventually

from taskyard import batch, messages, values
from taskyard.errors import TaskyardError
from taskyard.frames import Framer, ServerHandshake, encode
from taskyard.messages import (
    GREETING,
    Beat,
    Beaten,
    Begin,
    Functions,
    Grant,
    Hello,
    Lease,
    Leased,
    MasterStatus,
    Notice,
    Ok,
    Outcome,
    Reply,
    Settle,
    Settled,
    Welcome,
)

KEY = "0123456789abcdef"
R = TypeVar("R")
STATUS = MasterStatus("", 0, "", "", 0, 1, "", "", 0, 0, 1, [])


class Connection:
    """One connection of a worker, past the handshake. Heartbeats are answered by themselves."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._framer = Framer(1 << 26)
        self.requests: list[Any] = []  # all that came, in order
        self.places: list[int] = []  # in `requests`, of those that `next` has returned
        self.drop: list[int] = []  # what the next heartbeats are answered
        self.settling = True  # whether outcomes are answered by themselves
        self.outcomes: dict[int, list[tuple[str, Any]]] = {}  # what was settled of each index
        self.runs: list[Outcome] = []
        self.mute = False  # whether nothing is answered or noted any more
        self.closed = False
        shake = ServerHandshake(KEY.encode())
        try:
            self.hello = self._handshake(shake)
        except TaskyardError:
            for payload in shake.farewell:
                self._send(payload)
            sock.close()
            raise

    def _handshake(self, shake: ServerHandshake) -> Hello:
        self._send(shake.first())
        while True:
            for payload in self._framer.feed(self._sock.recv(1 << 16)):
                if shake.done:
                    assert payload.startswith(GREETING)
                    hello = messages.decode_request(payload[len(GREETING) :])
                    assert isinstance(hello, Hello)
                    return hello
                for reply in shake.receive(payload):
                    self._send(reply)

    def welcome(self, lease: float = 30.0, drop: tuple[int, ...] = ()) -> "Connection":
        self._send(messages.encode(Welcome(self.hello.seq, STATUS, lease, list(drop))))
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _send(self, payload: bytes) -> None:
        self._sock.sendall(encode(payload))

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._sock.recv(1 << 20):
                for payload in self._framer.feed(data):
                    self._on_request(messages.decode_request(payload))
        self.closed = True

    def _on_request(self, request: Any) -> None:
        if self.mute:
            return
        if isinstance(request, Settle):
            self._note(request)
            if self.settling:
                self.answer(Settled(request.seq, 1, 0))
        elif isinstance(request, Beat):
            self.answer(Beaten(request.seq, self.drop))
        elif isinstance(request, Functions):
            self.answer(Ok(request.seq))
        self.requests.append(request)

    def _note(self, request: Settle) -> None:
        for outcome in request.outcomes:
            self.runs.append(outcome)
            items = batch.unpack(outcome.block, outcome.count) if outcome.block else [b""] * outcome.count
            for index, item in enumerate(items, start=outcome.first):
                value: Any = None
                if outcome.kind == "completed":
                    value = values.loads(item)
                elif item:
                    value = messages.decode_failure(item)
                self.outcomes.setdefault(index, []).append((outcome.kind, value))

    # ------------------------------------------------------------ what tests say

    def answer(self, reply: Reply) -> None:
        with contextlib.suppress(OSError):
            self._send(messages.encode(reply))

    def notice(self, kind: Any, *leases: int) -> None:
        self.answer(Notice(0, kind, list(leases)))

    def next(self, kind: type[R]) -> R:
        """Wait for the next request of a kind that was not taken yet."""

        def look() -> Any:
            for place, request in enumerate(list(self.requests)):
                if isinstance(request, kind) and place not in self.places:
                    self.places.append(place)
                    return request
            return None

        found: R = eventually(look, f"a {kind.__name__} among {self.requests[-5:]}")
        return found

    def grant(self, *grants: Grant) -> None:
        """Answer the worker's request for tasks."""
        self.answer(Leased(self.next(Lease).seq, list(grants)))

    def serve(self, grants: list[Grant]) -> None:
        """Answer request after request with one grant each, in a thread."""

        def run() -> None:
            for grant in grants:
                self.grant(grant)

        threading.Thread(target=run, daemon=True).start()

    def settled(self, *indices: int) -> dict[int, tuple[str, Any]]:
        """Wait until these have an outcome, and no other has; fails if one has two."""
        wanted = set(indices)
        eventually(lambda: wanted <= set(self.outcomes), f"outcomes of {indices}, there are {self.outcomes}")
        assert set(self.outcomes) == wanted
        assert all(len(each) == 1 for each in self.outcomes.values()), self.outcomes
        return {index: each[0] for index, each in self.outcomes.items()}

    def begin(self) -> int:
        """Wait for the worker to ask whether it may begin a suspect, and allow it; returns the lease."""
        request = self.next(Begin)
        self.answer(Ok(request.seq))
        return request.lease

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class Worker:
    """A worker's process, with a tasks folder of its own."""

    def __init__(self, folder: Path, port: int, before: tuple[str, ...] = (), **settings: object) -> None:
        self.folder = folder
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
        environ |= {
            "TASKYARD_ADDRESS": f"127.0.0.1:{port}", "TASKYARD_AUTHKEY": KEY,
            "TASKYARD_TASKS_DIR": str(folder),
            **{f"TASKYARD_{name.upper()}": str(value) for name, value in settings.items()},
        }  # fmt: skip
        self._out = (folder.parent / "worker.out").open("wb")
        self._err = (folder.parent / "worker.err").open("wb")
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "taskyard_worker"],
            env=environ,
            stdout=self._out,
            stderr=self._err,
        )

    @property
    def out(self) -> str:
        return (self.folder.parent / "worker.out").read_text()

    @property
    def err(self) -> str:
        return (self.folder.parent / "worker.err").read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def code(self, seconds: float = 20.0) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


class Master:
    """Listens, and starts workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self.port = self._listener.getsockname()[1]
        self._connections: list[Connection] = []
        self._workers: list[Worker] = []

    def worker(self, source: str, before: tuple[str, ...] = (), **settings: object) -> Worker:
        """Start a worker whose folder has one module, `tasks`; `before`: what its command begins with."""
        tasks = self._folder / "tasks"
        tasks.mkdir(exist_ok=True)
        (tasks / "tasks.py").write_text(source)
        worker = Worker(tasks, self.port, before, **settings)
        self._workers.append(worker)
        return worker

    def join(self) -> Connection:
        """Wait for a worker to connect and say hello; it waits for its welcome."""
        sock, _ = self._listener.accept()
        sock.settimeout(60)
        connection = Connection(sock)
        self._connections.append(connection)
        return connection

    def away(self) -> None:
        """Stop listening; `back` listens at the same port again."""
        self._listener.close()

    def back(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(20)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for worker in self._workers:
            worker.stop()
        self._listener.close()


@contextlib.contextmanager
def scripted(folder: Path) -> Iterator[Master]:
    master = Master(folder)
    try:
        yield master
    finally:
        master.close()


def grant(lease: int, first: int, inputs: list[Any], *, job: str = "job", function: str = "tasks:work",
          timeout: float = 0.0, suspect: bool = False) -> Grant:  # fmt: skip
    block = batch.pack([values.dumps(value) for value in inputs])
    return Grant(lease, job, function, first, len(inputs), timeout, suspect, block)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
