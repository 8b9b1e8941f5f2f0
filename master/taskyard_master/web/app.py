"""Routes of the dashboard: pages, JSON, the stream, metrics, health."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taskyard.errors import TaskyardError, UnknownJobError
from taskyard.messages import Cancel, Hello, Requeue
from taskyard_master.service import Service
from taskyard_master.web import metrics, views
from taskyard_master.web.guard import Guard
from taskyard_master.web.history import History, Totals
from taskyard_master.web.logring import LogRing

STATIC = Path(__file__).with_name("static")
EVERY = 1.0  # seconds between two looks at the yard
NEW_SAMPLES = 5  # in each frame of the stream: more than one, as a frame may come late
WRONG = '<p role="alert" class="bad">That is not the token.</p>'
LONGEST_WORD = 200  # characters of a search
LONGEST_FORM = 4096  # bytes of a form


class Nobody:
    """The peer that the dashboard is for the service."""

    id: str = "dashboard"
    address: str = "dashboard"
    hello: Hello | None = None

    def notify(self, notice: object) -> None:
        """Nobody listens."""

    def close(self, reason: str) -> None:
        """There is no connection to close."""


class Dashboard:
    """The app and what it looks at; `run` samples the yard until it is cancelled."""

    def __init__(self, service: Service, log: LogRing) -> None:
        self._service = service
        self._log = log
        self.history = History()
        service.commits.observers.append(self.history.committed)
        self._tick = asyncio.Event()  # replaced each second: all viewers wait for the same one
        self._frame = b""  # the overview of this second, encoded once for all viewers
        self._viewers = 0

    def app(self, token: str, hosts: set[str]) -> Guard:
        """The whole app behind its guard."""
        routes = [
            Route("/", self._page),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/api/overview", self._overview),
            Route("/api/events", self._events),
            Route("/api/jobs", self._jobs),
            Route("/api/workers", self._workers),
            Route("/api/timeline", self._timeline),
            Route("/api/log", self._logs),
            Route("/api/jobs/{job}", self._job),
            Route("/api/jobs/{job}/cancel", self._cancel, methods=["POST"]),
            Route("/api/jobs/{job}/requeue", self._requeue, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        self._guard = Guard(
            Starlette(routes=routes, exception_handlers={TaskyardError: _fault}), token, hosts
        )
        return self._guard

    async def run(self) -> None:
        """Look at the yard once a second; encode what is seen only while somebody watches."""
        while True:
            status = self._service.control.overview()
            self.history.sample(time.time(), Totals.of(status.jobs))
            if self._viewers:
                self._frame = _event(views.overview(status, self.history, NEW_SAMPLES))
            tick, self._tick = self._tick, asyncio.Event()
            tick.set()
            await asyncio.sleep(EVERY)

    # ------------------------------------------------------------ looking

    async def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _overview(self, request: Request) -> Response:
        return JSONResponse(views.overview(self._service.control.overview(), self.history))

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        self._viewers += 1
        try:
            yield _event(views.overview(self._service.control.overview(), self.history))
            while True:
                await self._tick.wait()
                yield self._frame
        finally:
            self._viewers -= 1

    async def _job(self, request: Request) -> Response:
        return JSONResponse(views.job(self._service, self.history, request.path_params["job"]))

    async def _jobs(self, request: Request) -> Response:
        search, state = (request.query_params.get(name, "")[:LONGEST_WORD] for name in ("search", "state"))
        offset = _number(request, "offset")
        return JSONResponse(views.jobs(self._service.control.overview(), self.history, search, state, offset))

    async def _workers(self, request: Request) -> Response:
        search, host = (request.query_params.get(name, "")[:LONGEST_WORD] for name in ("search", "host"))
        offset = _number(request, "offset")
        return JSONResponse(views.workers(self._service.control.overview(), search, host, offset))

    async def _timeline(self, request: Request) -> Response:
        after = _number(request, "after")
        return JSONResponse(views.timeline(self._service.control.overview(), self.history, after))

    async def _logs(self, request: Request) -> Response:
        query = request.query_params
        job = query.get("job", "")
        with contextlib.suppress(TaskyardError):  # the log knows jobs by their ids
            job = self._service.ledger.find(job) if job else ""
        lines = self._log.after(_number(request, "after"), worker=query.get("worker", ""), job=job)
        return JSONResponse({"lines": lines, "last": self._log.last})

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(metrics.render(self._service), media_type="text/plain; version=0.0.4")

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        trouble = self._service.trouble()
        return PlainTextResponse(
            f"{trouble}\n" if trouble else "ready\n", status_code=503 if trouble else 200
        )

    # ------------------------------------------------------------ acting

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(STATIC / "login.html")
        body = await _short_body(request)
        token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        if not self._guard.is_token(token):
            form = (STATIC / "login.html").read_text().replace("<!--WRONG-->", WRONG)
            return HTMLResponse(form, status_code=403)
        return Response(status_code=303, headers={"location": "/", "set-cookie": self._guard.set_cookie()})

    async def _cancel(self, request: Request) -> Response:
        await self._service.handle(Nobody(), Cancel(0, request.path_params["job"]))
        return JSONResponse({"done": True})

    async def _requeue(self, request: Request) -> Response:
        reply: Any = await self._service.handle(Nobody(), Requeue(0, request.path_params["job"]))
        return JSONResponse({"done": True, "tasks": reply.accepted})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _number(request: Request, name: str) -> int:
    given = request.query_params.get(name, "0")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0


async def _short_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            return b""
    return body


async def _fault(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, UnknownJobError) else 409
    return JSONResponse({"error": str(error)}, status_code=status)
