"""What people see: tables of jobs, workers and results, in a terminal or through a pipe."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, Group, RenderableType
from rich.table import Column
from rich.text import Text

from taskyard_ctl import fitting
from taskyard_ctl.fitting import GAP, Fitted, Flowing, Row

if TYPE_CHECKING:
    from taskyard.messages import JobStatus, StatusReply, WorkerStatus

T = TypeVar("T")

PLAIN = "plain"  # the job of stdlib peers, there from the start
ENDED_JOBS = 20  # shown to people, the newest ones
WORKERS = 50  # shown to people, the busiest ones
AROUND = 7  # rows of a screen for heads, counts of what is left out, and notes
PIPE_WIDTH = 200  # columns where nobody says how many there are
# Columns as fitting.py writes them; those that are there though empty; and which go first where it is narrow.
JOB_COLUMNS = (
    "job <name <function state >total >ready >leased >delayed >completed >dead >cancelled >rate >left <note"
)
JOB_ALWAYS = "job function state total completed"
JOB_DROP = "function rate delayed cancelled name left ready leased total dead"
WORKER_COLUMNS = "worker <host state >slots >leased >completed >failed >memory >up <runs"
WORKER_ALWAYS = "worker host state slots leased completed memory up"
WORKER_DROP = "up memory host slots runs failed leased"
HOST_COLUMNS = "<host >workers >missing >slots >busy >completed >failed >memory"
HOST_ALWAYS = "host workers slots busy completed memory"
HOST_DROP = "memory completed failed missing"
# The terminal's width from which on results have this column, too.
RESULT_WIDTHS = {"seconds": 60, "attempts": 90, "worker": 110}
RESULT_NUMBERS = ("index", "attempts", "seconds")
# What a chaos run has counted.
CHAOS = {
    "attempted": "tasks that were sent",
    "accepted": "that the master answered for",
    "completed": "that have their result",
    "dead": "that failed for good",
    "lost": "accepted, and without an end",
    "duplicated": "recorded more than once",
    "unexpected": "wrong, changed, or never sent",
    "recovered": "not answered for, and there all the same",
    "executions": "runs that the tasks noted themselves; in containers they cannot",
    "reruns": "of them beyond the first: the price of a kill",
    "charged": "attempts that a kill cost a task: it should cost none",
}
STYLES = {
    "completed": "green", "idle": "green", "running": "cyan", "open": "cyan", "closed": "green",
    "dead": "red", "incomplete": "red", "missing": "red", "cancelled": "yellow", "draining": "yellow",
    "drained": "yellow",
}  # fmt: skip


def console(stderr: bool = False) -> Console:
    """For a terminal as wide as it is, or as COLUMNS says; for a pipe wide and plain."""
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()  # which goes before the terminal's
    return Console(file=stream, highlight=False, width=None if known else PIPE_WIDTH)


def status(reply: "StatusReply", address: str, now: float, web: str = "", height: int = 0) -> RenderableType:
    """Everything; `address` and `web` are as seen from here: the master knows only where it listens.

    `height`: rows of a screen that it has to fit on, the most urgent ones; 0 = as many as there are.
    """
    master = reply.master
    parts: list[RenderableType] = [
        Flowing(
            [
                f"master {address}",
                f"version {master.version}",
                f"up {duration(now - master.started)}",
                f"journal {size(master.journal_bytes)}",
                f"memory {size(master.memory)}",
                *([f"dashboard {web}"] if master.web and web else []),
            ]
        )
    ]
    parts += [Text(f"warning: {text}", style="yellow") for text in master.warnings]
    jobs = [job for job in reply.jobs if job.total or job.id != PLAIN]
    by_host = hosts_of(reply.workers)
    room = max(3, (height - len(parts) - AROUND) // (3 if len(by_host) > 1 else 2)) if height else 0
    over = {job.id for job in [job for job in jobs if job.ended][:-ENDED_JOBS]}
    shown = _first(
        [job for job in jobs if job.id not in over], room, lambda job: (bool(job.ended), -job.created)
    )
    parts.append(_jobs(shown, now) if jobs else Text("no jobs yet: taskyard submit MODULE:FUNCTION ..."))
    if len(shown) < len(jobs):
        which = "more" if room else "more that ended earlier"
        parts.append(Text(f"and {len(jobs) - len(shown):,} {which}: --json has them all"))
    if len(by_host) > 1:
        hosts = _first(list(by_host), room, lambda host: -by_host[host]["slots"])
        parts.append(_hosts({host: by_host[host] for host in hosts}))
        if len(hosts) < len(by_host):
            parts.append(Text(f"and {len(by_host) - len(hosts):,} more hosts"))
    if reply.workers:
        workers = _first(reply.workers, room or WORKERS, lambda one: (one.state == "idle", -one.leased))
        parts.append(_workers(workers, now))
        if len(workers) < len(reply.workers):
            parts.append(Text(f"and {len(reply.workers) - len(workers):,} more workers: --json has them all"))
    else:
        parts.append(Text("no workers yet: taskyard scale 2", style="yellow"))
    return Group(*parts)


def _first(items: list[T], most: int, urgency: Callable[[T], Any]) -> list[T]:
    """The most urgent ones, in the order that they had; `most` 0 = all."""
    if not most or len(items) <= most:
        return items
    chosen = sorted(range(len(items)), key=lambda at: urgency(items[at]))[:most]
    return [items[at] for at in sorted(chosen)]


def hosts_of(workers: "Iterable[WorkerStatus]") -> dict[str, dict[str, int]]:
    """What the workers of each host come to together, by the host's name."""
    names = ("workers", "missing", "slots", "busy", "completed", "failed", "memory")
    found: dict[str, dict[str, int]] = {}
    for worker in workers:
        sums = found.setdefault(worker.host, dict.fromkeys(names, 0))
        there = worker.state != "missing"
        sums["workers"] += there
        sums["missing"] += not there
        sums["slots"] += worker.slots if there else 0
        sums["busy"] += min(worker.slots, worker.leased) if there else 0
        for name in ("completed", "failed", "memory"):
            sums[name] += getattr(worker, name)
    return dict(sorted(found.items()))


