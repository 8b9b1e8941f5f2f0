"""Pictures of what was measured: `plots.py FOLDER`, with the Python of benchmarks/.venv."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "taskyard"  # the same picture for the same figures
from matplotlib import pyplot  # noqa: E402

OURS, THEIRS = "#1f6feb", "#8b949e"


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "results.json").exists():
        figures = json.loads((folder / "results.json").read_text())["figures"]
        throughput(figures, folder / "throughput.svg")
        backlog(figures, folder / "backlog.svg")
    if (folder / "curves.json").exists():
        for curve in json.loads((folder / "curves.json").read_text()):
            plot(curve, folder / f"curve-{curve['name']}.svg")


def throughput(figures: list[dict[str, Any]], path: Path) -> None:
    rates = sorted(
        ((statistics.median(f["values"]), f) for f in figures if f["scenario"] == "throughput"),
        key=lambda pair: pair[0],
    )
    if not rates:
        return
    fig, axes = pyplot.subplots(figsize=(8, 0.4 * len(rates) + 1))
    medians = [median for median, _ in rates]
    errors = [[m - min(f["values"]) for m, f in rates], [max(f["values"]) - m for m, f in rates]]
    colours = [OURS if f["side"].startswith("taskyard") else THEIRS for _, f in rates]
    bars = axes.barh([f["side"] for _, f in rates], medians, xerr=errors, color=colours)
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=8)
    axes.set_xscale("log")
    axes.set_xlim(right=max(medians) * 10)
    axes.set_xlabel("no-op tasks a second, median and spread")
    save(fig, path)


def backlog(figures: list[dict[str, Any]], path: Path) -> None:
    found = [f for f in figures if f["scenario"] == "backlog" and f["side"].endswith(" tasks")]
    by_unit = {
        unit: [
            (int(f["side"].split()[0].replace(",", "")), statistics.median(f["values"]))
            for f in found
            if f["unit"] == unit
        ]
        for unit in ("submitted/s", "MiB RSS")
    }
    if not all(by_unit.values()):
        return
    fig, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for one, (unit, points) in zip(axes, by_unit.items(), strict=True):
        one.plot(*zip(*points, strict=True), marker="o", color=OURS)
        one.set_xscale("log")
        one.set_ylim(bottom=0)
        one.set_xlabel("tasks that wait")
        one.set_ylabel(unit)
    save(fig, path)


def plot(curve: dict[str, Any], path: Path) -> None:
    if not curve["points"]:
        return
    units = curve["units"]
    fig, axes = pyplot.subplots(1, len(units), figsize=(4.5 * len(units), 3.2), squeeze=False)
    xs = [point[0] for point in curve["points"]]
    for number, unit in enumerate(units):
        one = axes[0][number]
        one.plot(xs, [point[number + 1] for point in curve["points"]], marker="o", color=OURS)
        if min(xs) > 0:
            one.set_xscale("log")
        else:
            one.set_xscale("symlog", linthresh=min(x for x in xs if x > 0))
        one.set_ylim(bottom=0)
        one.set_xlabel(curve["x"])
        one.set_ylabel(unit)
    save(fig, path)


def save(fig: Any, path: Path) -> None:
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})
    pyplot.close(fig)


if __name__ == "__main__":
    main()
