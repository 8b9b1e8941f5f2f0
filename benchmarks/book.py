"""What was measured: figures by scenario and side, with the machine's load beside each."""

import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import taskyard


@dataclass
class Figure:
    """One quantity of one side, as often as it was measured.

    scenario, side   what was done, and by whom: "throughput", "yard"
    unit             of the values
    values, loads    one a round, in order; the load is the machine's, of one minute, before the round
    note             for people
    """

    scenario: str
    side: str
    unit: str
    values: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass
class Book:
    """All figures of one run, in the order in which they came."""

    figures: list[Figure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # what was left out, and why
    begun: float = field(default_factory=time.time)

    def add(self, scenario: str, side: str, unit: str, value: float, note: str = "") -> None:
        found = self.find(scenario, side, unit)
        if found is None:
            found = Figure(scenario, side, unit)
            self.figures.append(found)
        found.values.append(value)
        found.loads.append(round(os.getloadavg()[0], 2))
        found.note = note or found.note

    def find(self, scenario: str, side: str, unit: str) -> Figure | None:
        wanted = (scenario, side, unit)
        return next((f for f in self.figures if (f.scenario, f.side, f.unit) == wanted), None)

    def median(self, scenario: str, side: str, unit: str) -> float | None:
        """None where that was not measured."""
        found = self.find(scenario, side, unit)
        return found.median if found else None

    def of(self, scenario: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.scenario == scenario]

    def skip(self, what: str) -> None:
        say(f"left out: {what}")
        self.skipped.append(what)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_data(), indent=1) + "\n")

    def as_data(self) -> dict[str, Any]:
        return {"machine": machine(), **asdict(self), "ended": time.time()}

    @classmethod
    def load(cls, path: Path) -> "tuple[Book, dict[str, Any]]":
        """A book that was saved, and the machine that it is about."""
        data = json.loads(path.read_text())
        book = cls([Figure(**figure) for figure in data["figures"]], data["skipped"], data["begun"])
        return book, data["machine"]


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "taskyard": taskyard.__version__,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def say(line: str) -> None:
    """Progress, for people."""
    sys.stderr.write(f"bench: {line}\n")
