"""Starts a peer's workers by the command that its documentation names."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


@contextmanager
def command(folder: Path, *words: str, times: int = 1) -> Iterator[None]:
    """Run `python -m words...`, so many times; what they print is in the folder."""
    environ = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE / 'tasks'}"}
    processes = []
    try:
        for number in range(times):
            with (folder / f"workers-{number}.log").open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *words], env=environ, stdout=output, stderr=output,
                        cwd=folder,
                    )
                )  # fmt: skip
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
