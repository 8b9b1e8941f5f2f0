"""The dashboard of a real master over HTTP: pages, JSON, the stream, actions, metrics, health."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, free_port, running_lab
from support import eventually

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with running_lab(folder, workers=1, web=f"127.0.0.1:{free_port()}", web_token=TOKEN) as lab:
        yield lab


def fetch(lab: Lab, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    """Status, and the body: JSON as data, else text."""
    fields = {"Authorization": f"Bearer {TOKEN}", **headers}
    request = urllib.request.Request(
        f"http://{lab.environ['TASKYARD_WEB']}{path}", method=method, headers=fields
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            status, kind, text = reply.status, reply.headers["content-type"], reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, kind, text = error.code, error.headers["content-type"], error.read().decode()
    return status, json.loads(text) if "json" in kind else text


def test_the_pages_and_what_they_are_made_of(lab: Lab) -> None:
    for path in ("/", "/login", "/static/app.js", "/static/style.css"):
        status, text = fetch(lab, path)
        assert status == 200 and text
    assert fetch(lab, "/static/../app.py")[0] == 404
    assert fetch(lab, "/nothing")[0] == 404


def test_json_of_jobs_workers_and_timeline(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("squares:square", [1, 2, "three"], name="mixed", max_attempts=1)
        job.wait(20)
    status, seen = fetch(lab, f"/api/jobs/{job.id}")
    assert status == 200
    assert (seen["job"]["completed"], seen["job"]["dead"]) == (2, 1)
    [failed] = seen["failed"]
    assert (failed["index"], failed["type"]) == (2, "TypeError") and "square" in failed["traceback"]
    assert [found["name"] for found in fetch(lab, "/api/jobs?search=mixed")[1]["jobs"]] == ["mixed"]
    assert fetch(lab, "/api/jobs?offset=minus&state=odd")[1]["jobs"] == []
    [worker] = fetch(lab, "/api/workers")[1]["workers"]
    assert worker["completed"] >= 2
    runs = fetch(lab, "/api/timeline")[1]["runs"]
    assert {run[0] for run in runs if run[1] == job.id} == {worker["id"]}
    assert fetch(lab, "/api/overview")[1]["completed"] >= 2
    assert fetch(lab, f"/api/log?worker={worker['id']}")[1]["lines"]


def test_cancel_and_requeue(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("squares:square", ["x"], name="failing", max_attempts=1)
        job.wait(20)
        assert fetch(lab, f"/api/jobs/{job.id}/requeue", "POST") == (200, {"done": True, "tasks": 1})
        job.wait(20)
        assert job.status().dead == 1
        waits = yard.submit("nobody:has_it", [1], name="waits")
        assert fetch(lab, f"/api/jobs/{waits.id}/cancel", "POST") == (200, {"done": True})
        assert waits.status().state == "cancelled"
    status, answer = fetch(lab, "/api/jobs/none/cancel", "POST")
    assert status == 404 and "no job 'none'" in answer["error"]


def test_nothing_is_changed_by_a_get_or_by_a_strangers_page(lab: Lab) -> None:
    with lab.yard() as yard:
        job = yard.submit("nobody:has_it", [1], name="stays")
        for verb in ("cancel", "requeue"):
            assert fetch(lab, f"/api/jobs/{job.id}/{verb}")[0] == 405
            assert fetch(lab, f"/api/jobs/{job.id}/{verb}", "POST", Origin="http://evil.example")[0] == 403
            assert fetch(lab, f"/api/jobs/{job.id}/{verb}", "POST", Authorization="Bearer x")[0] == 401
        assert job.status().ready == 1
        job.cancel()


def test_the_stream_sends_one_frame_at_once_and_others_as_time_goes(lab: Lab) -> None:
    host, port = lab.environ["TASKYARD_WEB"].split(":")
    with socket.create_connection((host, int(port)), 10) as peer, peer.makefile("rb") as lines:
        peer.sendall(
            f"GET /api/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        frames = []
        while len(frames) < 3:
            line = lines.readline()
            if line.startswith(b"data: "):
                frames.append(json.loads(line[6:]))
    assert frames[2]["at"] > frames[0]["at"] - 1
    assert len(frames[1]["samples"]) <= 5


def test_metrics_and_health(lab: Lab) -> None:
    status, text = fetch(lab, "/metrics")
    assert status == 200
    assert 'taskyard_workers{state="idle"} 1.0' in text
    assert fetch(lab, "/healthz", Authorization="") == (200, "ok\n")
    assert fetch(lab, "/readyz", Authorization="") == (200, "ready\n")


def test_not_ready_when_nothing_is_accepted(tmp_path: Path) -> None:
    web = f"127.0.0.1:{free_port()}"
    with running_lab(tmp_path, web=web, reserve=str(1 << 60)) as lab:
        status, text = eventually(lambda: fetch(lab, "/readyz"))
        assert status == 503 and "TASKYARD_RESERVE" in text
        assert fetch(lab, "/healthz") == (200, "ok\n")


def test_open_to_others_only_with_a_token(tmp_path: Path) -> None:
    with running_lab(tmp_path, web=f"0.0.0.0:{free_port()}") as lab:
        assert lab.status().master.web == ""
        assert "set TASKYARD_WEB_TOKEN" in lab.output()


def test_an_address_in_use_costs_the_dashboard_only(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), running_lab(tmp_path, web=f"127.0.0.1:{port}") as lab:
        assert lab.status().master.web == ""
        assert "no dashboard: cannot listen" in lab.output()
