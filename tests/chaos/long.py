"""`make chaos-long`: every fault for about ten minutes, and what came of it in docs/reliability.md.

Runs the chaos tests one file after the other, the kills for longer than CI does, and adds up what their
oracle has found. The document has the figures as they are, also where something failed.
"""

# ruff: noqa: E501 - lines of the document
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DOCUMENT = ROOT / "docs" / "reliability.md"

# What is run, and what its row is called; rows with "control" must lose.
ROWS = (
    ("test_kills.py::test_a_minute_of_kills", "kill -9 of workers and the master, SIGSTOP between"),
    ("test_failpoints.py", "death at each named point, around every commit, reply and lease change"),
    ("test_power.py::test_a_power_cut", "power cut (ext4 without its log flushed)"),
    (
        "test_power.py::test_without_waiting",
        "control: the same without waiting for the disk, until something is gone",
    ),
    ("test_stops.py::test_a_host", "network cut of a host: both ways, in, out"),
    ("test_stops.py::test_sigstop", "SIGSTOP of workers and the master, beyond the lease"),
    ("test_storage.py::test_a_full", "full disk, without a restart"),
    ("test_storage.py::test_an_io", "I/O error at the n-th commit"),
    ("test_clock.py", "wall clock jumps of up to a day (1,000)"),
    ("test_duplicates.py", "every result said two or three times, and after a restart"),
    ("test_poison.py", "tasks that exit, crash, hang, raise, fork, are killed, close their pipes"),
    ("test_stops.py::test_twenty", "SIGTERM under load"),
    ("test_damage.py", "bit flips, cut files, restore of a backup under load"),
    ("test_compound.py", "kills, SIGSTOP, full disk and misbehaving tasks at once"),
    ("test_tutorial.py", "control: the multiprocessing tutorial's master under the same kills"),
)
COUNTS = ("accepted", "completed", "dead", "lost", "duplicated", "unexpected", "reruns")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        found, passed, failed, skipped, seconds = run(minutes, Path(folder) / "reports")
    DOCUMENT.write_text("\n".join(document(found, passed, failed, skipped, seconds)) + "\n")
    print(DOCUMENT.read_text())
    return 1 if failed else 0


def run(minutes: float, reports: Path) -> tuple[list[dict[str, Any]], int, list[str], list[str], float]:
    """Run all of it, the kills for two fifths of the time; the reports, and how the tests ended."""
    kills = 0.4 * minutes
    environ = {
        **os.environ,
        "CHAOS_REPORT": str(reports),
        "CHAOS_MINUTES": f"{kills:g}",
        "CHAOS_TASKS": f"{int(4000 * kills)}",
    }
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider",
         "--basetemp", str(reports.parent / "tmp"), str(HERE)],
        cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    sys.stderr.write(done.stdout)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR "))]
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    last = next((line for line in reversed(lines) if " passed" in line or " failed" in line), "0 passed")
    passed = next(
        (int(a) for a, b in zip(last.split(), last.split()[1:], strict=False) if b.startswith("passed")), 0
    )
    found = [json.loads(line) for line in reports.read_text().splitlines()] if reports.exists() else []
    return found, passed, failed, skipped, time.monotonic() - begun


def document(
    found: list[dict[str, Any]], passed: int, failed: list[str], skipped: list[str], seconds: float
) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# What was tried against it",
        "",
        "Every fault that is claimed to be survived, under load, with what came of it. An oracle counts: it keeps",
        "its own synced log of what was submitted, what the master answered for and what was read; the tasks",
        "write down themselves when they ran. A run counts only if its fault has really happened.",
        "",
        f"Written by `make chaos-long` on {time.strftime('%Y-%m-%d')}: {seconds / 60:.0f} minutes, {cores} cores,"
        f" Python {platform.python_version()}, Linux {platform.release().partition('-')[0]};"
        f" {passed} tests passed, {len(failed)} failed, {len(skipped)} were skipped.",
        "",
        "| fault | happened | tasks | completed | dead | lost | duplicated | wrong | runs more than once |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for test, title in ROWS:
        mine = [report for report in found if test in report["test"]]
        total = {name: sum(report[name] for report in mine) for name in COUNTS}
        faults: Counter[str] = Counter()
        for report in mine:
            faults.update(report["faults"])
        happened = ", ".join(f"{count:,} {name}" for name, count in sorted(faults.items()) if count)
        missing = "it failed, see below" if any(test in line for line in failed) else "no report"
        counts = " | ".join(f"{total[name]:,}" for name in COUNTS) if mine else f"{missing} | | | | | |"
        lines.append(f"| {title} | {happened or '-'} | {counts} |")
    lines += [
        "",
        "*Lost*: answered for by the master, and without an end. *Duplicated*: recorded more than once. *Wrong*:",
        "nobody asked for it, not the result of its own task, or changed after it was read. *Runs more than once*",
        "are the price of a fault and promised to nobody: a task may run again, its outcome is recorded once.",
        "*Dead* are the tasks that were made to fail, each with its reason. The controls must lose: they show that",
        "the faults were faults.",
        "",
        "`make mutations` turns this round: it builds variants of the product that are wrong (reply",
        "before commit, no dedupe, no waiting for the disk, no expiry of leases, attempts not counted, duplicates",
        "answered before their commit, failures of old leases accepted), and names the test that notices each.",
        "",
        "`taskyard chaos` does the first of these to a yard of your own, as processes or in containers, and prints",
        "such a row for it.",
        "",
        "Not tried here: real power loss, real hosts and their networks, ARM; delays of packets.",
    ]
    if failed or skipped:
        lines += [
            "",
            "What failed or was skipped in this run:",
            "",
            *(f"- `{line}`" for line in failed + skipped),
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
