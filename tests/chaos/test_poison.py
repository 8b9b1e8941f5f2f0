"""Tasks that misbehave, of every kind, among many: each costs itself alone, with a reason that helps."""

from pathlib import Path

from rig import running_rig

from taskyard.messages import Options
from taskyard_ctl.chaos.probe import Tasks

EACH = 20
TASKS = 2000
TIMEOUT = 1.0  # seconds
WORDS = {
    "raise": "this one raises",
    "exit": "exit code 3",
    "segfault": "segmentation fault",
    "memory": "signal 9, probably out of memory",
    "hang": f"ran longer than {TIMEOUT:g} s",
    "fork": "exit code 4",
}
KINDS = [*WORDS, "pipes"]  # the last one returns all the same, and that is kept; only its process is gone


class Poisoned(Tasks):
    """Every so many-th of `tasks` misbehaves, each kind in turn, `each` times."""

    def __init__(self, seed: int, shortest: float, longest: float, tasks: int, each: int) -> None:
        super().__init__(seed, shortest, longest)
        self._bad = each * len(KINDS)
        self._step = tasks // self._bad

    def kind(self, n: int) -> str:
        k, between = divmod(n, self._step)
        return KINDS[k % len(KINDS)] if not between and k < self._bad else ""

    def argument(self, n: int) -> tuple[object, ...]:  # type: ignore[override]
        kind = self.kind(n)
        return (*super().argument(n), kind) if kind else super().argument(n)


def test_each_costs_itself_alone(tmp_path: Path) -> None:
    tasks = Poisoned(1, 0.0, 0.002, TASKS, EACH)
    with running_rig(tmp_path, workers=3, slots="2", lease="5") as rig, rig.yard() as yard:

        def dies(n: int) -> bool:
            return tasks.kind(n) in WORDS

        watched = rig.load(yard, tasks, TASKS, options=Options(max_attempts=2, timeout=TIMEOUT))
        rig.faults["tasks that misbehave"] += EACH * len(KINDS)
        report = watched.held(ends=lambda n: "dead" if dies(n) else "completed")
        assert report.dead == EACH * len(WORDS)
        assert report.completed == TASKS - report.dead
        job = yard.job(watched.load.job)
        for outcome in job.results():
            kind = tasks.kind(outcome.index)
            if not dies(outcome.index):
                assert outcome.attempts == 1, f"task {outcome.index} is charged for a neighbour: {outcome}"
                continue
            assert outcome.error is not None
            assert outcome.attempts == 2, f"{kind}: {outcome}"
            assert WORDS[kind] in outcome.error.message, f"{kind}: {outcome.error}"
        assert {o.index for o in job.results(failed=True)} == {n for n in range(TASKS) if dies(n)}


def test_a_result_that_cannot_travel_is_final_at_once(tmp_path: Path) -> None:
    with running_rig(tmp_path) as rig, rig.yard() as yard:
        job = yard.submit("work:unpicklable", [(n,) for n in range(20)])
        outcomes = list(job.results(follow=True))
    assert len(outcomes) == 20
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert all(o.error is not None and o.error.reason == "refused" for o in outcomes)
    assert len(rig.executions.read_text().splitlines()) == 20
