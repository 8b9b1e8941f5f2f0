"""What a worker's exit code tells Docker Swarm, which starts again what does not end with 0."""

import signal
import subprocess
import sys
from pathlib import Path

from lab import running_lab
from support import eventually

TERMINATED = 128 + signal.SIGTERM


def test_only_who_is_to_end_for_good_ends_with_zero(tmp_path: Path) -> None:
    """SIGTERM is what a host that shuts down sends, to drained workers too; it drains all the same."""
    ends = {
        ("--swarm", signal.SIGTERM): TERMINATED, ("--swarm", signal.SIGINT): 0, ("", signal.SIGTERM): 0,
    }  # fmt: skip
    with running_lab(tmp_path) as lab:
        for (word, number), code in ends.items():
            words = [sys.executable, "-m", "taskyard_worker", *filter(None, [word])]
            worker = subprocess.Popen(words, env=lab.environ, stderr=subprocess.PIPE, text=True)
            try:
                eventually(lambda pid=worker.pid: pid in {w.pid for w in lab.status().workers}, "it joined")
                worker.send_signal(number)
                _, said = worker.communicate(timeout=30)
            finally:
                worker.kill()
            assert worker.returncode == code, said
            assert "all that this worker held is settled or given back" in said
