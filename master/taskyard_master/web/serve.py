"""uvicorn in the master's own event loop; what fails here never ends the master."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import uvicorn

from taskyard.log import event
from taskyard.settings import Settings, split_address
from taskyard_master.service import Service
from taskyard_master.web.app import Dashboard
from taskyard_master.web.logring import LogRing

log = logging.getLogger(__name__)

LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
OWN = ("127.0.0.1", "localhost", "::1")  # addresses that only this machine reaches
ANY = ("0.0.0.0", "::")  # in a container, where it is published on 127.0.0.1


class _Server(uvicorn.Server):
    """uvicorn, whose signals are the master's business."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def dashboard(service: Service, settings: Settings) -> AsyncIterator[None]:
    """Serve the dashboard while the master runs, if WEB says where; else nothing."""
    if not settings.web:
        yield
        return
    host, port = split_address(settings.web)
    if host not in OWN and not settings.web_token:
        text = f"no dashboard: TASKYARD_WEB {settings.web} is open to others, so set TASKYARD_WEB_TOKEN"
        event(log, "dashboard-off", text, logging.INFO if host in ANY else logging.WARNING)
        yield
        return
    ring = LogRing()
    logging.getLogger().addHandler(ring)
    service.working.hearers.append(ring.said)
    board = Dashboard(service, ring)
    hosts = LOCAL | ({host} if host not in ANY else set()) | set(settings.web_hosts)
    config = uvicorn.Config(
        board.app(settings.web_token, set(hosts)),
        log_config=None, access_log=False, lifespan="off", server_header=False, date_header=False,
        timeout_graceful_shutdown=1, ws="none",
    )  # fmt: skip
    server = _Server(config)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # that it serves is said below
    looking = asyncio.create_task(board.run())
    serving = None
    try:
        listener = _listen(host, port)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        service.control.web = f"{host}:{listener.getsockname()[1]}"
        event(log, "dashboard", f"dashboard at http://{service.control.web}/", address=service.control.web)
    except OSError as error:
        text = f"no dashboard: cannot listen on {settings.web} (TASKYARD_WEB): {error.strerror or error}"
        event(log, "dashboard-failed", text, logging.WARNING)
    for task in (looking, serving):
        if task is not None:
            task.add_done_callback(_report)
    try:
        yield
    finally:
        looking.cancel()
        if serving is not None:
            server.should_exit = True
            await asyncio.wait({serving}, timeout=3)
        logging.getLogger().removeHandler(ring)
        service.working.hearers.remove(ring.said)


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the dashboard failed, the master goes on", exc_info=task.exception())
