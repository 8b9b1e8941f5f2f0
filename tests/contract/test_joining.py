"""A machine joins by a line that is pasted there: real processes, certificates of `taskyard certs`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from lab import Lab
from support import eventually
from yardcerts import now, tls_of
from yards import TASKS, TestYard

from taskyard.clock import Deadline
from taskyard.dial import dial
from taskyard.errors import TaskyardError
from taskyard.invitation import Ticket
from taskyard.messages import Hello
from taskyard_ctl import joining
from taskyard_ctl.yard import YardFolder
from taskyard_worker.joining import _context


class Machine:
    """A folder with the yard's tasks and nothing else, in which lines are pasted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tasks").mkdir(parents=True)
        (folder / "tasks" / "work.py").write_text(TASKS)
        self.processes: list[subprocess.Popen[str]] = []

    def paste(self, line: str) -> "subprocess.Popen[str]":
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TASKYARD_")}
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        process = subprocess.Popen(
            ["sh", "-c", line.replace("python3 -m", "exec python3 -m")], cwd=self.folder, env=environ,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def refused(self, line: str) -> str:
        """Paste a line that brings nothing: the last that it says; its exit code is 4."""
        process = self.paste(line)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 4, said
        assert "Traceback" not in said
        return said.splitlines()[-1]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "far")
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Yard(TestYard):
    """A folder with the client's certificate, and a master that was started by hand with its own."""

    def __init__(self, folder: Path) -> None:
        at = folder / "certs"
        super().__init__(
            folder, TASKYARD_TLS_CA=str(at / "ca.pem"), TASKYARD_TLS_CERT=str(at / "client.pem"),
            TASKYARD_TLS_KEY=str(at / "client.key"), TASKYARD_SLOTS="1",
        )  # fmt: skip
        self.run("certs")
        key = YardFolder(folder).settings.authkey.decode()
        certs = joining.certs_of(YardFolder(folder))
        self.lab = Lab(folder, address=self.address, authkey=key, grace="1", **tls_of(certs))
        self.lab.port = int(self.address.rpartition(":")[2])
        self.lab.start_master()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "here")
    yield made
    made.lab.stop()


def ticket(yard: TestYard, *words: str) -> str:
    return yard.run("join", *words, "--process", "--address", "127.0.0.1").out.strip()


def hosts(yard: TestYard) -> list[str]:
    return [worker["host"] for worker in yard.workers() if worker["state"] in ("idle", "running")]


def test_a_line_makes_a_worker_once(yard: Yard, machine: Machine, tmp_path: Path) -> None:
    """It joins, works, comes back after kill -9 with the same line; the line works nowhere else."""
    done = yard.run("join", "desk", "--process", "--slots", "2", "--address", "127.0.0.1")
    line = done.out.strip()
    assert "\n" not in line and "good once, until" in done.err
    worker = machine.paste(line)
    eventually(lambda: hosts(yard) == ["desk"], "it joins")
    assert yard.workers()[0]["slots"] == 2
    rows = yard.run("submit", "work:square", "--range", "0:20", "--wait").rows()
    assert sorted(row["value"] for row in rows) == [n * n for n in range(20)]
    assert {row["host"] for row in rows} == {"desk"}

    folder = machine.folder / ".taskyard" / "joined"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    worker.kill()
    worker.communicate()
    machine.paste(line)
    eventually(lambda: hosts(yard) == ["desk"], "it comes back")

    other = Machine(tmp_path / "other")
    assert "it was used, or the master was started anew" in other.refused(line)


def test_who_is_revoked_is_dropped(yard: Yard, machine: Machine) -> None:
    """While it is connected, at a master that goes on running; a new ticket lets it in again."""
    worker = machine.paste(ticket(yard, "desk"))
    eventually(lambda: hosts(yard) == ["desk"], "it joins")
    started = yard.status()["master"]["started"]
    assert "revoked worker desk" in yard.run("join", "--revoke", "desk").err
    said, _ = worker.communicate(timeout=60)
    assert worker.returncode == 4, said
    eventually(lambda: not hosts(yard), "it is gone")
    machine.paste(ticket(yard, "desk"))
    eventually(lambda: hosts(yard) == ["desk"], "it is back")
    assert yard.status()["master"]["started"] == started


def test_tickets_that_are_of_no_use(yard: Yard, machine: Machine) -> None:
    """Revoked before it was used, past its hour, cut short, of a master that was started anew."""
    first = ticket(yard)
    assert "joined-1" in yard.run("join", "--revoke", "joined-1").err
    eventually(lambda: "TLS has new files" in yard.lab.output(), "the master knows")
    assert "does not take the ticket for joined-1" in machine.refused(first)
    assert "joined-9" in yard.run("join", "--revoke", "joined-9", code=2).err

    second = Ticket.read(word(ticket(yard)))
    assert second.host == "joined-2"
    early = Ticket(second.address, second.host, 0, second.ca, second.cert, second.key).text()
    assert "ended on 1970-01-01" in machine.refused(f"TASKYARD_JOIN={early} python3 -m taskyard_worker")

    # A machine whose clock is behind takes it for good; the master does not.
    certs = joining.certs_of(YardFolder(yard.folder))
    pair, _ = certs.one_use("late", now() - timedelta(hours=1), timedelta(minutes=30))
    late = joining._ticket(certs, pair, "late", second.address)
    late = Ticket(*[getattr(Ticket.read(late), name) for name in ("address", "host")], 1 << 40,
                  *[getattr(Ticket.read(late), name) for name in ("ca", "cert", "key")]).text()  # fmt: skip
    assert "its hour is over" in machine.refused(f"TASKYARD_JOIN={late} python3 -m taskyard_worker")

    third = ticket(yard)
    yard.lab.kill_master()
    yard.lab.start_master()
    assert "the master was started anew since" in machine.refused(third)

    cut = machine.paste("TASKYARD_JOIN=ty1-abc python3 -m taskyard_worker")
    said, _ = cut.communicate(timeout=60)
    assert cut.returncode == 2 and "is no whole ticket" in said


def test_a_ticket_opens_nothing_else(yard: Yard) -> None:
    """Also with the authkey: who shows it gets what is for it and is sent away, and no verb is heard."""
    shown = Ticket.read(word(ticket(yard)))
    key = YardFolder(yard.folder).settings.authkey
    hello = Hello(0, "client", "thief", "here", 1, "boot", "0", "3")
    for _ in range(2):
        with pytest.raises(TaskyardError):
            dial(shown.address, key, hello, Deadline.after(10.0), tls=_context(shown))
    assert yard.lab.output().count("joins as joined-1") == 1
    assert not hosts(yard)


def test_a_yard_that_nobody_can_join(tmp_path: Path) -> None:
    """Without TLS, at an address that only this machine can dial, by another name than the certificate's."""
    yard = TestYard(tmp_path / "plain")
    assert "over TLS, which this yard has not" in yard.run("join", "--process", code=2).err


def test_addresses(yard: Yard) -> None:
    assert "--address" in yard.run("join", "--process", code=2).err
    said = yard.run("join", "--process", "--address", "elsewhere.example", code=2).err
    assert "'taskyard certs --name elsewhere.example'" in said


def word(line: str) -> str:
    """The ticket in a line."""
    [found] = [w.partition("=")[2] for w in line.split() if w.startswith("TASKYARD_JOIN=")]
    return found


def test_sigterm_while_it_waits_for_a_master(yard: Yard, machine: Machine) -> None:
    """Ends it at once."""
    line = ticket(yard)
    yard.lab.kill_master()
    process = machine.paste(line)
    assert process.stdout is not None
    assert "waiting for the master" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
