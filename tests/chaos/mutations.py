"""Does the suite notice? Builds variants of the product that are wrong, and names the test that finds each.

    make mutations                                  two to four minutes
    python tests/chaos/mutations.py [WORD ...]      only the variants whose name has one of the words

Each variant is a copy of the tree with one change. The tests that are run on it must pass on the tree
as it is, and one of them must fail on the variant. The exit code is 1 if a variant goes unnoticed.
That the variants still fit the code is checked by test_mutations.py, in CI.
"""

# ruff: noqa: E501 - the texts to be found are as long as they are
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PARTS = (
    "core",
    "master",
    "worker",
    "scripts",
    "tests",
    "examples",
    "docs",
    "pyproject.toml",
    "docker-compose.yml",
)
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file, and the tests that should notice."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied(self, root: Path) -> str:
        """The changed text of the file; raises SystemExit if that has not the one place to change."""
        text = (root / self.file).read_text()
        if text.count(self.before) != 1:
            raise SystemExit(f"{self.name}: {self.file} has changed, write this variant anew")
        return text.replace(self.before, self.after)


MASTER = "master/taskyard_master"
MUTATIONS = (
    Mutation(
        "reply before commit", f"{MASTER}/submissions.py",
        "        if written is not None:\n            await written\n        return m.Accepted",
        "        return m.Accepted",
        ("tests/chaos/test_storage.py::test_an_io_error_at_the_nth_commit",),
    ),
    Mutation(
        "no dedupe", f"{MASTER}/settling.py",
        "            if was in FINISHED or was == NONE:\n",
        "            if was == NONE or (lease is not None and was in FINISHED):\n",
        ("tests/chaos/test_duplicates.py",),
    ),
    Mutation(
        "NORMAL sync", f"{MASTER}/schema.py",
        "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL",
        ("tests/chaos/test_power.py::test_a_power_cut_loses_nothing",),
    ),
    Mutation(
        "no expiry", f"{MASTER}/ledger.py",
        "presence.lose(self._state.leases.expired(now), wall)", "presence.lose([], wall)",
        ("tests/chaos/test_duplicates.py::test_a_failure_under_a_lease_that_ran_out_counts_for_nothing",),
    ),
    Mutation(
        "attempt not counted", f"{MASTER}/settling.py",
        "    attempts = run[2] + 1\n    due =", "    attempts = run[2]\n    due =",
        ("tests/contract/test_yard.py::test_a_failing_task_is_tried_three_times_then_dead_with_its_reason",),
    ),
    Mutation(
        "duplicate answered before its commit", f"{MASTER}/settling.py",
        "        if ticket is not None:\n            raise Pending(ticket)\n        accepted = 0",
        "        if ticket is not None:\n            plan.duplicates += outcome.count\n            continue\n        accepted = 0",
        ("tests/chaos/test_duplicates.py::test_a_duplicate_is_answered_no_sooner_than_what_it_repeats",),
    ),
    Mutation(
        "failure of an old lease accepted", f"{MASTER}/settling.py",
        "        if lease is None or lease.job is not job or lease.boot != sender.boot:\n            return 0\n",
        "        if lease is None or lease.job is not job or lease.boot != sender.boot:\n            lease = None\n",
        ("tests/chaos/test_duplicates.py::test_a_failure_under_a_lease_that_ran_out_counts_for_nothing",),
    ),
    Mutation(
        "a hello drops what it adopts", f"{MASTER}/presence.py",
        "        if records:\n            kept.add(part.lease)\n", "",
        ("tests/unit/test_ledger_leases.py",),
    ),
)  # fmt: skip


def main() -> int:
    words = sys.argv[1:]
    unnoticed = 0
    for mutation in MUTATIONS:
        if words and not any(word in mutation.name for word in words):
            continue
        found = noticed_by(mutation)
        print(f"{mutation.name}: {found or 'NOT NOTICED'}", flush=True)
        unnoticed += not found
    return 1 if unnoticed else 0


def noticed_by(mutation: Mutation) -> str:
    """The first test that fails on the variant; empty if none does."""
    with tempfile.TemporaryDirectory(prefix="taskyard-mutant-") as folder:
        copy = Path(folder)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__", "hosts"))
            elif source.exists():
                shutil.copy(source, copy / part)
        (copy / mutation.file).write_text(mutation.applied(copy))
        rooms = os.pathsep.join(str(copy / room) for room in ("core", "master", "worker", "scripts"))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", "-rf", "--timeout", "60", "-p", "no:cacheprovider",
                 "--basetemp", str(copy / "tmp"), *mutation.tests],
                cwd=copy, env={**os.environ, "PYTHONPATH": rooms}, capture_output=True, text=True, timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{mutation.tests[0]} does not come to its end"
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode == 1 and lines:
            return lines[0].split()[1]
        if done.returncode > 1:
            raise SystemExit(
                f"{mutation.name}: the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
    return ""


if __name__ == "__main__":
    sys.exit(main())
