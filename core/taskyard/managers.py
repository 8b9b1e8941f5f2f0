"""`BaseManager` for a tutorial's master script: with this one import changed, its queues are safe.

    from taskyard.managers import BaseManager        # was: from multiprocessing.managers

The script goes on as it stands: `register` its queues with a `callable`, then `start`, or
`get_server().serve_forever()`; or, for a client, `connect`. What is started is a taskyard master in a
child process, with its journal in `.taskyard/NAME-OF-THE-SCRIPT/` beside the script. It is started
again if it is killed, and the script's own proxies wait for it meanwhile.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import ProcessError, managers, util
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from taskyard.errors import UsageError
from taskyard.manager_queues import BROKEN, QueueProxy, kinds, left, maxsize
from taskyard.master_child import MasterChild
from taskyard.settings import KEY_MINIMUM

__all__ = ["BaseManager"]

R = TypeVar("R")

_STATE: Any = managers.State  # type: ignore[attr-defined]


class Server:
    """What `get_server` returns: the address, and `serve_forever`."""

    def __init__(self, manager: "BaseManager", child: MasterChild) -> None:
        self.address = manager.address
        self._manager = manager  # the master ends when it is collected
        self._child = child

    def serve_forever(self) -> NoReturn:
        """Serve until Ctrl-C or `shutdown`, then end the program, as in the standard library."""
        with suppress(KeyboardInterrupt):
            while not self._child.wait(1.0):
                pass
        self._manager.shutdown()
        sys.exit(0)


class BaseManager(managers.BaseManager):
    """As multiprocessing.managers.BaseManager, for queues, with a taskyard master for a server.

    address   (host, port); port 0 finds a free one, and None is one of this machine
    authkey   text of 16 characters or more, as bytes
    folder    where the journal is kept instead

    TASKYARD_* variables of the environment hold, but for what the script says itself.
    """

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if serializer != "pickle":
            raise UsageError(f"the serializer {serializer!r} is not spoken here: leave it out")
        key = bytes(authkey or b"")
        try:
            length = len(key.decode())
        except UnicodeDecodeError:
            length = 0
        if length < KEY_MINIMUM:
            raise UsageError(
                "the authkey is easy to guess: give the scripts of master and workers one text of"
                f" {KEY_MINIMUM} characters or more, for instance authkey={secrets.token_hex(16).encode()!r}"
            )
        if not (address is None or (isinstance(address, tuple) and len(address) == 2)):
            raise UsageError(f"address={address!r} is no (host, port): a yard listens at a TCP port")
        super().__init__(address, key, serializer, ctx)
        self._own: Any = self  # where the names of the standard library's own attributes are looked up
        self._folder = folder
        self._child: MasterChild | None = None
        self._end: Any = None

    # ------------------------------------------------------------ as in the standard library

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,  # noqa: A002
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Name a queue; `callable` returns it, or one like it, in the script that starts the manager."""
        super().register(typeid, callable, proxytype or QueueProxy, exposed, method_to_typeid, create_method)
        made: Any = cls.__dict__.get(typeid)
        if create_method:

            def create(self: "BaseManager", /, *args: Any, **kwds: Any) -> Any:
                return self._patiently(lambda: made(self, *args, **kwds))

            create.__name__ = typeid
            setattr(cls, typeid, create)

    def start(self, initializer: Any = None, initargs: Any = ()) -> None:
        """Start the master, and connect to it."""
        if initializer is not None:
            raise UsageError("an initializer has nowhere to run: the master runs no code of programs")
        self._serve()

    def get_server(self) -> "Server":  # type: ignore[override]
        """Start the master, and return what `serve_forever` and `address` are asked of."""
        return Server(self, self._serve())

    def shutdown(self) -> None:  # type: ignore[override]
        """End the master that was started here; what it was given is in its journal."""
        if self._end is None:
            raise AttributeError("shutdown: this manager has started no server")
        self._end()

    def join(self, timeout: float | None = None) -> None:
        """Return when the master that was started here is over."""
        if self._child is not None:
            self._child.wait(timeout)

    # ------------------------------------------------------------ inside

    def _serve(self) -> MasterChild:
        """Start the master, connect to it, and put in what the script had put into its own queues."""
        state = self._own._state.value
        if state == _STATE.SHUTDOWN:
            raise ProcessError("Manager has shut down")
        if state != _STATE.INITIAL:
            raise ProcessError("Already started server")
        if os.environ.get("TASKYARD_TLS_CERT"):
            raise UsageError(
                "TASKYARD_TLS_CERT is set, and scripts cannot speak TLS: unset it for them, or use"
                " 'taskyard up' with 'taskyard tunnel'"
            )
        found = {name: entry[0]() for name, entry in self._own._registry.items() if entry[0] is not None}
        tasks, results = kinds(found)
        self._own._address = _free(self._own._address)
        host, port = self._own._address
        size = next((maxsize(found[name]) for name in (*results, *tasks)), 0)
        environ = {name: value for name, value in os.environ.items() if name != "TASKYARD_AUTHKEY_FILE"} | {
            "TASKYARD_ADDRESS": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "TASKYARD_AUTHKEY": bytes(self._own._authkey).decode(),
            "TASKYARD_PLAIN_TASKS": ",".join(tasks),
            "TASKYARD_PLAIN_RESULTS": ",".join(results),
            "TASKYARD_PLAIN_MAXSIZE": str(size),
        }
        if not (tasks and results):  # one queue for all: nobody will ever give a result for what it got
            environ["TASKYARD_PLAIN_ACK"] = "get"
        self._child = child = MasterChild(environ, self._journal())
        try:
            child.start()
        except BaseException:
            self._child = None
            child.stop()
            raise
        ends = (child, self._own._state, self._own._address)
        self._end = util.Finalize(self, _ended, args=ends, exitpriority=0)
        self._patiently(self.connect)
        for name in (*tasks[:1], *results[:1]):
            for item in left(found[name]):
                getattr(self, name)().put(item)
        return child

    def _journal(self) -> Path:
        if self._folder is not None:
            return Path(self._folder).absolute() / "journal.db"
        given = os.environ.get("TASKYARD_JOURNAL")
        if given:
            return Path(given).absolute()
        script = getattr(sys.modules["__main__"], "__file__", None)
        beside, name = (
            (Path(script).resolve().parent, Path(script).stem) if script else (Path.cwd(), "manager")
        )
        return beside / ".taskyard" / name / "journal.db"

    def _patiently(self, call: Callable[[], R]) -> R:
        """Do it, again if the master that was started here had to be started again meanwhile."""
        while True:
            try:
                return call()
            except BROKEN:
                if self._child is None or not self._child.back():
                    raise


def _ended(child: MasterChild, state: Any, address: Any) -> None:
    child.stop()
    state.value = _STATE.SHUTDOWN
    local: Any = managers.BaseProxy
    local._address_to_local.pop(address, None)


def _free(address: tuple[str, int] | None) -> tuple[str, int]:
    """The address with a port where there was none; the host "" is every one."""
    host, port = address or ("127.0.0.1", 0)
    host = host or "0.0.0.0"
    if port == 0:
        with socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ) as probe:
            port = probe.getsockname()[1]
    return host, int(port)
