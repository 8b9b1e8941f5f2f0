"""`scale` and `drain`: more workers, or fewer, without cutting a task."""

import time

import click

from taskyard.clock import Deadline
from taskyard.errors import TaskFailed, UsageError
from taskyard_ctl.cli import Verb, say, yard_of

POLL_S = 0.1


@click.command(cls=Verb)
@click.argument("workers", type=click.IntRange(0), metavar="N")
@click.option("--host", metavar="H", help="On this host only; else spread evenly over all.")
@click.pass_context
def scale(ctx: click.Context, workers: int, host: str | None) -> None:
    """Change to N workers.

    The number is kept for the next 'up'; on several hosts, until the next 'deploy'. Fewer: the idlest
    are chosen, and a busy one finishes what it holds before it is stopped.

    \b
    Example:      taskyard scale 5
    """
    from taskyard_ctl import lifecycle

    folder = yard_of(ctx)
    engine = folder.on(host or "")
    lifecycle.scale(folder, engine, workers, say)
    if engine.name != "hosts":  # there, the next deploy does what hosts.toml says
        lifecycle.keep_workers(folder, workers, say)
    say(f"{host or 'the yard'} has {lifecycle.plural(workers, 'worker')}")


@click.command(cls=Verb)
@click.argument("worker", required=False)
@click.option("--host", metavar="H", help="All workers of a host.")
@click.option(
    "--deadline", type=click.FloatRange(0), metavar="S", help="Wait no longer; it goes on draining."
)
@click.option("--undo", is_flag=True, help="Let it take tasks again.")
@click.pass_context
def drain(
    ctx: click.Context, worker: str | None, host: str | None, deadline: float | None, undo: bool
) -> None:
    """Let a worker finish, and take nothing new.

    Waits until it has. WORKER is its id in 'taskyard status', or the beginning of it. It stays
    connected until it is stopped, and 'taskyard scale' stops drained workers first.

    \b
    Example:      taskyard drain --host build1
    """
    if (worker is None) == (host is None):
        raise UsageError("name one worker, or a host with --host; 'taskyard status' lists them")
    with yard_of(ctx).connect() as master:
        workers = master.status().workers
        chosen = [w for w in workers if w.host == host or (worker and w.id == worker)]
        chosen = chosen or [w for w in workers if worker and w.id.startswith(worker)]
        if not chosen or (worker and len(chosen) > 1):
            known = ", ".join(sorted(w.id if worker else w.host for w in workers)) or "none has joined"
            what = f"worker {worker!r}" if worker else f"host {host!r}"
            raise UsageError(f"{what} names {len(chosen) or 'no'} workers; there are: {known}")
        names = {w.id for w in chosen}
        for name in names:
            master.drain(name, undo=undo)
        end = Deadline.after(deadline)
        while not undo:
            busy = [w for w in master.status().workers if w.id in names and w.state != "drained"]
            if not busy:
                break
            if end.passed:
                held = sum(w.leased for w in busy)
                raise TaskFailed(
                    f"after {deadline} s {held} tasks are not finished; the worker goes on draining"
                )
            time.sleep(POLL_S)
    for name in sorted(names):
        say(f"{name} takes tasks again" if undo else f"{name} is drained; --undo lets it take tasks again")