def _hosts(by_host: dict[str, dict[str, int]]) -> Fitted:
    rows: list[Row] = []
    for host, sums in by_host.items():
        row: Row = {name: f"{count:,}" for name, count in sums.items()}
        rows.append(row | {"host": host, "memory": size(sums["memory"])})
    return Fitted(HOST_COLUMNS, rows, frozenset(HOST_ALWAYS.split()), tuple(HOST_DROP.split()))


def _jobs(jobs: "Iterable[JobStatus]", now: float) -> Fitted:
    rows: list[Row] = []
    for job in jobs:
        waiting = job.ready + job.suspect
        rate = job.completed / max(0.001, (job.ended or now) - job.created)
        unfinished = waiting + job.leased + job.delayed
        row: Row = {
            "job": job.id, "name": job.name, "function": job.function, "state": _state(_job_state(job)),
            "total": f"{job.total:,}", "ready": f"{waiting:,}", "leased": f"{job.leased:,}",
            "delayed": f"{job.delayed:,}", "completed": f"{job.completed:,}", "dead": f"{job.dead:,}",
            "cancelled": f"{job.cancelled:,}", "rate": f"{rate:,.1f}/s" if job.completed else "",
            "left": duration(unfinished / rate) if unfinished and rate else "", "note": job.note or job.error,
        }  # fmt: skip
        rows.append(row)
    return Fitted(JOB_COLUMNS, rows, frozenset(JOB_ALWAYS.split()), tuple(JOB_DROP.split()), ("note", "job"))


def _job_state(job: "JobStatus") -> str:
    """In a word for people: "closed" only says that no more tasks come."""
    if job.state != "closed":
        return job.state
    if not job.ended:
        return "waiting" if job.note else "running"
    return "dead" if job.dead else "completed"


