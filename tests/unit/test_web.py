"""The dashboard's inside: who is let in, how much is told of a huge yard, metrics, history. No sockets."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from taskyard.messages import Ending, JobStatus, MasterStatus, Retrying, Running, StatusReply, WorkerStatus
from taskyard_master.control import Control
from taskyard_master.web import metrics, views
from taskyard_master.web.guard import Guard
from taskyard_master.web.history import JOBS, History, Totals
from taskyard_master.web.logring import LogRing

TOKEN = "a-token-for-tests"
Reply = tuple[int, dict[str, str], bytes]


def guard(token: str = TOKEN, hosts: tuple[str, ...] = ("127.0.0.1", "[::1]", "yard.example")) -> Guard:
    """A guard in front of an app that answers everything with its path."""

    async def app(
        scope: MutableMapping[str, Any], receive: object, send: Callable[..., Awaitable[None]]
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    return Guard(app, token, hosts)


def ask(
    to: Guard, path: str = "/", method: str = "GET", host: str = "127.0.0.1:8585", **headers: str
) -> Reply:
    """One request; header names with _ for -."""
    path, _, query = path.partition("?")
    fields = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(to(scope, lambda: None, send))  # type: ignore[arg-type,return-value]
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], got, sent[1]["body"]


# ---------------------------------------------------------------- who is let in


def test_without_the_token_nothing_but_health_and_login() -> None:
    for path in ("/", "/api/overview", "/api/events", "/metrics", "/static/app.js", "/api/jobs/x/cancel"):
        status, headers, body = ask(guard(), path)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN.encode() not in body
    for path in ("/healthz", "/readyz", "/login", "/static/style.css"):
        assert ask(guard(), path)[0] == 200


def test_a_program_shows_the_token_each_time() -> None:
    assert ask(guard(), "/metrics", authorization=f"Bearer {TOKEN}")[0] == 200
    for wrong in ("Bearer ", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
        assert ask(guard(), "/metrics", authorization=wrong)[0] == 401


def test_a_browser_shows_it_once_and_keeps_a_cookie_that_is_not_the_token() -> None:
    status, headers, _ = ask(guard(), f"/?token={TOKEN}&x=1")
    assert (status, headers["location"]) == (303, "/?x=1")
    cookie = headers["set-cookie"]
    assert TOKEN not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert ask(guard(), cookie=cookie.partition(";")[0])[0] == 200
    assert ask(guard("another-token"), cookie=cookie.partition(";")[0])[0] == 401
    for wrong in ("taskyard=", "taskyard=x", "other=1", "\xff", f"taskyard={TOKEN}"):
        assert ask(guard(), cookie=wrong)[0] == 401
    assert ask(guard(), "/?token=wrong")[0] == 401


def test_a_person_is_sent_to_the_form() -> None:
    status, headers, _ = ask(guard(), accept="text/html,*/*")
    assert (status, headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:1", 200), ("[::1]:8585", 200), ("Yard.Example:80", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("evil.example:127.0.0.1", 421), ("", 421),
        ("127.0.0.1@evil.example", 421),
    ],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(host: str, status: int) -> None:
    """A page of a stranger that points its own name at this machine (DNS rebinding) comes with that name."""
    assert ask(guard(), host=host, authorization=f"Bearer {TOKEN}")[0] == status
    assert ask(guard(), "/healthz", host=host)[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8585"}, 200),
        ({"origin": "http://127.0.0.1:8585", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_a_change_comes_from_the_own_page(headers: dict[str, str], status: int) -> None:
    known = {"authorization": f"Bearer {TOKEN}", **headers}
    assert ask(guard(), "/api/jobs/x/cancel", "POST", **known)[0] == status


def test_every_answer_carries_the_headers_that_keep_pages_apart() -> None:
    for path, host in (("/", "127.0.0.1"), ("/healthz", "127.0.0.1"), ("/", "evil.example")):
        headers = ask(guard(), path, host=host)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


# ---------------------------------------------------------------- a huge yard


def a_job(number: int, **values: Any) -> JobStatus:
    base: dict[str, Any] = {
        "id": f"{number:012x}", "name": f"job {number}", "function": f"work:f{number % 200}",
        "state": "closed", "total": 10_000, "ready": 0, "leased": 0, "delayed": 0, "suspect": 0,
        "completed": 10_000, "dead": 0, "cancelled": 0, "retries": 3, "seconds": 2.5,
        "created": float(number), "ended": 1.0, "priority": 0,
        "note": "", "error": "",
    }  # fmt: skip
    return JobStatus(**{**base, **values})


def a_worker(number: int) -> WorkerStatus:
    running = [Running(slot, f"{slot:012x}", number, 0.0) for slot in range(32)]
    return WorkerStatus(
        id=f"worker-{number}", host=f"host-{number % 300}", pid=1, container="c" * 64, state="running",
        slots=32, running=running, leased=100, completed=5, failed=0, joined=0.0, seen=0.0, version="1",
        python="3", digest="d", functions=[f"work:f{n}" for n in range(500)], memory=1 << 20,
    )  # fmt: skip


def a_yard(jobs: int, workers: int) -> StatusReply:
    master = MasterStatus(
        address="a", pid=1, version="1", python="3", started=0.0, boot=1, web="", journal="j",
        journal_bytes=1, memory=1, connections=workers, warnings=[],
    )  # fmt: skip
    return StatusReply(0, master, [a_job(n) for n in range(jobs)], [a_worker(n) for n in range(workers)])


@pytest.fixture(scope="module")
def huge() -> StatusReply:
    """A thousand jobs of ten thousand tasks, a thousand workers of 32 slots that all are busy."""
    yard = a_yard(1000, 1000)
    yard.jobs[3] = a_job(3, completed=4000, ready=5900, leased=100)
    yard.jobs[5] = a_job(5, dead=7, completed=9993, error="ValueError: no")
    return yard


def a_history() -> History:
    history = History()
    for second in range(1000):
        history.sample(float(second), Totals(completed=second * 1_000_000, backlog=7))
    for number in range(9000):
        history.committed(
            Ending(f"{number:012x}", 0, 100, "completed", 0, 1, f"worker-{number % 1000}", "h", 1.0, 0.5, 2.0)
        )
    return history


def test_the_stream_is_small_and_quick_however_large_the_yard(huge: StatusReply) -> None:
    history = a_history()
    began = time.process_time()
    frame = json.dumps(views.overview(huge, history, 5))
    assert time.process_time() - began < 0.5
    assert len(frame) < 8_000
    seen = json.loads(frame)
    assert (seen["workers"], seen["slots"], seen["busy"]) == (1000, 32_000, 32_000)
    assert seen["completed"] == 1000 * 10_000 - 6000 - 7
    assert seen["jobs"][0]["id"] == huge.jobs[3].id  # what is unfinished comes first
    assert seen["rate"] == 1_000_000


def test_every_page_is_bounded(huge: StatusReply) -> None:
    history = a_history()
    assert len(json.dumps(views.jobs(huge, history, "", "", 0))) < 60_000
    assert len(json.dumps(views.workers(huge, "", "", 0))) < 120_000
    timeline = views.timeline(huge, history, 0)
    assert len(timeline["runs"]) == 4000 and len(timeline["running"]) == views.RUNNING
    assert len(json.dumps(timeline)) < 600_000
    assert views.timeline(huge, history, timeline["noted"])["runs"] == []
    assert len(views.timeline(huge, history, timeline["noted"] - 3)["runs"]) == 3
    assert len(views.timeline(huge, history, 10**15)["runs"]) == 0  # of a master before this one


def test_jobs_are_found_by_words_state_and_page(huge: StatusReply) -> None:
    history = History()

    def found(search: str = "", state: str = "", offset: int = 0) -> list[str]:
        return [job["name"] for job in views.jobs(huge, history, search, state, offset)["jobs"]]

    assert found()[:2] == ["job 3", "job 999"]
    assert found(search="JOB 77")[0] == "job 977"
    assert "job 5" in found(search="work:f5 job", offset=50)
    assert found(state="unfinished") == ["job 3"]
    assert found(state="failed") == ["job 5"]
    assert found(search="nothing like it") == []
    assert len(found(offset=950)) == 50 == len(found(offset=10**9))


def test_workers_by_host(huge: StatusReply) -> None:
    seen = views.workers(huge, "", "host-7", 0)
    assert {worker["host"] for worker in seen["workers"]} == {"host-7"} and seen["found"] == 4
    assert len(seen["hosts"]) == views.HOSTS
    assert seen["hosts"][0]["busy"] == seen["hosts"][0]["slots"]
    assert len(seen["workers"][0]["running"]) == views.SLOTS
    assert seen["names"]["000000000003"] == ["job 3", "work:f3"]


# ---------------------------------------------------------------- history, log, metrics


def test_rates_of_a_job_and_of_all() -> None:
    history = History()
    assert history.rate() == 0 and history.rate_of("a") == 0
    history.sample(1.0, Totals(completed=100))
    history.sample(2.0, Totals(completed=150))
    history.sample(3.0, Totals())  # its job was deleted
    assert [sample.completed for sample in history.samples] == [0, 50, 0]
    history.committed(Ending("a", 0, 40, "completed", 0, 1, "w", "h", 1.0, 0.5, 2.0))
    history.committed(Ending("a", 40, 2, "dead", 0, 3, "", "", 0.0, 0.0, 2.0))
    assert history.rate_of("a") >= 21  # 42 within a second, or two
    history.committed(Retrying("a", 60, 1, 1, 9.0, "w", 0.25))
    assert [run.state for run in history.runs] == ["completed", "retried"]
    for number in range(JOBS + 10):
        history.committed(Ending(f"j{number}", 0, 1, "completed", 0, 1, "w", "h", 1.0, 0.5, 2.0))
    assert history.rate_of("a") == 0 and history.rate_of(f"j{JOBS + 9}") > 0


def test_the_log_is_filtered_and_bounded() -> None:
    import logging

    ring = LogRing()
    logger = logging.getLogger("test-web")
    for number in range(1500):
        record = logger.makeRecord(
            "x", logging.INFO, "", 0, f"line {number} of w-{number % 2}", (), None,
            extra={"event": "e", "fields": {"job": "j1"} if number == 1499 else {}},
        )  # fmt: skip
        ring.emit(record)
    assert ring.last == 1500 and len(ring.lines) == 1000
    assert len(ring.after(0)) == 200
    assert {line["n"] for line in ring.after(1490, worker="w-0")} == {1491, 1493, 1495, 1497, 1499}
    assert [line["n"] for line in ring.after(0, job="j1")] == [1500]


def test_what_tasks_print_is_in_the_log_and_pushes_nothing_out() -> None:
    import logging

    ring = LogRing()
    record = logging.getLogger("test-web").makeRecord("x", logging.INFO, "", 0, "the master begins", (), None)
    ring.emit(record)
    for number in range(3000):
        ring.said("w-1", [(f"abc/{number}", "x" * 10_000)])
    ring.said("w-2", [("def/7", "hello"), ("slot 3", "between tasks")] * 100)
    assert next(line["text"] for line in ring.after(0, most=5000)) == "the master begins"
    assert len(ring.prints) == 1000 and len(ring.prints[0]["text"]) == 300
    newest = ring.after(0, job="def")
    assert len(newest) == 10 and {(line["worker"], line["task"]) for line in newest} == {("w-2", "def/7")}
    assert [line["job"] for line in ring.after(ring.last - 1, worker="w-2")] == [""]


def test_a_look_asks_once_for_each_function_who_can_run_it(huge: StatusReply) -> None:
    """And not once for each job: there may be thousands of both."""
    asked: list[str] = []
    waiting = [msgspec.structs.replace(job, ready=5, note="") for job in huge.jobs]
    by_id = {job.id: job for job in waiting}

    def able(function: str) -> int:
        asked.append(function)
        return 0

    fake = SimpleNamespace(
        _ledger=SimpleNamespace(jobs=lambda: list(by_id), status=by_id.__getitem__),
        _roster=SimpleNamespace(by_boot={}, able=able, joined=1), master=lambda: huge.master,
    )  # fmt: skip
    fake._noted = partial(Control._noted, fake)
    seen = Control.overview(fake)  # type: ignore[arg-type]
    assert [job.note for job in seen.jobs] == [f"no joined worker can run {job.function}" for job in waiting]
    assert sorted(asked) == sorted({job.function for job in waiting}) and len(asked) < len(waiting)


def test_metrics_have_bounded_labels(huge: StatusReply) -> None:
    control = SimpleNamespace(overview=lambda: huge)
    service = SimpleNamespace(control=control, journal=SimpleNamespace(commits=5))
    text = metrics.render(service).decode()  # type: ignore[arg-type]
    functions = re.findall(r'taskyard_worker_seconds_total\{function="([^"]+)"\}', text)
    assert len(functions) == metrics.FUNCTIONS + 1 and functions[-1] == "other"
    assert "worker-1" not in text and huge.jobs[0].id not in text
    assert 'taskyard_slots{state="busy"} 32000.0' in text
    assert len(text) < 20_000
