"""A master for tests of its clients: real sockets, frames and messages, and a memory for a journal.

It does what it is told to do wrong. `script(request)` sees each request before it is handled, and
may return a reply to send in place of the true one, or one of

    DROP_BEFORE   close the connection without doing it
    DROP_AFTER    do it, and close the connection without an answer
    SILENT        do it, and say nothing
"""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import taskyard
from taskyard import batch, messages, values
from taskyard.errors import (
    ConflictError,
    GapError,
    ProtocolError,
    RefusedError,
    TaskyardError,
    UnknownJobError,
    UsageError,
)
from taskyard.frames import Framer, ServerHandshake, encode
from taskyard.messages import GREETING, Fail, Failure, JobStatus, MasterStatus, Row, Struct

KEY = b"a key of sixteen and more"
DROP_BEFORE, DROP_AFTER, SILENT = "drop before", "drop after", "silent"
DEADLINE = 20.0  # seconds after which a test that waits has failed


class FakeJob:
    def __init__(self, request: messages.Open) -> None:
        self.opening = request
        self.next = 0
        self.chunks: list[messages.Chunk] = []
        self.rows: list[Row] = []
        self.closing: messages.Close | None = None
        self.cancelled = False
        self.renewed = 0

    @property
    def done(self) -> bool:
        over = self.cancelled or (self.closing is not None and sum(r.count for r in self.rows) >= self.next)
        return bool(over)

    def payloads(self) -> list[bytes]:
        return [value for chunk in self.chunks for value in batch.unpack(chunk.block, chunk.count)]

    def inputs(self) -> list[Any]:
        return [values.parse(payload)[1][0] for payload in self.payloads()]


