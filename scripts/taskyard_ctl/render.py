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
ENDED_JOBS = 20  # shown to people, the newest ones
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


def status(reply: "StatusReply", address: str, now: float, web: str = "") -> RenderableType:
    """Everything; `address` and `web` are as seen from here: the master knows only where it listens."""
    master = reply.master
    parts: list[RenderableType] = [
        Text(
            f"master {address}  version {master.version}  up {duration(now - master.started)}"
            f"  journal {size(master.journal_bytes)}  memory {size(master.memory)}"
            + (f"  dashboard {web}" if master.web and web else "")
        )
    ]
    parts += [Text(f"warning: {text}", style="yellow") for text in master.warnings]
    jobs = [job for job in reply.jobs if job.total or job.id != PLAIN]
    over = [job.id for job in jobs if job.ended][:-ENDED_JOBS]
    jobs = [job for job in jobs if job.id not in over]
    parts.append(_jobs(jobs, now) if jobs else Text("no jobs yet: taskyard submit MODULE:FUNCTION ..."))
    if over:
        parts.append(Text(f"and {len(over):,} more that ended earlier: --json has them all"))
    if reply.workers:
        parts.append(_workers(reply.workers, now))
    else:
        parts.append(Text("no workers yet: taskyard scale 2", style="yellow"))
    return Group(*parts)


def _table(*columns: Column | str, header: bool = True) -> Table:
    return Table(
        *columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_header=header
    )


def _lean(columns: dict[str, Column], rows: list[dict[str, str | Text]], always: set[str]) -> Table:
    """A table without the columns that say nothing: empty or 0 in every row."""
    shown = [name for name in columns if name in always or any(str(r[name]) not in ("", "0") for r in rows)]
    for name in shown:
        if not columns[name].max_width:  # where it gets narrow, only the others are cut
            columns[name].min_width = max(len(name), *(len(str(row[name])) for row in rows))
    table = _table(*(columns[name] for name in shown))
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _columns(names: str) -> dict[str, Column]:
    """Columns by name, written "<name" for text that may be cut, ">name" for a number, else "name"."""
    found = {}
    for word in names.split():
        name = word.lstrip("<>")
        cut = 60 if word.startswith("<") else None
        justify: Any = "right" if word.startswith(">") else "left"
        found[name] = Column(name, no_wrap=True, overflow="ellipsis", justify=justify, max_width=cut)
    return found


def _jobs(jobs: "Iterable[JobStatus]", now: float) -> Table:
    columns = _columns(
        "job <name <function state >total >ready >leased >delayed"
        " >completed >dead >cancelled >rate >left <note"
    )
    rows = []
    for job in jobs:
        waiting = job.ready + job.suspect
        rate = job.completed / max(0.001, (job.ended or now) - job.created)
        unfinished = waiting + job.leased + job.delayed
        row: dict[str, str | Text] = {
            "job": job.id, "name": job.name, "function": job.function, "state": _state(_job_state(job)),
            "total": f"{job.total:,}", "ready": f"{waiting:,}", "leased": f"{job.leased:,}",
            "delayed": f"{job.delayed:,}", "completed": f"{job.completed:,}", "dead": f"{job.dead:,}",
            "cancelled": f"{job.cancelled:,}", "rate": f"{rate:,.1f}/s" if job.completed else "",
            "left": duration(unfinished / rate) if unfinished and rate else "", "note": job.note or job.error,
        }  # fmt: skip
        rows.append(row)
    return _lean(columns, rows, {"job", "function", "state", "total", "completed"})


def _job_state(job: "JobStatus") -> str:
    """In a word for people: "closed" only says that no more tasks come."""
    if job.state != "closed":
        return job.state
    if not job.ended:
        return "waiting" if job.note else "running"
    return "dead" if job.dead else "completed"


def _workers(workers: "Iterable[WorkerStatus]", now: float) -> Table:
    columns = _columns("worker <host state >slots >leased >completed >failed >memory >up <runs")
    rows = []
    for worker in workers:
        running = worker.running if worker.leased else []  # what a heartbeat said may have ended since
        row: dict[str, str | Text] = {
            "worker": worker.id, "host": worker.host, "state": _state(worker.state) + _silence(worker, now),
            "slots": f"{worker.slots:,}", "leased": f"{worker.leased:,}",
            "completed": f"{worker.completed:,}", "failed": f"{worker.failed:,}",
            "memory": size(worker.memory), "up": duration(now - worker.joined),
            "runs": ", ".join(f"{r.job}/{r.index} {duration(now - r.since)}" for r in running),
        }  # fmt: skip
        rows.append(row)
    return _lean(columns, rows, set(columns) - {"runs", "failed"})


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
        value = max(16, self._screen.width - 66)
        table = _table(
            Column("index", width=9, justify="right"), Column("state", width=9),
            Column("value or error", width=value, no_wrap=True, overflow="ellipsis"),
            Column("attempts", width=8, justify="right"), Column("seconds", width=9, justify="right"),
            Column("worker", width=18, no_wrap=True, overflow="ellipsis"),
            header=not self._headed,
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
    table = _table(Column("function"), Column("timeout"))
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
