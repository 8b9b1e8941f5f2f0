"""One connection to the master that stays: requests pipeline, and survive its end and the master's.

One thread does all reading and whatever sending does not go through at once. A request is answered
by the reply with its number, in any order. When the connection drops, the thread dials again, for
ever unless told otherwise, and sends what has no answer yet once more, in order: all verbs of the
wire can be repeated without harm.

Nobody blocks in a send. A master that sends us much stops reading until we read on, and if the
thread that reads stood in a send at that moment, both would wait for ever.
"""

import contextlib
import logging
import os
import random
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from taskyard import backoff, log, messages
from taskyard.clock import Deadline
from taskyard.dial import NoYardError, Wire, dial
from taskyard.errors import ProtocolError, RefusedError, TaskyardError, UnreachableError, UsageError
from taskyard.messages import Fail, Hello, Notice, Request, Welcome
from taskyard.pending import Pending

if TYPE_CHECKING:
    import ssl

_log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that the first connection may take
_JOIN_SECONDS = 1.0  # for the thread to end by itself; it may stand in an attempt to connect

R = TypeVar("R")


class Connection:
    """A connection that reconnects; safe for use by many threads.

    hello      makes the first message of each connection
    tls        the context to dial with, or what gives it, asked each time
    patience   seconds for the first connection, within `start`
    reconnect  seconds that a lost connection may stay so, None = for ever; after that, or when
               the master refuses us, everything raises why
    notice     is called with what the master says unasked, and
    welcomed   with the answer to each hello; both in the reading thread
    """

    def __init__(
        self,
        address: str,
        authkey: bytes,
        hello: Callable[[], Hello],
        *,
        tls: "ssl.SSLContext | Callable[[], ssl.SSLContext] | None" = None,
        patience: float = PATIENCE,
        reconnect: float | None = None,
        frame_limit: int = 16 << 20,
        notice: Callable[[Notice], None] | None = None,
        welcomed: Callable[[Welcome], None] | None = None,
    ) -> None:
        self.address = address
        self.welcome: Welcome | None = None  # the answer to the latest hello
        self.trouble = ""  # why there is no connection at the moment, for people; "" when there is one
        self._authkey = authkey
        self._hello = hello
        self._tls = tls
        self._patience = patience
        self._reconnect = reconnect
        self._frame_limit = frame_limit
        self._notice = notice
        self._welcomed = welcomed
        self._lock = threading.Lock()  # held for moments only, never while anything blocks
        self._seq = 0
        self._unanswered: dict[int, Pending] = {}  # in the order of sending
        self._output: deque[memoryview] = deque()
        self._wire: Wire | None = None
        self._ended: TaskyardError | None = None  # why there will be no connection any more
        self._process = os.getpid()
        self._started = threading.Event()
        self._closing = threading.Event()
        self._asleep, self._alarm = socket.socketpair()
        self._asleep.setblocking(False)
        self._alarm.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"taskyard {address}", daemon=True)

    # ------------------------------------------------------------ of callers

    def start(self) -> None:
        """Connect; raises UnreachableError after `patience` seconds, RefusedError at once."""
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C while waiting
            self.close()
            raise
        if self._ended is not None:
            raise self._ended

    def send(self, request: Request, callback: Callable[[Pending], None] | None = None) -> Pending:
        """Send a request; its number is set here. `callback` runs in the reading thread and must be quick."""
        with self._lock:
            if self._ended is not None:
                raise type(self._ended)(*self._ended.args) from self._ended
            if self._process != os.getpid():
                raise UsageError("this connection belongs to the parent process: connect again after a fork")
            self._seq += 1
            request.seq = self._seq
            pending = Pending(request.seq, messages.encode(request), callback)
            self._unanswered[request.seq] = pending
            if self._wire is not None:
                idle = not self._output
                self._queue(self._wire, pending)
                if idle and not self._flush(self._wire):
                    self._wake()
        return pending

    def ask(self, request: Request, kind: type[R], timeout: float | None = None) -> R:
        """Send a request and return its reply; raises the error that the master names.

        After `timeout` seconds without a reply, an UnreachableError; the request is forgotten.
        """
        pending = self.send(request)
        try:
            reply = pending.wait(timeout)
        except BaseException:
            self.forget(pending)
            raise
        if reply is None:
            self.forget(pending)
            raise UnreachableError(
                f"no answer from the master at {self.address} within {timeout:g} s:"
                f" {self.trouble or 'it is connected, see its log'}"
            )
        if not isinstance(reply, kind):
            raise ProtocolError(f"the master answered {type(request).__name__} with {type(reply).__name__}")
        return reply

    def forget(self, pending: Pending) -> None:
        """Don't send this request again; its answer, should it come, is dropped."""
        with self._lock:
            self._unanswered.pop(pending.seq, None)

    def close(self) -> None:
        """End the connection; whoever still waits gets an UnreachableError. May be called again."""
        self._closing.set()
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)
        self._end(UnreachableError(f"the connection to {self.address} was closed here"))

    # ------------------------------------------------------------ of the thread

    def _run(self) -> None:
        try:
            deadline = Deadline.after(self._patience)
            while True:
                wire = self._dial(deadline)
                if self._closing.is_set():
                    wire.close()
                    return
                self._started.set()
                try:
                    self._serve(wire)
                except (OSError, EOFError, ProtocolError) as error:
                    self.trouble = f"the connection to the master at {self.address} was lost"
                    log.event(
                        _log, "connection-lost", f"{self.trouble} ({error or 'it ended'}): dialling again"
                    )
                finally:
                    with self._lock:
                        self._wire = None
                        self._output.clear()
                    wire.close()
                if self._closing.is_set():
                    return
                deadline = Deadline.after(self._reconnect)
        except TaskyardError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever for a thread that is gone
            _log.exception("the connection to %s ends by a fault of its own", self.address)
            self._end(TaskyardError(f"internal error in the connection to {self.address}: {error!r}"))
        finally:
            self._started.set()

    def _dial(self, deadline: Deadline) -> Wire:
        """Dial until it works; raises what can't be helped, or the last trouble once the deadline passed."""
        pauses = backoff.delays(iter(random.random, None))
        while True:
            try:
                wire, welcome = dial(
                    self.address, self._authkey, self._hello(), deadline,
                    tls=self._tls() if callable(self._tls) else self._tls, frame_limit=self._frame_limit,
                )  # fmt: skip
            except (RefusedError, NoYardError):
                raise
            except TaskyardError as error:  # a master that starts or stops says so, and not as Unreachable
                self.trouble = str(error)
                pause = min(next(pauses), deadline.left())
                if self._closing.wait(pause) or deadline.passed:
                    raise
                continue
            if self.trouble:
                log.event(_log, "connection-back", f"connected to the master at {self.address}")
            self.trouble = ""
            self.welcome = welcome
            if self._welcomed is not None:
                self._welcomed(welcome)
            return wire

    def _serve(self, wire: Wire) -> None:
        """Read replies until the connection ends, which raises, or `close` is called."""
        wire.sock.setblocking(False)
        with self._lock:
            self._wire = wire
            for pending in self._unanswered.values():
                self._queue(wire, pending)
        self._receive(wire.framer.feed(b""))  # what came right behind the welcome
        poll = select.poll()
        poll.register(wire.sock, select.POLLIN)
        poll.register(self._asleep, select.POLLIN)
        watched = select.POLLIN
        asleep = self._asleep.fileno()
        while True:
            if self._output:
                with self._lock:
                    self._flush(wire)
            wanted = select.POLLIN | (select.POLLOUT if self._output else 0)
            if wanted != watched:
                poll.modify(wire.sock, wanted)
                watched = wanted
            for descriptor, events in poll.poll():
                if descriptor == asleep:
                    with contextlib.suppress(BlockingIOError):
                        while self._asleep.recv(64):
                            pass
                    if self._closing.is_set():
                        return
                elif events & ~select.POLLOUT:
                    with contextlib.suppress(BlockingIOError):
                        self._receive(wire.read())
                    if wire.pipe is not None:
                        self._answer_tls(wire)

    def _receive(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            try:
                reply = messages.decode_reply(frame)
            except msgspec.MsgspecError as error:
                raise NoYardError(
                    f"the master at {self.address} sent what is no message: give both sides one version"
                    f" of taskyard ({error})"
                ) from error
            if isinstance(reply, Notice):
                if self._notice is not None:
                    self._notice(reply)
                continue
            if isinstance(reply, Fail) and reply.error == UnreachableError.__name__:
                continue  # the master is stopping: asked again once it is back
            pending = self._unanswered.pop(reply.seq, None)
            if pending is not None:
                pending.settle(reply)

    def _answer_tls(self, wire: Wire) -> None:
        """Reading may make TLS want to say something, such as its new keys."""
        with self._lock:
            due = wire.seal_nothing()
            if due:
                self._output.append(memoryview(due))

    def _queue(self, wire: Wire, pending: Pending) -> None:
        pending.sent += 1
        self._output.append(memoryview(wire.seal(pending.frame)))

    def _flush(self, wire: Wire) -> bool:
        """Send what can be sent now, with the lock held; False if something is left.

        Errors are for the reading thread to find: it is the one that can do something about them.
        """
        output = self._output
        while output:
            try:
                sent = wire.sock.send(output[0])
            except OSError:
                return False
            if sent == len(output[0]):
                output.popleft()
            else:
                output[0] = output[0][sent:]
        return True

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._alarm.send(b"\0")

    def _end(self, error: TaskyardError) -> None:
        """No connection any more: everybody who waits gets the error, and so does who comes later."""
        with self._lock:
            if self._ended is not None:
                return
            self._ended = error
            left = list(self._unanswered.values())
            self._unanswered.clear()
        self._asleep.close()
        self._alarm.close()
        for pending in left:
            pending.settle(None, error)
