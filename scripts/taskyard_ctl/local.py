"""The engine without containers: master and workers are processes under a small supervisor."""

import contextlib
import hashlib
import heapq
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskyard import environment
from taskyard.errors import EngineError, StorageError
from taskyard_ctl.interface import Line, Member, Say
from taskyard_ctl.logfiles import STAMP, SUFFIX, Tail, sources
from taskyard_ctl.ports import check_free
from taskyard_ctl.supervisor import LOGS, MASTER_GRACE_S, Spec
from taskyard_ctl.yard import YardFolder

SOCKET_PATH_MAX = 100  # bytes; the kernel's limit is 104 to 108
POLL_S = 0.1  # of growing log files
_WORDS = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z +(error|critical|warning|info) +")


class LocalEngine:
    """Talks to the supervisor of this yard's folder, or starts it."""

    name = "local"
    containers = False

    def __init__(
        self, folder: YardFolder, master: list[str] | None = None, worker: list[str] | None = None
    ) -> None:
        python = [sys.executable, "-P", "-m"]  # -P: a module in the yard's folder must not hide ours
        self._folder = folder
        self._master = master or [*python, "taskyard_master"]
        self._worker = worker or [*python, "taskyard_worker"]
        self._logs = folder.state / LOGS

    # ------------------------------------------------------------ the verbs

    def check(self) -> None:
        """Nothing is needed."""

    def running(self) -> bool:
        return self._ask("state") is not None

    def members(self) -> list[Member]:
        return [
            Member(child["name"], child["role"], child["state"], child["pid"], restarts=child["restarts"])
            for child in self._children()
        ]

    def up(self, workers: int, say: Say) -> None:
        self._folder.make_state()
        home = self._folder.environments
        environment.prune(home)
        environment.python_for(Path(self._folder.basics.tasks_dir), home, say)
        check_free(*self._folder.basics.endpoint)
        spec = Spec(
            folder=str(self._folder.path),
            state=str(self._folder.state),
            socket=str(self._socket()),
            master=self._master,
            worker=self._worker,
            workers=workers,
            grace=self._folder.basics.drain + MASTER_GRACE_S,
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "taskyard_ctl.supervisor"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self._folder.child_environ() | {"TASKYARD_ENVIRONMENTS": str(home)}, start_new_session=True,
        )  # fmt: skip
        try:
            _start(process, spec)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = 0  # it outlives us on purpose

    def fault(self) -> str:
        children = self._children()
        if not children:
            return f"the supervisor is gone; {self._folder.state / 'supervisor.log'} says why"
        for child in children:
            if child["quick"] >= 2:
                words = self._last_words(child["name"]) or f"exit code {child['exit']}"
                return f"the {child['name']} does not start: {words}"
        return ""

    def grow(self, workers: int) -> None:
        there = sum(child["role"] == "worker" for child in self._children())
        self._order("add", count=max(0, workers - there))

    def remove(self, member: Member, grace: float) -> None:
        self._order("remove", name=member.name, grace=grace)

    def down(self, grace: float, say: Say) -> None:
        if self._ask("stop", grace=grace) is None:
            return
        deadline = time.monotonic() + 2.0
        while self._socket().exists() and time.monotonic() < deadline:
            time.sleep(0.005)  # it has answered and is about to end

    def destroy(self, volumes: bool, say: Say) -> None:
        state = self._folder.state
        journal = Path(self._folder.basics.journal)
        kept = {journal.with_name(journal.name + end) for end in ("", "-wal", "-shm", "-journal")}
        kept |= {state / ".gitignore"}
        for path in sorted(state.iterdir()) if state.is_dir() else []:
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if volumes:
            for path in kept:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                state.rmdir()  # unless something else is in it

    def restore(self, file: Path) -> str:
        command = [sys.executable, "-P", "-m", "taskyard_master.restore", str(file)]
        done = subprocess.run(command, env=self._folder.child_environ(), capture_output=True, text=True)
        if done.returncode:
            raise StorageError(done.stderr.strip().splitlines()[-1])
        return done.stdout.strip()

    def lines(self, since: str, follow: bool) -> Iterator[Line]:
        tails = {path: Tail(path) for path in sources(self._logs)}
        past = [_parsed(path.name.removesuffix(SUFFIX), tail, since) for path, tail in tails.items()]
        yield from heapq.merge(*past, key=lambda line: line.stamp)
        while follow:
            for path in sources(self._logs):
                if path not in tails:
                    tails[path] = Tail(path)
            new = [
                _line(path.name.removesuffix(SUFFIX), raw)
                for path, tail in tails.items()
                for raw in tail.lines()
            ]
            yield from sorted(new, key=lambda line: line.stamp)
            if not new:
                time.sleep(POLL_S)

    # ------------------------------------------------------------ the supervisor

    def _children(self) -> list[dict[str, Any]]:
        answer = self._ask("state")
        return list(answer["children"]) if answer else []

    def _order(self, verb: str, **content: Any) -> dict[str, Any]:
        answer = self._ask(verb, **content)
        if answer is None:
            raise EngineError(f"no yard runs in {self._folder.path}: start one with 'taskyard up --local'")
        return answer

    def _ask(self, verb: str, **content: Any) -> dict[str, Any] | None:
        """The supervisor's answer, which may take as long as what was ordered; None if there is none."""
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(self._socket()))
            except OSError:
                return None
            peer.sendall(json.dumps({"verb": verb, **content}).encode() + b"\n")
            with peer.makefile("rb") as lines:
                answer = lines.readline()
        if not answer:
            raise EngineError(f"the supervisor ended; {self._folder.state / 'supervisor.log'} says why")
        result: dict[str, Any] = json.loads(answer)
        if "error" in result:
            raise EngineError(result["error"])
        return result

    def _socket(self) -> Path:
        """Beside the rest of the state; in a folder with a long path, in a private one with a short path."""
        path = self._folder.state / "supervisor.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        private = base / f"taskyard-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        if private.lstat().st_uid != os.getuid() or private.is_symlink():
            raise EngineError(f"{private} belongs to somebody else: set XDG_RUNTIME_DIR to a folder of yours")
        return private / f"{hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()}.sock"

    def _last_words(self, name: str) -> str:
        try:
            tail = (self._logs / f"{name}{SUFFIX}").read_bytes()[-4096:].decode(errors="replace")
        except OSError:
            return ""
        lines = [line[STAMP:].strip() for line in tail.splitlines()]
        return next((_WORDS.sub("", line) for line in reversed(lines) if line), "")


def _start(process: "subprocess.Popen[bytes]", spec: Spec) -> None:
    """Tell a new supervisor what to run, and wait until it begins; raises EngineError with its words."""
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(spec.dump())
        process.stdin.close()
        answer = process.stdout.readline().decode().strip()
        if answer != "ok":
            lines = [answer, *process.stdout.read().decode().strip().splitlines()]
            raise EngineError(f"the supervisor did not start: {lines[-1] or 'it said nothing'}")


def _parsed(source: str, tail: Tail, since: str) -> Iterator[Line]:
    for raws in (tail.past(), tail.lines()):
        yield from (line for raw in raws if (line := _line(source, raw)).stamp >= since)


def _line(source: str, raw: bytes) -> Line:
    text = raw.decode(errors="replace")
    return Line(stamp=text[:STAMP], source=source, container="", text=text[STAMP + 1 :])
