"""The queues of `managers.BaseManager`: proxies of them, and what a script says of its own ones."""

import queue
from collections.abc import Callable
from multiprocessing import managers
from typing import Any

from taskyard.errors import UsageError
from taskyard.settings import REGISTRY

METHODS = ("empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "task_done")
BROKEN = (EOFError, ConnectionError)
_NAMES = {
    setting.name: frozenset(setting.parse(setting.default))
    for setting in REGISTRY
    if setting.name in ("PLAIN_TASKS", "PLAIN_RESULTS")
}


class QueueProxy(managers.BaseProxy):
    """A queue of the master; in the script that started it, calls wait through its restarts."""

    _exposed_ = METHODS

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: dict[Any, Any] = {}) -> Any:  # noqa: B006
        manager: Any = getattr(self, "_manager", None)
        if manager is None:  # a proxy that was sent to another process
            return self._once(methodname, args, kwds)
        return manager._patiently(lambda: self._once(methodname, args, kwds))

    def _once(self, methodname: str, args: tuple[Any, ...], kwds: dict[Any, Any]) -> Any:
        try:
            return super()._callmethod(methodname, args, kwds)
        except BROKEN:
            tls: Any = self._tls  # type: ignore[attr-defined]
            broken = tls.__dict__.pop("connection", None)  # the next call makes a new one
            if broken is not None:
                broken.close()
            raise


def _method(name: str) -> Callable[..., Any]:
    def call(self: QueueProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    call.__name__ = name
    return call


for _name in METHODS:
    setattr(QueueProxy, _name, _method(_name))


def kinds(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the task queue and of the result queue."""
    tasks: list[str] = []
    results: list[str] = []
    for name, made in found.items():
        if not all(hasattr(made, method) for method in ("put", "get", "qsize")):
            raise UsageError(
                f"{name} is a {type(made).__name__}: a yard has queues only; keep other things in a manager"
                " of the standard library"
            )
        result = name in _NAMES["PLAIN_RESULTS"] or (
            name not in _NAMES["PLAIN_TASKS"] and "result" in name.lower()
        )
        kind = results if result else tasks
        if kind and found[kind[0]] is not made:
            raise UsageError(
                f"{kind[0]} and {name} would be one queue: a yard has one queue for tasks and one for results"
                ' (those with "result" in the name); give each further pair a manager of its own'
            )
        kind.append(name)
    if not found:
        raise UsageError("nothing to serve: register a queue with callable=... before the manager starts")
    return tasks, results


def maxsize(made: Any) -> int:
    """How much the script's own queue would hold; 0 is no bound, and so is what cannot be read."""
    for name in ("maxsize", "_maxsize"):
        size = getattr(made, name, None)
        if isinstance(size, int):
            return size if 0 < size < 1 << 31 else 0
    return 0


def left(made: Any) -> list[Any]:
    """Take out what the script had put in before the manager started."""
    items = []
    if isinstance(made, queue.Queue):
        while True:
            try:
                items.append(made.get_nowait())
            except queue.Empty:
                break
    return items
