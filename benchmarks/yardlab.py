"""Yards of real processes to measure: those of the tests, which are the product and nothing else."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
__all__ = ["TASKS", "BenchLab", "eventually", "free_port", "memory", "running_yard", "temporary_yard"]
TASKS = ROOT / "benchmarks" / "tasks"
sys.path[:0] = [str(ROOT / "tests")]

import yardcerts  # noqa: E402 - it is in the tests' folder
from lab import Lab, free_port  # noqa: E402
from support import eventually  # noqa: E402

from taskyard import Yard  # noqa: E402


def tls_settings(folder: Path) -> dict[str, dict[str, str]]:
    """Settings that turn TLS on, by role; the certificates are made in a folder."""
    certs = yardcerts.yard(folder)
    return {
        role: {
            name.removeprefix("TASKYARD_").lower(): value
            for name, value in yardcerts.settings(certs, stem).items()
        }
        for role, stem in (("master", "master"), ("client", "client"), ("worker", "worker-a"))
    }


class BenchLab(Lab):
    """A lab whose client may use TLS, too."""

    def __init__(self, folder: Path, tls: bool = False, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.roles = tls_settings(folder / "certs") if tls else {}
        super().__init__(folder, TASKS, **self.roles.get("client", {}), **settings)

    def yard(self) -> Yard:
        return Yard.from_env(self.environ)


def memory(pid: int, what: str = "VmRSS") -> int:
    """Bytes of memory that a process has resident; "VmHWM" for the most that it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what + ":")) * 1024


@contextmanager
def running_yard(folder: Path, workers: int = 2, tls: bool = False, **settings: str) -> Iterator[BenchLab]:
    """A master and workers that have joined, with the settings' defaults but for those given."""
    lab = BenchLab(folder, tls, **settings)
    try:
        lab.start_master(**lab.roles.get("master", {}))
        lab.start_workers(workers, **lab.roles.get("worker", {}))
        yield lab
    finally:
        lab.stop()


@contextmanager
def temporary_yard(workers: int = 2, tls: bool = False, **settings: str) -> Iterator[BenchLab]:
    """The same in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, running_yard(Path(folder), workers, tls, **settings) as lab:
        yield lab
