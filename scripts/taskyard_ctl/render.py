"""What people see: tables of jobs, workers and results, in a terminal or through a pipe."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from taskyard.messages import JobStatus, StatusReply, WorkerStatus

PLAIN = "plain"  # the job of stdlib peers, there from the start
PIPE_WIDTH = 200  # columns where nobody says how many there are
STYLES = {
    "completed": "green", "idle": "green", "running": "cyan", "open": "cyan", "closed": "green",
    "dead": "red", "incomplete": "red", "missing": "red", "cancelled": "yellow", "draining": "yellow",
    "drained": "yellow",
}  # fmt: skip


def console(stderr: bool = False) -> Console:
    """For a terminal as wide as it is; for a pipe wide and plain."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def status(reply: "StatusReply", address: str, now: float) -> RenderableType:
    """Everything; `address` is where we reached the master, which knows only where it listens."""
    master = reply.master
    parts: list[RenderableType] = [
        Text(
            f"master {address}  version {master.version}  up {duration(now - master.started)}"
            f"  journal {size(master.journal_bytes)}  memory {size(master.memory)}"
            + (f"  dashboard http://{master.web}" if master.web else "")
        )
    ]
    parts += [Text(f"warning: {text}", style="yellow") for text in master.warnings]
    jobs = [job for job in reply.jobs if job.total or job.id != PLAIN]
    parts.append(_jobs(jobs, now) if jobs else Text("no jobs yet: taskyard submit MODULE:FUNCTION ..."))
    if reply.workers:
        parts.append(_workers(reply.workers, now))
    else:
        parts.append(Text("no workers yet: taskyard scale 2", style="yellow"))
    return Group(*parts)


def _table(*columns: str | Column) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def _jobs(jobs: "Iterable[JobStatus]", now: float) -> Table:
    right = ["total", "ready", "leased", "delayed", "completed", "dead", "cancelled", "rate", "left"]
    table = _table(
        "job", "name", "function", "state", *(Column(name, justify="right") for name in right), "note"
    )
    for job in jobs:
        waiting = job.ready + job.suspect
        seconds, eta = (job.ended or now) - job.created, ""
        rate = job.completed / seconds if seconds > 0 else 0.0
        unfinished = waiting + job.leased + job.delayed
        if unfinished and rate:
            eta = duration(unfinished / rate)
        counts = (job.total, waiting, job.leased, job.delayed, job.completed, job.dead, job.cancelled)
        table.add_row(
            job.id, job.name, job.function, _state(_job_state(job)), *(f"{count:,}" for count in counts),
            f"{rate:,.1f}/s" if job.completed else "", eta, job.note or job.error,
        )  # fmt: skip
    return table


def _job_state(job: "JobStatus") -> str:
    """In a word for people: "closed" only says that no more tasks come."""
    if job.state != "closed":
        return job.state
    if not job.ended:
        return "waiting" if job.note else "running"
    return "dead" if job.dead else "completed"


def _workers(workers: "Iterable[WorkerStatus]", now: float) -> Table:
    right = ["slots", "leased", "completed", "failed", "memory", "up"]
    table = _table("worker", "host", "state", *(Column(name, justify="right") for name in right), "runs")
    for worker in workers:
        running = worker.running if worker.leased else []  # what a heartbeat said may have ended since
        runs = ", ".join(f"{r.job}/{r.index} {duration(now - r.since)}" for r in running)
        counts = (worker.slots, worker.leased, worker.completed, worker.failed)
        table.add_row(
            worker.id, worker.host, _state(worker.state), *(f"{count:,}" for count in counts),
            size(worker.memory), duration(now - worker.joined), runs,
        )  # fmt: skip
    return table


def _state(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))


class ResultTable:
    """A table that grows: its columns are as wide at the end as at the beginning."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._headed = False

    def add(self, results: "list[dict[str, Any]]") -> None:
        value = max(16, self._screen.width - 66)
        table = Table(
            Column("index", width=9, justify="right"), Column("state", width=9),
            Column("value or error", width=value, no_wrap=True, overflow="ellipsis"),
            Column("attempts", width=8, justify="right"), Column("seconds", width=9, justify="right"),
            Column("worker", width=18, no_wrap=True, overflow="ellipsis"),
            box=None, pad_edge=False, header_style="bold", show_header=not self._headed, padding=(0, 2, 0, 0),
        )  # fmt: skip
        self._headed = True
        for result in results:
            table.add_row(
                str(result["index"]), _state(result["state"]), Text(_shown(result)), str(result["attempts"]),
                f"{result['seconds']:.3f}", result["worker"],
            )  # fmt: skip
        self._screen.print(table)


def _shown(result: "dict[str, Any]") -> str:
    error = result["error"]
    if error is None:
        return str(result["value"])
    kind = error["type"] or error["reason"]
    return f"{kind}: {error['message']}"


def listing(functions: "dict[str, float]", faults: "dict[str, str]") -> RenderableType:
    """What `check` found."""
    table = _table("function", "timeout")
    for name, timeout in functions.items():
        table.add_row(name, f"{timeout:g} s" if timeout else "")
    parts: list[RenderableType] = [table] if functions else [Text("no function can run")]
    parts += [Text(f"{module}: {fault}", style="red") for module, fault in faults.items()]
    return Group(*parts)


def chaos(report: "dict[str, Any]") -> RenderableType:
    """What a chaos run has come to."""
    table = _table("", Column("", justify="right"))
    for name in (
        "attempted", "accepted", "completed", "dead", "lost", "duplicated", "unexpected", "recovered",
        "executions", "reruns", "charged",
    ):  # fmt: skip
        bad = name in ("dead", "lost", "duplicated", "unexpected") and report[name]
        table.add_row(name, Text(f"{report[name]:,}", style="red" if bad else ""))
    for name, count in report["faults"].items():
        table.add_row(name, f"{count:,}")
    table.add_row("seconds", f"{report['seconds']:,}")
    verdict = report["verdict"]
    words = {"held": "nothing was lost", "broken": "BROKEN"}.get(verdict, verdict)
    return Group(
        table, Text(f"{words} (seed {report['seed']})", style="green" if verdict == "held" else "red")
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
