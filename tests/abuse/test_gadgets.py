"""Code in pickles, with the right key, at every place of either dialect: none of it runs, anywhere.

The master is a real process whose audit hook sees what it does; a worker and a client of a yard are there
too, since some of what is sent is meant for them. The control is the tutorial's own master.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from figures import Figures
from gadgets import as_text, encoded, gadgets, pickled
from lab import Lab
from strangers import Stranger
from support import eventually

from taskyard import Yard, batch, messages, plain
from taskyard.errors import PayloadError, TaskFailed
from taskyard.messages import GREETING, Failure, Hello, Outcome

pytestmark = pytest.mark.timeout(300)


class AuditedLab(Lab):
    """One whose master runs under the hook."""

    def __init__(self, folder: Path, *words: str) -> None:
        super().__init__(folder)
        room = folder / "room"
        room.mkdir()
        self.words = words
        self.audit_log = folder / "audit.log"
        self.environ |= {
            "TASKYARD_JOURNAL": str(room / "journal.db"),
            "AUDIT_LOG": str(self.audit_log),
            "AUDIT_ROOM": str(room),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }

    def start_audited(self) -> None:
        with (self.folder / "audited.log").open("wb") as output:
            self.master = subprocess.Popen(
                [sys.executable, "-m", "audited", *self.words], env=self.environ, cwd=self.folder,
                stdout=output, stderr=output,
            )  # fmt: skip
        eventually(self._armed, "the hook is armed")

    def _armed(self) -> bool:
        assert self.master and self.master.poll() is None, self.output()
        return "armed" in self.seen()

    def seen(self) -> list[str]:
        """What the hook saw."""
        return self.audit_log.read_text().splitlines() if self.audit_log.exists() else []


@contextmanager
def audited(folder: Path, *words: str) -> Iterator[AuditedLab]:
    folder.mkdir()
    lab = AuditedLab(folder, *words)
    try:
        lab.start_audited()
        yield lab
    finally:
        lab.stop()


def request(*parts: Any) -> bytes:
    """A request of four parts; a part that is bytes is opcodes, anything else is data."""
    return pickled(b"(" + b"".join(p if isinstance(p, bytes) else encoded(p) for p in parts) + b"t")


# Where a first request may hold it, and where a call on a connection for calls may.
FIRST: dict[str, Callable[[bytes], bytes]] = {
    "all of it": pickled,
    "ignored": lambda it: request(it, "dummy", (), {}),
    "function": lambda it: request(None, it, (), {}),
    "args": lambda it: request(None, "create", it, {}),
    "an arg": lambda it: request(None, "create", b"(" + encoded("get_task") + it + b"t", {}),
    "typeid": lambda it: request(None, "create", b"(" + it + b"t", {}),
    "kwds": lambda it: request(None, "create", ("get_task",), it),
    "a kwd": lambda it: request(None, "create", ("get_task",), b"}(" + encoded("x") + it + b"u"),
    "a key": lambda it: request(None, "create", ("get_task",), b"}(" + it + b"Nu"),
    "incref's token": lambda it: request(None, "incref", b"(" + it + b"t", {}),
    "decref's token": lambda it: request(None, "decref", b"(" + it + b"t", {}),
    "the thread's name": lambda it: request(None, "accept_connection", b"(" + it + b"t", {}),
}
CALLS: dict[str, Callable[[bytes], bytes]] = {
    "all of it": pickled,
    "id": lambda it: request(it, "put", (1,), {}),
    "method": lambda it: request("get_task", it, (1,), {}),
    "args": lambda it: request("get_task", "put", it, {}),
    "a task": lambda it: request("get_task", "put", b"(" + it + b"t", {}),
    "within a task": lambda it: request("get_task", "put", b"(](" + encoded({"a": 1}) + it + b"et", {}),
    "a result": lambda it: request("get_result", "put", b"(" + it + b"t", {}),
    "kwds": lambda it: request("get_task", "put", (1,), it),
    "a timeout": lambda it: request("get_task", "get", (), b"}(" + encoded("timeout") + it + b"u"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gadgets")


@pytest.fixture(scope="module")
def ammunition(folder: Path) -> dict[str, bytes]:
    """Gadgets of which each does its work on this machine where a pickle is simply loaded."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "gadgets", folder], env=environ, check=True, capture_output=True, text=True
    )
    made = gadgets(folder / "canary")
    live = {name: made[name] for name in done.stdout.splitlines()}
    assert len(live) >= 100, done.stderr
    return live


def canary(folder: Path) -> bool:
    return os.path.lexists(folder / "canary")


def refused(peer: Stranger) -> bool:
    """What comes back is an error or the end; whether the connection goes on."""
    reply = peer.read()
    if reply is None:
        return False
    kind = plain.loads(reply)[0]
    assert kind in ("#ERROR", "#TRACEBACK"), reply
    return True


def test_the_tutorials_master_runs_them(folder: Path, ammunition: dict[str, bytes], figures: Figures) -> None:
    """The control: the first that comes is run, by anybody who holds the key, and the hook sees it."""
    with audited(folder / "stdlib", "stdlib") as lab:
        for place, make in list(FIRST.items())[:4]:
            with Stranger(lab).prove() as peer:
                peer.send(make(ammunition["os.system _text"]))
                peer.read()
            eventually(lambda: canary(folder), place)
            (folder / "canary").unlink()
        assert any(line.startswith("pickle.find_class") for line in lab.seen())
        assert any(line.startswith("os.system") for line in lab.seen())
    figures.add("gadgets, the tutorial's master (control)", places=4, canaries=4)