def _workers(workers: "Iterable[WorkerStatus]", now: float) -> Fitted:
    rows: list[Row] = []
    for worker in workers:
        running = worker.running if worker.leased else []  # what a heartbeat said may have ended since
        row: Row = {
            "worker": worker.id, "host": worker.host, "state": _state(worker.state) + _silence(worker, now),
            "slots": f"{worker.slots:,}", "leased": f"{worker.leased:,}",
            "completed": f"{worker.completed:,}", "failed": f"{worker.failed:,}",
            "memory": size(worker.memory), "up": duration(now - worker.joined),
            "runs": ", ".join(f"{r.job}/{r.index} {duration(now - r.since)}" for r in running),
        }  # fmt: skip
        rows.append(row)
    return Fitted(WORKER_COLUMNS, rows, frozenset(WORKER_ALWAYS.split()), tuple(WORKER_DROP.split()))


def _silence(worker: "WorkerStatus", now: float) -> str:
    """Since when nothing was heard of it."""
    return f" for {duration(now - worker.seen)}" if worker.state == "missing" else ""


def _state(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))


class ResultTable:
    """A table that grows: its columns are as wide at the end as at the beginning."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._headed = False

    def add(self, results: "list[dict[str, Any]]") -> None:
        width = self._screen.width
        columns = {"index": 9, "state": 9, "value or error": 0, "attempts": 8, "seconds": 9, "worker": 18}
        shown = [name for name in columns if width >= RESULT_WIDTHS.get(name, 0)]
        rest = sum(columns[name] for name in shown) + GAP * (len(shown) - 1)
        columns["value or error"] = max(10, width - rest)
        table = fitting.table(
            *(
                Column(name, width=columns[name], no_wrap=True, overflow="ellipsis",
                       justify="right" if name in RESULT_NUMBERS else "left")
                for name in shown
            ),
            header=not self._headed,
        )  # fmt: skip
        self._headed = True
        for result in results:
            row = {
                "index": str(result["index"]), "state": _state(result["state"]),
                "value or error": Text(" ".join(_shown(result).split("\n"))),
                "attempts": str(result["attempts"]),
                "seconds": f"{result['seconds']:.3f}", "worker": result["worker"],
            }  # fmt: skip
            table.add_row(*(row[name] for name in shown))
        self._screen.print(table)


def _shown(result: "dict[str, Any]") -> str:
    error = result["error"]
    if error is None:
        return str(result["value"])
    kind = error["type"] or error["reason"]
    return f"{kind}: {error['message']}"


def listing(functions: "dict[str, float]", faults: "dict[str, str]") -> RenderableType:
    """What `check` found."""
    table = fitting.table(Column("function"), Column("timeout"))
    for name, timeout in functions.items():
        table.add_row(name, f"{timeout:g} s" if timeout else "")
    parts: list[RenderableType] = [table] if functions else [Text("no function can run")]
    parts += [Text(f"{module}: {fault}", style="red") for module, fault in faults.items()]
    return Group(*parts)


def chaos(report: "dict[str, Any]") -> RenderableType:
    """What a chaos run has come to."""
    table = fitting.table("", Column("", justify="right"), "", header=False)
    for name, text in CHAOS.items():
        bad = name in ("dead", "lost", "duplicated", "unexpected") and report[name]
        known = report["executions"] or name not in ("executions", "reruns")
        shown = f"{report[name]:,}" if known else "-"
        table.add_row(name, Text(shown, style="red" if bad else ""), Text(text, style="dim"))
    for name, count in report["faults"].items():
        table.add_row(name, f"{count:,}", Text("that really happened", style="dim"))
    table.add_row("seconds", f"{report['seconds']:,}", Text("with the wait for the rest", style="dim"))
    verdict = report["verdict"]
    words = {"held": "nothing was lost, nothing was recorded twice", "broken": "BROKEN"}.get(verdict, verdict)
    return Group(
        table,
        *(Text(text, style="red") for text in report["violations"]),
        Text(f"{words} (seed {report['seed']})", style="green" if verdict == "held" else "red"),
    )


def duration(seconds: float) -> str:
    """As people say it: 12 ms, 4.2 s, 3 min, 2 h 5 min, 3 d."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(seconds / 86400)} d"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
