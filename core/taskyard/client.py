"""The yard from Python: submit work, follow it, read its results.

with Yard.from_env() as yard:
    job = yard.submit("squares:square", range(10_000_000))
    for outcome in job.results(follow=True):
        ...
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, overload

import taskyard
from taskyard import messages as m
from taskyard.allow import Allow
from taskyard.connection import PATIENCE, Connection
from taskyard.errors import TaskyardError, UnknownJobError, UsageError
from taskyard.feeding import feed
from taskyard.function_names import function_name
from taskyard.job import Job
from taskyard.settings import Settings
from taskyard.submitter import Submitter
from taskyard.values import LIMIT

if TYPE_CHECKING:
    import ssl as ssl_module

R = TypeVar("R")

RENEW = 900.0  # seconds between signs of life of open jobs: a quarter of TASKYARD_ABANDON


class Yard:
    """A yard, by one connection that reconnects; safe for use by many threads.

    Requests wait for the master through its restarts. Raises UnreachableError if the first
    connection does not come about within `patience` seconds, or, where `reconnect` is given, if a
    lost one is not back within that many; RefusedError if the master does not let us in.
    """

    def __init__(
        self,
        address: str,
        authkey: bytes | str,
        *,
        ssl: "ssl_module.SSLContext | Callable[[], ssl_module.SSLContext] | None" = None,
        label: str = "client",
        patience: float = PATIENCE,
        reconnect: float | None = None,
        allow: Iterable[str | type] = (),
        payload: int = LIMIT,
        frame: int = 16 << 20,
        renew: float = RENEW,
    ) -> None:
        self.label = label
        self.allow = Allow(allow)  # classes of results besides the harmless ones, see `allow`
        self.payload = payload  # bytes that a task's arguments may take
        self._boot = os.urandom(8).hex()
        self._renew = renew
        self._open: set[Submitter] = set()
        self._lock = threading.Lock()
        self._beating = False
        self._closed = threading.Event()
        self.connection = Connection(
            address, authkey.encode() if isinstance(authkey, str) else authkey, self._hello,
            tls=ssl, patience=patience, reconnect=reconnect, frame_limit=frame,
        )  # fmt: skip
        self.connection.start()

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        label: str = "client",
        patience: float = PATIENCE,
        reconnect: float | None = None,
        allow: Iterable[str | type] = (),
    ) -> Self:
        """The yard of the environment's TASKYARD_* settings; raises SettingsError, too."""
        return cls.from_settings(
            Settings.from_env(environ), label=label, patience=patience, reconnect=reconnect, allow=allow
        )

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        label: str = "client",
        patience: float = PATIENCE,
        reconnect: float | None = None,
        allow: Iterable[str | type] = (),
    ) -> Self:
        """The yard of these settings; `allow` comes on top of theirs."""
        context = None
        if settings.tls:
            from taskyard.tls import following

            context = following(settings)
        return cls(
            settings.address, settings.authkey, ssl=context, label=label, patience=patience,
            reconnect=reconnect, allow=(*settings.allow, *allow), payload=settings.payload,
            frame=settings.frame, renew=settings.abandon / 4,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Jobs go on; one that is still open is closed by the master in time."""
        self._closed.set()
        self.connection.close()

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def trouble(self) -> str:
        """Why there is no connection at the moment, for people; "" while there is one."""
        return self.connection.trouble

    # ------------------------------------------------------------ requests

    @overload
    def call(self, request: m.Request, kind: type[R], timeout: float | None = None) -> R: ...
    @overload
    def call(self, request: m.Request, kind: None = None, timeout: float | None = None) -> m.Reply: ...
    def call(self, request: m.Request, kind: Any = None, timeout: float | None = None) -> Any:
        """Send a request and return its reply, of that kind if given; raises what the master raises."""
        return self.connection.ask(request, kind or m.Struct, timeout)

    def status(self, job: str = "") -> m.StatusReply:
        """Master, jobs and workers; `job` (id, name or start of an id) leaves out the other jobs."""
        return self.call(m.Status(0, job), m.StatusReply)

    def job(self, name: str) -> Job:
        """A job by its id, its name or the start of its id; UnknownJobError, or UsageError if several are."""
        if not name:  # for the master that is every job
            raise UnknownJobError("no job has an empty name: give an id, see 'taskyard status'")
        return Job(self, self.status(name).jobs[0].id)

    def cancel(self, job: str) -> None:
        """End everything unfinished of a job, for good."""
        self.call(m.Cancel(0, job), m.Ok)

    def requeue(self, job: str, first: int = 0, count: int = -1) -> int:
        """Give a job's dead tasks another round; returns how many."""
        return self.call(m.Requeue(0, job, first, count), m.Settled).accepted

    def delete(self, job: str) -> None:
        """Forget a job, its tasks and its results."""
        pending = self.connection.send(m.Delete(0, job))
        try:
            pending.wait()
        except UnknownJobError:
            if pending.sent == 1:
                raise  # else the first one did it, and its answer was lost

    def drain(self, worker: str, undo: bool = False) -> None:
        """Have a worker lease nothing new and finish what it holds."""
        self.call(m.Drain(0, worker, undo), m.Ok)

    def backup(self, path: str | os.PathLike[str]) -> int:
        """Write a copy of the journal to `path`, and return its size in bytes.

        The file is there when it is complete, or not at all.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                size = self._copy(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return size

    def _copy(self, file: BinaryIO) -> int:
        offset, size = 0, 1
        source: tuple[int, int] | None = None
        while offset < size:
            reply = self.call(m.Backup(0, offset), m.BackupPart)
            welcome = self.connection.welcome
            copy = (welcome.master.boot if welcome else 0, reply.size)
            if source not in (None, copy):  # a master that has restarted makes another one
                file.seek(0)
                file.truncate()
                offset, size, source = 0, 1, None
                continue
            source, size, offset = copy, reply.size, reply.offset
            file.write(reply.data)
        return size

    # ------------------------------------------------------------ submitting

    def submit(
        self,
        function: str | Callable[..., Any],
        inputs: Iterable[Any],
        *,
        name: str = "",
        job: str | None = None,
        max_attempts: int = 3,
        timeout: float = 0.0,
        priority: int = 0,
        retention: float | None = None,
        calls: bool = False,
    ) -> Job:
        """Make a job of one task for each input, and return it once all are accepted.

        function   "module:function", or a function at the top of a module of the tasks folder
        inputs     anything that can be iterated over, lazily: it may be longer than memory holds, and
                   tasks run while it is still being read. With `calls` each is (args, kwargs), else
                   the function's one argument
        job        an id to come back to: submitted again, tasks that the job has already are skipped
        timeout    seconds that a task may run, 0 = no limit; retention: seconds that results are
                   kept after the end, 0 = for ever, None = the usual week

        Raises FunctionError, PayloadError for an input that does not travel, StorageError, and what
        `inputs` raises; the job is closed as incomplete then, with the reason in its status.
        """
        if isinstance(inputs, str | bytes):
            raise UsageError("the inputs are one text: put it into a list, or its lines")
        options = m.Options(max_attempts=max_attempts, timeout=timeout, priority=priority)
        if retention is not None:
            options.retention = retention
        submitter = self._open_job(function, name, job, options)
        try:
            feed(submitter, inputs, calls, self.payload)
            submitter.close()
        except Exception as error:
            submitter.abandon(f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            submitter.abandon("the submission was interrupted", keep=False)
            raise
        return Job(self, submitter.job, submitter.workers)

    def open(
        self,
        function: str | Callable[..., Any],
        *,
        name: str = "",
        job: str | None = None,
        options: m.Options | None = None,
    ) -> Submitter:
        """Open a job whose tasks come one by one; a `function` of "" lets each payload name its own.

        It is there when this returns, so its results can be followed at once.
        """
        submitter = self._open_job(function, name, job, options or m.Options())
        submitter.opened()
        return submitter

    def _open_job(
        self, function: str | Callable[..., Any], name: str, job: str | None, options: m.Options
    ) -> Submitter:
        request = m.Open(
            0, job or os.urandom(6).hex(), name, function_name(function), options,
            f"job {job}" if job else self._boot,
        )  # fmt: skip
        submitter = Submitter(self.connection, request, fresh=not job, ended=self._forget)
        with self._lock:
            self._open.add(submitter)
            if not self._beating and self._renew > 0:
                self._beating = True
                threading.Thread(target=self._beat, name="taskyard renew", daemon=True).start()
        return submitter

    # ------------------------------------------------------------ inside

    def _hello(self) -> m.Hello:
        return m.Hello(
            0, "client", self.label, socket.gethostname(), os.getpid(), self._boot,
            taskyard.__version__, sys.version.split()[0],
        )  # fmt: skip

    def _forget(self, submitter: Submitter) -> None:
        with self._lock:
            self._open.discard(submitter)

    def _beat(self) -> None:
        """Tell the master now and then that open jobs still have somebody."""
        while not self._closed.wait(self._renew):
            with self._lock:
                jobs = [submitter.job for submitter in self._open]
            with suppress(TaskyardError):
                for job in jobs:
                    self.connection.send(m.Renew(0, job))
