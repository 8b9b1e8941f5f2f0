"""The comparison: the same kills against the tutorials' master lose tasks, so they are kills that matter."""

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from lab import free_port
from rig import HERE, many, note
from tutorial import connect

from taskyard_ctl.chaos.oracle import Report

SECONDS = many(6, 12)
TASKS = 50 * SECONDS


def test_the_tutorials_master_loses_tasks(tmp_path: Path) -> None:  # noqa: C901 - a whole small world
    port = free_port()

    def start(role: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, str(HERE / "tutorial.py"), role, str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    processes = {"master": start("master"), **{f"worker-{n}": start("worker") for n in range(4)}}
    over = threading.Event()
    accepted: set[int] = set()
    completed: Counter[int] = Counter()
    faults: Counter[str] = Counter()

    def submit() -> None:
        """In a thread of its own, as a connection that has failed fails in its thread for ever."""
        task = connect(port).get_task()
        for n in range(len(accepted), TASKS):
            if over.wait(SECONDS / TASKS):
                return
            task.put((n, 0.02))
            accepted.add(n)

    def read() -> None:
        result = connect(port).get_result()
        while True:
            completed[result.get(True, 3)] += 1

    threads: dict[str, threading.Thread] = {}

    def look() -> None:
        for name, process in processes.items():
            if process.poll() is not None:
                processes[name] = start(name.partition("-")[0])
        for name, work in (("submit", submit), ("read", read)):
            if (name not in threads or not threads[name].is_alive()) and not over.is_set():
                threads[name] = threading.Thread(target=quietly, args=(work,), daemon=True)
                threads[name].start()

    draw = random.Random(4)
    pause = threading.Event()
    try:
        for tick in range(SECONDS * 20):
            look()
            if tick % 10 == 9:
                processes[f"worker-{draw.randrange(4)}"].kill()
                faults["worker killed"] += 1
            if tick == SECONDS * 10:
                processes["master"].kill()
                faults["master killed"] += 1
            pause.wait(0.05)
        over.set()
        last = -1
        while last != completed.total():
            last = completed.total()
            for name in processes:
                if processes[name].poll() is not None:
                    processes[name] = start(name.partition("-")[0])
            pause.wait(1.0)  # nothing says when it has come to rest
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.wait()
    lost = len(accepted - set(completed))
    report = Report(seed=4, attempted=TASKS, accepted=len(accepted), completed=len(set(completed) & accepted))
    report.lost, report.faults = lost, dict(faults)
    note(report)
    assert len(accepted) > 100, "it has worked"
    assert lost > 0, "the tutorials' master lost nothing: then the kills of these tests prove nothing"


def quietly(work: "object") -> None:
    try:
        work()  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - whatever a dead master makes of it, another thread goes on
        return