class FakeMaster:
    """`run` is the function of all tasks, called as soon as they are accepted; None: they stay ready."""

    def __init__(self, run: Callable[[Any], Any] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.run = run
        self.tls = tls
        self.key = KEY
        self.script: Callable[[Struct], Any] = lambda request: None
        self.jobs: dict[str, FakeJob] = {}
        self.requests: list[Struct] = []
        self.hellos: list[messages.Hello] = []
        self.copy = os.urandom(3000)
        self.part = 1000
        self.changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._seq = 0
        self.boot = 0
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, at the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.boot += 1
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Be gone: nobody listens, and all connections end."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """End all connections."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something about this master; fail after DEADLINE."""
        with self.changed:
            assert self.changed.wait_for(reached, DEADLINE), "it did not happen"

    def seen(self, kind: type) -> list[Any]:
        with self.changed:
            return [request for request in self.requests if isinstance(request, kind)]

    def add(self, job: str, row: Row) -> None:
        """Record an outcome."""
        with self.changed:
            self._seq += 1
            row.at = self._seq
            self.jobs[job].rows.append(row)
            self.changed.notify_all()

    # ------------------------------------------------------------ connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        lock = threading.Lock()
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self._sockets.add(sock)

            def send(payload: bytes) -> None:
                with lock:
                    sock.sendall(encode(payload))

            frames = self._frames(sock, send)
            first = next(frames)
            assert first.startswith(GREETING)
            hello = messages.decode_request(first[len(GREETING) :])
            assert isinstance(hello, messages.Hello)
            with self.changed:
                self.hellos.append(hello)
                self.changed.notify_all()
            self._reply(hello, send, sock)
            for frame in frames:
                request = messages.decode_request(frame)
                if isinstance(request, messages.Results) and request.wait:
                    threading.Thread(target=self._try, args=(request, send, sock), daemon=True).start()
                else:
                    self._reply(request, send, sock)
        except (OSError, StopIteration, ProtocolError, RefusedError):
            pass
        finally:
            self._sockets.discard(sock)
            sock.close()

    def _frames(self, sock: socket.socket, send: Callable[[bytes], None]) -> Iterator[bytes]:
        handshake, framer = ServerHandshake(self.key), Framer()
        send(handshake.first())
        while data := sock.recv(1 << 16):
            for payload in framer.feed(data):
                if handshake.done:
                    yield payload
                    continue
                try:
                    replies = handshake.receive(payload)
                finally:
                    for goodbye in handshake.farewell:
                        send(goodbye)
                for reply in replies:
                    send(reply)
                if handshake.done:
                    framer.limit = 64 << 20

    def _try(self, request: Struct, send: Callable[[bytes], None], sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._reply(request, send, sock)

    def _reply(self, request: Any, send: Callable[[bytes], None], sock: socket.socket) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        order = self.script(request)
        if order == DROP_BEFORE:
            sock.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(order, Struct):
            reply: Any = order
        else:
            try:
                reply = getattr(self, f"_{type(request).__name__.lower()}")(request)
            except TaskyardError as error:
                reply = Fail(0, type(error).__name__, str(error), getattr(error, "expected", 0))
            with self.changed:
                self.changed.notify_all()
        if order == DROP_AFTER:
            sock.shutdown(socket.SHUT_RDWR)
            return
        if order != SILENT:
            reply.seq = request.seq
            send(messages.encode(reply))

    # ------------------------------------------------------------ verbs

    def _status_of_master(self) -> MasterStatus:
        return MasterStatus(self.address, 1, taskyard.__version__, "3", 0.0, self.boot, "", "", 0, 0, 1, [])

    def _hello(self, request: messages.Hello) -> Struct:
        return messages.Welcome(0, self._status_of_master(), 30.0, [])

    def _find(self, job: str) -> FakeJob:
        try:
            return self.jobs[job]
        except KeyError:
            raise UnknownJobError(f"there is no job {job}") from None

    def _open(self, request: messages.Open) -> Struct:
        if request.function == "no:function":
            raise UsageError("no worker has it")
        job = self.jobs.setdefault(request.job, FakeJob(request))
        return messages.Opened(0, request.job, job.next, 2)

    def _chunk(self, request: messages.Chunk) -> Struct:
        job = self._find(request.job)
        if request.first > job.next:
            raise GapError("a gap", job.next)
        if request.first < job.next:
            same = any(c.first == request.first and c.digest == request.digest for c in job.chunks)
            if not same:
                raise ConflictError("other tasks are there")
            return messages.Accepted(0, job.next)
        assert batch.digest(request.block) == request.digest
        with self.changed:
            job.chunks.append(request)
            job.next += request.count
        if self.run is not None:
            found = [self.run(values.parse(p)[1][0]) for p in batch.unpack(request.block, request.count)]
            block = batch.pack(values.dumps_many(found))
            self.add(
                request.job,
                Row(0, request.first, request.count, "completed", 0, 1, "w", "h", 100.0, 1.0, block),
            )
        return messages.Accepted(0, job.next)

    def _close(self, request: messages.Close) -> Struct:
        job = self._find(request.job)
        if request.total > job.next:
            raise GapError("tasks are missing", job.next)
        if request.total < job.next:
            raise ConflictError("there are more")
        job.closing = request
        return messages.Ok(0)

    def _renew(self, request: messages.Renew) -> Struct:
        self._find(request.job).renewed += 1
        return messages.Ok(0)

    def _results(self, request: messages.Results) -> Struct:
        with self.changed:
            self.changed.wait_for(
                lambda: bool(self._rows(request)) or self._find(request.job).done, request.wait
            )
            job, rows = self._find(request.job), self._rows(request)
            if request.ordered:
                cursor = rows[-1].first + rows[-1].count if rows else request.cursor
                return messages.Rows(0, rows, cursor, job.done and cursor >= job.next)
            return messages.Rows(0, rows, rows[-1].at if rows else request.cursor, job.done and not rows)

    def _rows(self, request: messages.Results) -> list[Row]:
        rows, used = [], 0
        found = [r for r in self._find(request.job).rows if not request.failed or r.state == "dead"]
        if request.ordered:
            found.sort(key=lambda row: row.first)
        for row in found:
            if (row.first if request.ordered else row.at - 1) >= request.cursor and used < request.space:
                rows.append(row)
                used += len(row.block)
        return rows

    def _status(self, request: messages.Status) -> Struct:
        ids = [self._find(request.job).opening.job] if request.job else list(self.jobs)
        return messages.StatusReply(0, self._status_of_master(), [self._job_status(i) for i in ids], [])

    def _job_status(self, name: str) -> JobStatus:
        job = self.jobs[name]
        completed = sum(row.count for row in job.rows if row.state == "completed")
        dead = sum(row.count for row in job.rows if row.state == "dead")
        state = "cancelled" if job.cancelled else "open" if job.closing is None else "closed"
        if job.closing is not None and job.closing.reason:
            state = "incomplete"
        return JobStatus(
            name, job.opening.name, job.opening.function, state, job.next, job.next - completed - dead,  # type: ignore[arg-type]
            0, 0, 0, completed, dead, 0, 0, 0.0, 0.0, 0.0, 0, job.closing.reason if job.closing else "", "",
        )  # fmt: skip

    def _cancel(self, request: messages.Cancel) -> Struct:
        self._find(request.job).cancelled = True
        return messages.Ok(0)

    def _requeue(self, request: messages.Requeue) -> Struct:
        job = self._find(request.job)
        return messages.Settled(0, sum(row.count for row in job.rows if row.state == "dead"), 0)

    def _delete(self, request: messages.Delete) -> Struct:
        self._find(request.job)
        del self.jobs[request.job]
        return messages.Ok(0)

    def _drain(self, request: messages.Drain) -> Struct:
        return messages.Ok(0)

    def _backup(self, request: messages.Backup) -> Struct:
        data = self.copy[request.offset : request.offset + self.part]
        return messages.BackupPart(0, data, request.offset + len(data), len(self.copy))


def dead_block(*failures: Failure) -> bytes:
    return batch.pack([messages.encode(failure) for failure in failures])
