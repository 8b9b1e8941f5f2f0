"""What is promised to those who watch a yard from outside: names of metrics and of log events."""

import ast
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

from machine import ROOT
from prometheus_client.parser import text_string_to_metric_families

from taskyard.messages import MasterStatus, StatusReply
from taskyard_master.web import metrics

DOCS = ROOT / "docs"
ROOMS = ("core", "master", "worker", "scripts")
METRIC = re.compile(r"\btaskyard_[a-z_]+")


def exported() -> dict[str, set[str]]:
    """Each sample's name, with the names of its labels."""
    master = MasterStatus("a", 1, "1", "3", 0.0, 1, "", "j", 1, 1, 1, [])
    control = SimpleNamespace(overview=lambda: StatusReply(0, master, [], []))
    service = SimpleNamespace(control=control, journal=SimpleNamespace(commits=1))
    text = metrics.render(service).decode()  # type: ignore[arg-type]
    found: dict[str, set[str]] = {
        "taskyard_worker_seconds_total": {"function"}
    }  # has samples once a task ran
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[str]:
    """Every PromQL expression of the dashboard and the alert rules."""
    for panel in json.loads((DOCS / "grafana.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from re.findall(r"^ +expr: (.+)$", (DOCS / "alerts.yml").read_text(), re.MULTILINE)


def test_grafana_and_alerts_use_only_what_is_exported() -> None:
    there = exported()
    used: set[str] = set()
    for expression in expressions():
        used |= set(METRIC.findall(re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression)))
        for name, labels in re.findall(r"(taskyard_[a-z_]+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", labels)) <= there[name], expression
    assert used - there.keys() == set()
    assert there.keys() - used == set(), "the dashboard shows all of them"


def test_states_in_expressions_exist() -> None:
    known = set(metrics.STATES) | {"idle", "running", "draining", "drained", "missing", "busy"}
    for expression in expressions():
        for states in re.findall(r'state=~?"([^"]+)"', expression):
            assert set(states.split("|")) <= known, expression


def test_the_page_of_metrics_lists_them_all() -> None:
    rows = re.findall(r"^\| `(taskyard_[a-z_]+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(exported())


def events() -> set[str]:
    """The names in all calls of `event` and of `Complaints.say`."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                complaint = called == "say" and "complaints" in ast.unparse(node.func)
                at = 0 if complaint else 1
                if (complaint or called == "event") and len(node.args) > at:
                    name = node.args[at]
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        found.add(name.value)
    return found


def test_the_page_of_logs_lists_every_event() -> None:
    """A collector matches on them: one that is gone or new is a change that a user notices."""
    rows = re.findall(r"^\| `([a-z-]+)` \|", (DOCS / "logs.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == events()