def test_a_yard_runs_none_of_them(folder: Path, ammunition: dict[str, bytes], figures: Figures) -> None:
    sent = 0
    with audited(folder / "yard") as lab:
        lab.start_workers(1)
        with lab.yard() as yard:
            honest = yard.submit("squares:square", range(5000))
            with Stranger(lab) as peer:  # in the handshake already, where the standard library reads nothing
                peer.read()
                peer.send(pickled(ammunition["os.system _text"]))
                assert peer.read() is None
            for make in FIRST.values():
                for gadget in ammunition.values():
                    with Stranger(lab).prove() as peer:
                        peer.send(make(gadget))
                        assert not refused(peer)
                    sent += 1
            for make in CALLS.values():
                peer = Stranger(lab).for_calls()
                for gadget in ammunition.values():
                    peer.send(make(gadget))
                    if not refused(peer):
                        peer.sock.close()
                        peer = Stranger(lab).for_calls()
                    sent += 1
                peer.sock.close()
            assert not canary(folder)
            sent += in_frames_of_the_yard(lab, list(ammunition.values()), as_text(folder / "canary"))
            sent += in_values_of_the_yard(lab, yard, list(ammunition.values()))
            assert not canary(folder)
            assert list(honest.values()) == [n * n for n in range(5000)]
        assert lab.seen() == ["armed"]
        assert "Traceback" not in lab.output()
    figures.add(
        "gadgets, ours", payloads=len(ammunition), places=len(FIRST) + len(CALLS) + 5, sent=sent, canaries=0,
        audit_events=0,
    )  # fmt: skip


def in_frames_of_the_yard(lab: Lab, ammunition: list[bytes], text: str) -> int:
    """In place of the hello, in place of a message, and as every text in either."""
    for gadget in ammunition:
        with Stranger(lab).prove() as peer:
            peer.send(GREETING + pickled(gadget))
            assert peer.read() is None
        with Stranger(lab).prove() as peer:
            peer.greet()
            peer.send(pickled(gadget))
            assert peer.read() is None
    greeting = Hello(0, "worker", text, text, 1, text, text, text, 1, text, 1, [text], text)
    asked: list[Any] = [
        messages.Open(1, text, text, text, messages.Options(), text),
        messages.Status(2, text),
        messages.Functions(3, [text], text),
        messages.Results(4, text),
        messages.Lease(5, 1, {text: 1}),
        messages.Beat(6, [1], [messages.Running(0, text, 0, 0.0)]),
        messages.Close(7, text, 0, text),
        messages.Delete(8, text),
        messages.Drain(9, text),
    ]
    with Stranger(lab).prove() as peer:
        peer.send(GREETING + messages.encode(greeting))
        peer.reply()
        for request in asked:
            peer.send(messages.encode(request))
        due = {request.seq for request in asked} - {5}  # there is nothing to lease
        while due:
            due.discard(peer.reply().seq)
    return 2 * len(ammunition) + len(asked) + 1


def unfinished(job: messages.JobStatus) -> int:
    return job.ready + job.leased + job.delayed + job.suspect


def in_values_of_the_yard(lab: Lab, yard: Yard, ammunition: list[bytes]) -> int:
    """As tasks for an honest worker, and as outcomes and errors of a hostile one for an honest client."""
    values = [pickled(gadget) for gadget in ammunition]
    block = batch.pack(values)
    with Stranger(lab).prove() as peer:
        peer.greet("submitter")
        options = messages.Options(max_attempts=1)
        for job in ("tasks", "outcomes", "errors"):
            function = "squares:square" if job == "tasks" else "theirs:function"
            opened = peer.ask(messages.Open(1, job, job, function, options, "s"))
            assert opened.next == 0, opened
            chunk = messages.Chunk(2, job, 0, len(values), batch.digest(block), block)
            assert peer.ask(chunk).next == len(values)
            peer.ask(messages.Close(3, job, len(values)))
        status = yard.job("tasks").wait(60)
        assert (status.dead, status.completed) == (len(values), 0)
    raised = [Failure("raised", "builtins.ValueError", "x", exception=it) for it in values]
    failures = batch.pack([msgspec.msgpack.encode(failure) for failure in raised])
    with Stranger(lab).prove() as peer:
        functions = ["theirs:function"]
        hostile = Hello(0, "worker", "hostile", "h", 1, "hostile", "0", "3", slots=1, functions=functions)
        peer.send(GREETING + messages.encode(hostile))
        peer.reply()
        while unfinished(yard.job("outcomes").status()) or unfinished(yard.job("errors").status()):
            for grant in peer.ask(messages.Lease(1, len(values))).grants:
                kind, source = ("completed", block) if grant.job == "outcomes" else ("failed", failures)
                part = batch.cut(source, len(values), grant.first, grant.first + grant.count)
                held = (grant.lease, grant.job, grant.first, grant.count)
                assert (
                    peer.ask(messages.Settle(2, [Outcome(*held, kind, 1.0, 1.0, part)])).accepted == held[3]
                )
    for job, kind in (("outcomes", PayloadError), ("errors", TaskFailed)):
        found = list(yard.job(job).results())
        assert len(found) == len(values)
        assert {type(outcome.exception) for outcome in found} == {kind}
    return 3 * len(values)
