"""Everything at once: kills of workers and the master, stops, a full disk, tasks that misbehave."""

import random
import signal
from pathlib import Path

from mounts import fill, tmpfs
from rig import halt, many, running_rig
from support import eventually
from test_poison import TIMEOUT, WORDS, Poisoned

from taskyard.messages import Options

STEPS = many(12, 24)
TASKS = many(800, 2000)
EACH = many(4, 20)  # tasks of each kind that misbehave


def test_everything_at_once(tmp_path: Path) -> None:
    tasks = Poisoned(5, 0.001, 0.006, TASKS, EACH)
    draw = random.Random(5)
    with tmpfs(tmp_path / "small", "120m") as small, running_rig(
        tmp_path, 4, journal=str(small / "journal.db"), reserve="0", lease="5"
    ) as rig, rig.yard() as yard:  # fmt: skip
        watched = rig.load(
            yard, tasks, TASKS, seconds=STEPS / 1.6, options=Options(max_attempts=2, timeout=TIMEOUT)
        )
        for n in range(STEPS):
            read = watched.load.read
            eventually(
                lambda k=read: watched.load.read > k + 30 or watched.load.read == TASKS,  # type: ignore[misc]
                "it goes on",
                60,
            )
            if n % 6 == 2 and rig.master is not None:
                rig.master.kill()
            elif n % 6 == 4:
                filler = fill(small)
                rig.faults["full disks"] += 1
                worker = draw.choice(rig.workers)
                worker.kill()
                filler.unlink()
            elif n % 6 == 5:
                worker = draw.choice(rig.workers)
                if worker.poll() is None:
                    halt(worker)
                    rig.faults["worker SIGSTOP"] += 1
                    before = watched.load.read
                    eventually(
                        lambda k=before: watched.load.read > k + 20 or watched.load.read == TASKS,  # type: ignore[misc]
                        "the others go on",
                        60,
                    )
                    worker.send_signal(signal.SIGCONT)
            else:
                draw.choice(rig.workers).kill()
        report = watched.held(ends=lambda n: "dead" if tasks.kind(n) in WORDS else "completed")
    assert report.dead == EACH * len(WORDS)
    assert report.completed == TASKS - report.dead
    assert report.faults["worker killed"] >= 0.4 * STEPS
    assert report.faults["master killed"] >= STEPS // 8
