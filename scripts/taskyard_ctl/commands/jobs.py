"""`cancel`, `requeue` and `delete`: what can be done about a job."""

import click

from taskyard_ctl.cli import Verb, say, yard_of


@click.command(cls=Verb)
@click.argument("job")
@click.pass_context
def cancel(ctx: click.Context, job: str) -> None:
    """End everything unfinished of JOB, for good.

    What completed is kept.

    \b
    Example:      taskyard cancel squares
    """
    with yard_of(ctx).connect() as yard:
        found = yard.job(job)
        found.cancel()
        status = found.status()
    say(f"job {found.id}: {status.cancelled:,} tasks cancelled, {status.completed:,} had completed")


@click.command(cls=Verb)
@click.argument("job")
@click.pass_context
def requeue(ctx: click.Context, job: str) -> None:
    """Give the dead tasks of JOB another round.

    For when what killed them is repaired.

    \b
    Example:      taskyard requeue squares
    """
    with yard_of(ctx).connect() as yard:
        found = yard.job(job)
        count = found.requeue()
    say(f"job {found.id}: {count:,} dead tasks are ready again")
    if count:
        say(f"follow them: taskyard results {found.id} --follow")


@click.command(cls=Verb)
@click.argument("job")
@click.pass_context
def delete(ctx: click.Context, job: str) -> None:
    """Forget JOB, its tasks and its results.

    \b
    Example:      taskyard delete squares
    """
    with yard_of(ctx).connect() as yard:
        found = yard.job(job)
        found.delete()
    say(f"job {found.id} deleted")
