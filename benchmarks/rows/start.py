"""How long somebody waits who types the command: its help, and a yard from nothing to a first result."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from book import Book, say
from yardlab import TASKS, free_port

COMMAND = [sys.executable, "-P", "-m", "taskyard_ctl"]


def measure(book: Book, rounds: int) -> None:
    for _ in range(rounds):
        taken = _timed(["--help"], Path.cwd())
        book.add("start", "taskyard --help", "ms", taken * 1000)
        say(f"start: --help in {taken * 1000:.0f} ms")
        with tempfile.TemporaryDirectory() as folder:
            first = _first_result(Path(folder))
        book.add("start", "up --local to first result", "s", first)
        say(f"start: up --local to first result in {first:.2f} s")


def _timed(words: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    done = subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, timeout=120)
    taken = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"start: taskyard {' '.join(words)}: {done.stderr.strip()}")
    return taken


def _first_result(folder: Path) -> float:
    """Seconds for `up --local` and `submit --wait` of one task, in a folder that has settings and tasks."""
    shutil.copytree(TASKS, folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    settings = {
        "ADDRESS": f"127.0.0.1:{free_port()}", "AUTHKEY": "k" * 40, "TASKS_DIR": "./tasks",
        "DATA_DIR": str(folder / "data"),
    }  # fmt: skip
    (folder / ".env").write_text("".join(f"TASKYARD_{name}={value}\n" for name, value in settings.items()))
    try:
        up = _timed(["up", "--local", "--workers", "2"], folder)
        return up + _timed(["submit", "work:square", "--range", "12:13", "--wait"], folder)
    finally:
        _timed(["down", "--deadline", "0"], folder)
