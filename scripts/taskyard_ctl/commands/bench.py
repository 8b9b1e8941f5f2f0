"""`bench`: this yard beside the plain pattern of the tutorials, in one run."""

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from taskyard_ctl.cli import Verb, yard_of

if TYPE_CHECKING:
    from taskyard.client import Yard

PATTERN_TASKS = 5000
ROUNDS = 100
WARM = 2000


@click.command(cls=Verb)
@click.argument("function", default="squares:square")
@click.option("--tasks", default=200_000, show_default=True, help="How many tasks the yard is given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def bench(ctx: click.Context, function: str, tasks: int, as_json: bool) -> None:
    """Measure the yard that runs here, beside the plain pattern.

    FUNCTION takes one number and should do next to nothing. The pattern, with as many workers,
    keeps nothing on disk; the yard keeps everything. Only the ratio means something elsewhere.

    \b
    Example:      taskyard bench squares:square --tasks 1000000
    """
    from taskyard.errors import UsageError

    with yard_of(ctx).connect() as yard:
        workers = sum(worker.slots for worker in yard.status().workers)
        if not workers:
            raise UsageError("no workers have joined: taskyard scale 2")
        rate, single = _yard(yard, function, tasks)
    pattern = subprocess.run(
        [sys.executable, "-m", "taskyard_ctl.pattern", str(PATTERN_TASKS), str(workers)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    plain_rate, plain_single = map(float, pattern.stdout.split())
    if as_json:
        figures = {"slots": workers, "yard": {"tasks_a_second": rate, "single_seconds": single},
                   "pattern": {"tasks_a_second": plain_rate, "single_seconds": plain_single}}  # fmt: skip
        click.echo(json.dumps(figures))
        return
    click.echo(f"{'':22}{'tasks/s':>12}{'one task, ms':>15}")
    click.echo(f"{'this yard, durable':22}{rate:>12,.0f}{single * 1000:>15.2f}")
    click.echo(f"{'plain pattern':22}{plain_rate:>12,.0f}{plain_single * 1000:>15.2f}")
    click.echo(f"{'ratio':22}{rate / plain_rate:>12.1f}{single / plain_single:>15.1f}")


def _yard(yard: "Yard", function: str, tasks: int) -> tuple[float, float]:
    """(tasks a second from the first input to the last result, median seconds of a single one)."""
    from taskyard_ctl.measuring import YardSide, rate, singles

    side = YardSide(yard, function)
    side.many(range(WARM))
    found = rate(side, range(tasks))[0]
    single = statistics.median(singles(side, ROUNDS))
    side.clear()
    return found, single
