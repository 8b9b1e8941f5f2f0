"""`taskyard bench` measures the yard and the plain pattern, and leaves nothing behind."""

from pathlib import Path

from yards import TestYard


def test_bench_measures_both_and_leaves_no_job(tmp_path: Path) -> None:
    yard = TestYard(tmp_path / "yard")
    try:
        yard.run("bench", "work:square", code=3)  # no master answers yet
        yard.run("up", "--local", "--workers", "2")
        figures = yard.run("bench", "work:square", "--tasks", "20000", "--json").json()
        table = yard.run("bench", "work:square", "--tasks", "20000").out
        assert figures["slots"] == 2
        assert all(figures[side][what] > 0 for side in ("yard", "pattern") for what in figures["yard"])
        assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [
            "this yard, durable", "plain pattern", "ratio",
        ]  # fmt: skip
        assert [job["id"] for job in yard.status()["jobs"] if job["id"] != "plain"] == []
    finally:
        yard.run("down", "--deadline", "0")
