"""A yard as a `concurrent.futures.Executor`: what ran on a ProcessPoolExecutor runs on every host.

with YardExecutor.from_env() as pool:
    for value in pool.map(tasks.square, range(1_000_000)):
        ...
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from taskyard.client import Yard
from taskyard.clock import Deadline
from taskyard.connection import PATIENCE
from taskyard.errors import PayloadError, TaskyardError
from taskyard.executor_engine import Engine
from taskyard.executor_map import Feed
from taskyard.executor_units import BrokenYardError, Call
from taskyard.function_names import function_name
from taskyard.messages import Options
from taskyard.values import LIMIT, call_of

if TYPE_CHECKING:
    import ssl as ssl_module

__all__ = ["BrokenYardError", "YardExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

RETENTION = 86400.0  # seconds that an executor's job can be looked at after its end


class YardExecutor(Executor):
    """Runs calls on a yard's workers; safe for use by many threads.

    Functions travel by their names: those at the top of the modules of the tasks folder, given as
    functions, as functools.partial of them, or as "module:function".

    max_workers   at most so many of its tasks are in the yard at once; None: what the slots have use for
    name          of its job, as status shows it
    max_attempts  executions of a task that raises or is killed before its future fails
    timeout       seconds that a task may run, 0 = no limit
    priority      higher first, strictly
    retention     seconds that the job can be looked at once it has ended, and at least that long each
                  result that was received before; 0 = for ever
    patience, reconnect, allow, payload
                  as for `Yard`; with `reconnect` everything fails once the master is gone for so long

    Raises UnreachableError if there is no master, RefusedError if it does not let us in.
    """

    def __init__(
        self,
        address: str,
        authkey: bytes | str,
        *,
        ssl: "ssl_module.SSLContext | None" = None,
        max_workers: int | None = None,
        name: str = "",
        max_attempts: int = 1,
        timeout: float = 0.0,
        priority: int = 0,
        retention: float = RETENTION,
        patience: float = PATIENCE,
        reconnect: float | None = None,
        allow: Iterable[str | type] = (),
        payload: int = LIMIT,
    ) -> None:
        _check(max_workers)
        yard = Yard(
            address, authkey, ssl=ssl, label="executor", patience=patience, reconnect=reconnect,
            allow=allow, payload=payload,
        )  # fmt: skip
        self._start(yard, max_workers, name, _options(max_attempts, timeout, priority, retention))

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        max_workers: int | None = None,
        name: str = "",
        max_attempts: int = 1,
        timeout: float = 0.0,
        priority: int = 0,
        retention: float = RETENTION,
        patience: float = PATIENCE,
        reconnect: float | None = None,
        allow: Iterable[str | type] = (),
    ) -> Self:
        """On the yard of the environment's TASKYARD_* settings; raises SettingsError, too."""
        _check(max_workers)
        yard = Yard.from_env(environ, label="executor", patience=patience, reconnect=reconnect, allow=allow)
        self = cls.__new__(cls)
        self._start(yard, max_workers, name, _options(max_attempts, timeout, priority, retention))
        return self

    def _start(self, yard: Yard, max_workers: int | None, name: str, options: Options) -> None:
        self._payload = yard.payload
        try:
            self._engine = Engine(yard, name or "executor", options, max_workers)
        except TaskyardError:
            yard.close()
            raise
        weakref.finalize(self, self._engine.release).atexit = False

    @property
    def job(self) -> str:
        """The id of its job, for `taskyard status`, `logs` and `cancel`."""
        return self._engine.job

    # ------------------------------------------------------------ of every executor

    def submit(self, fn: Callable[P, T] | str, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it on a worker, and return the future of what comes of it.

        Raises FunctionError for a function that a worker could not find, RuntimeError after
        `shutdown`, BrokenYardError. Arguments that do not travel are the future's exception.
        """
        function, first, keywords = _named(fn)
        try:
            call = Call(call_of(function, (*first, *args), {**keywords, **kwargs}, self._payload))
        except PayloadError as error:
            future: Future[T] = Future()
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        self._engine.add(call)
        return call.future

    def map(
        self,
        fn: Callable[..., T] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results of fn(*arguments), in order; what a task raises is raised in the place of its result.

        The inputs are read as the results are used, 32,768 ahead or `buffersize`; what is not read by
        the time of `shutdown` is read then, unless a `buffersize` was given. `chunksize` is accepted and
        ignored: tasks travel many at a time anyway. TimeoutError comes once the next result is not
        there `timeout` seconds after this call. Closing the iterator withdraws what has not been sent.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = Deadline.after(timeout)
        function, first, keywords = _named(fn)
        inputs: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        if first:
            inputs = ((*first, *row) for row in inputs)
        return Feed(self._engine, function, keywords, inputs, self._payload, buffersize).start(deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; connection and thread end once every future is done.

        wait            return then
        cancel_futures  cancel what has not been sent to the yard; what has been runs to its end
        """
        self._engine.shutdown(wait, cancel_futures)


def _options(max_attempts: int, timeout: float, priority: int, retention: float) -> Options:
    return Options(
        max_attempts=max_attempts, timeout=timeout, priority=priority, retention=retention, consume=True
    )


def _check(max_workers: int | None) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError("max_workers must be greater than 0")


def _named(fn: Callable[..., Any] | str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The name that a function travels by, and what a `partial` of it has of arguments."""
    if isinstance(fn, partial):
        name, args, kwargs = _named(fn.func)
        return name, (*args, *fn.args), {**kwargs, **fn.keywords}
    return function_name(fn), (), {}
