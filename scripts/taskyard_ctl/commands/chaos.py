"""`chaos`: faults under load, and whether anything was lost."""

import secrets

import click

from taskyard.errors import EXIT_DONE, EXIT_TASKS
from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.option(
    "--minutes",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    metavar="M",
    help="How long it goes on; then all that is left is waited for.",
)
@click.option("--seed", type=int, metavar="S", help="Decides what is hit and when; drawn unless told.")
@click.option(
    "--tasks",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Submit so many, spread over the time; else as many as get done.",
)
@click.option(
    "--worker-every",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    metavar="S",
    help="Seconds between kills of workers; 0 = none.",
)
@click.option(
    "--master-every",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds between kills of the master; 0 = none.",
)
@click.option(
    "--stop-every",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds between stops (SIGSTOP) of one of them; 0 = none.",
)
@click.option("--keep", is_flag=True, help="Keep the job and the logs of the run also where all is well.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.pass_context
def chaos(
    ctx: click.Context, minutes: float, seed: int | None, tasks: int, worker_every: float,
    master_every: float, stop_every: float, keep: bool, as_json: bool,
) -> int:  # fmt: skip
    """Kill workers and the master under load, and count what was lost.

    Submits a job of its own to the yard that runs here, sends SIGKILL to its processes at random, stops
    and continues some, and compares what it has written down itself with what the yard has recorded.
    Other jobs of the yard suffer as they would from any such fault: they take longer. The exit code is 1
    if anything is lost, doubled or wrong, and if no fault has happened.

    \b
    Example:      taskyard chaos --minutes 2
    """
    from taskyard_ctl.chaos.faults import Plan
    from taskyard_ctl.chaos.run import Request, run
    from taskyard_ctl.shapes import line

    seed = secrets.randbelow(1_000_000) if seed is None else seed
    say(f"chaos for {minutes:g} min, seed {seed}")
    plan = Plan(worker_every, master_every, stop_every)
    report = run(yard_of(ctx), Request(60 * minutes, seed, plan, tasks, keep), say)
    if as_json:
        click.echo(line(report.to_dict()).rstrip())
    else:
        from taskyard_ctl.render import chaos as table
        from taskyard_ctl.render import console

        console().print(table(report.to_dict()))
    for violation in report.violations:
        say(violation)
    return EXIT_DONE if report.verdict == "held" else EXIT_TASKS
