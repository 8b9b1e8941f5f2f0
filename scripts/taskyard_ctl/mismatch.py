"""Who submits and who works: where they have other tasks or versions, a table of both sides.

Workers whose tasks folder is mounted, or that are processes here, take up an edit by
themselves, so their tasks never differ for long. Those in an image, as `taskyard deploy`
makes it, have what was there when it was made.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import taskyard
from taskyard import functions
from taskyard.errors import FunctionError

if TYPE_CHECKING:
    from taskyard.messages import WorkerStatus
    from taskyard_ctl.yard import YardFolder

SIDES = 3  # of workers, the largest ones
NAMES = 3  # of functions in a cell
HERE = "here"


@dataclass(frozen=True, slots=True)
class Side:
    """What one side has; workers that have the same are one side."""

    label: str
    taskyard: str
    python: str
    digest: str
    functions: frozenset[str]
    baked: bool


@dataclass(frozen=True, slots=True)
class Mismatch:
    """This machine and the sides of the workers, at least one of which differs in what matters."""

    here: Side
    there: tuple[Side, ...]

    @property
    def cure(self) -> str:
        if any(side.digest != self.here.digest and side.baked for side in self.there):
            return "'taskyard deploy' brings the workers what is here"
        return "bring both to one version of taskyard"

    def rows(self) -> list[list[str]]:
        """The table, its head first; the last column says what differs."""
        sides = (self.here, *self.there)
        rows = [["", *(side.label for side in sides), ""]]
        if self.here.digest:
            rows.append(self._row("tasks", [side.digest for side in sides]))
        every = self.here.functions.union(*(side.functions for side in self.there))
        common = self.here.functions.intersection(*(side.functions for side in self.there))
        if self.here.digest and every != common:
            rows.append(self._row("functions", [_names(side.functions - common) for side in sides]))
        rows.append(self._row("taskyard", [side.taskyard for side in sides]))
        rows.append(self._row("Python", [side.python for side in sides]))
        return rows

    def lines(self) -> list[str]:
        """The table as lines, and what helps."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) for row in rows]
        return [
            "what is here and what the workers have differ:",
            *(f"  {line}".rstrip() for line in lines),
            self.cure,
        ]

    def _row(self, name: str, cells: Sequence[str]) -> list[str]:
        return [name, *cells, "" if len(set(cells)) == 1 else "differs"]


def find(folder: "YardFolder", workers: "Iterable[WorkerStatus]") -> Mismatch | None:
    """What differs from the tasks folder and the command here; None if nothing that matters does.

    Another Python alone does not: values travel between versions, and an image has its own.
    """
    joined = [worker for worker in workers if worker.state != "missing"]
    digest = _digest(folder) if any(worker.baked for worker in joined) else ""
    odd = [
        worker
        for worker in joined
        if worker.version != taskyard.__version__ or (worker.baked and digest and worker.digest != digest)
    ]
    if not odd:
        return None
    own = Side(HERE, taskyard.__version__, platform.python_version(), digest, _own(folder), False)
    return Mismatch(own, tuple(_sides(joined)))


def _sides(workers: "Iterable[WorkerStatus]") -> Iterable[Side]:
    """Workers that are alike together, the largest groups first, and where they are."""
    alike: Counter[Side] = Counter()
    hosts: dict[Side, set[str]] = {}
    for worker in workers:
        names = frozenset(name for name in worker.functions if ":" in name)
        side = Side("", worker.version, worker.python, worker.digest, names, worker.baked)
        alike[side] += 1
        hosts.setdefault(side, set()).add(worker.host)
    for side, count in alike.most_common(SIDES):
        where = sorted(hosts[side])
        on = f"on {where[0]}" if len(where) == 1 else f"on {len(where)} hosts"
        label = f"{count:,} worker{'' if count == 1 else 's'} {on}"
        yield Side(label, side.taskyard, side.python, side.digest, side.functions, side.baked)


def _names(names: frozenset[str]) -> str:
    if not names:
        return "-"
    more = f", {len(names) - NAMES:,} more" if len(names) > NAMES else ""
    return ", ".join(sorted(names)[:NAMES]) + more


def _digest(folder: "YardFolder") -> str:
    """Of the tasks folder here; "" where there is none, at a client elsewhere."""
    try:
        return functions.digest(Path(folder.basics.tasks_dir))
    except (FunctionError, OSError):
        return ""


def _own(folder: "YardFolder") -> frozenset[str]:
    try:
        return frozenset(folder.listing().functions)
    except (FunctionError, OSError):
        return frozenset()
