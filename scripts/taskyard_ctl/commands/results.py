"""`results`: what came out of a job."""

import click

from taskyard_ctl.cli import Verb, yard_of


@click.command(cls=Verb)
@click.argument("job")
@click.option("--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--ordered", is_flag=True, help="By index instead of by time.")
@click.option("--failed", is_flag=True, help="Dead tasks only, with their errors.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines in a terminal too.")
@click.option("--joblog", is_flag=True, help="As GNU parallel's --joblog: tab-separated, a line a task.")
@click.pass_context
def results(
    ctx: click.Context, job: str, follow: bool, ordered: bool, failed: bool, as_json: bool, joblog: bool
) -> int:
    """Print the results of JOB.

    JOB is an id, the beginning of one, or a name. One JSON object a line where stdout is no
    terminal. Reading consumes nothing: it can be done again, and from several places. The exit
    code is 1 if some tasks did not complete.

    Results of the job plain that were taken are kept until they are a week old, those that an
    executor has received for a day or as its retention says; all others as long as the job.

    \b
    Example:      taskyard results squares --follow > squares.jsonl
    """
    from taskyard_ctl.following import JobLog, Results, conclude
    from taskyard_ctl.interrupts import Interrupts
    from taskyard_ctl.progress import Progress

    if joblog and as_json:
        raise click.UsageError("--joblog and --json are two formats: choose one")
    with yard_of(ctx).connect(persistent=follow) as yard:
        found = yard.job(job)
        output = JobLog(found.id, found.status().function) if joblog else Results(found.id, as_json)
        outcomes = found.results(follow=follow, ordered=ordered, failed=failed)
        if follow:
            with (
                Progress(yard, found.id, output.flush, output.screen) as progress,
                Interrupts(found.id, progress.notice),
            ):
                output.write(outcomes)
        else:
            output.write(outcomes)
        return conclude(yard, found.id, hint=not failed)
