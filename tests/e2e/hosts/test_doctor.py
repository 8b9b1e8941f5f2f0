"""`taskyard doctor`: what is wrong with hosts is found before and after a deploy, each with its cure."""

import json
from typing import Any

import pytest
from testhosts import Project

pytestmark = pytest.mark.timeout(400)


def findings(yard: Project, *words: str, code: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    with yard.start("doctor", *words, "--json") as process:
        out, err = process.communicate()
    assert process.returncode == code, out + err
    return {(one["host"], one["check"]): one for one in json.loads(out)}


def test_before_and_after_a_deploy(yard: Project) -> None:
    """All is well; then a firewall is closed, a container stopped, a host gone."""
    (yard.path / ".env").write_text(f"TASKYARD_AUTHKEY={'k' * 32}\nTASKYARD_TASKS_DIR=tasks\n")
    before = findings(yard, "hosts.toml")
    assert {check for host, check in before if host == "two"} == {
        "ssh", "engine", "memory", "disk", "clock", "containers",
    }  # fmt: skip
    yard("deploy", "hosts.toml")
    assert findings(yard)["two", "port"]["found"].endswith(":5000 is open from here")

    two, three = yard.hosts["two"], yard.hosts["three"]
    yard.hosts["one"].run(f"iptables -I DOCKER-USER -s {three.address} -j DROP")
    try:
        two.docker("stop -t 0 taskyard-squares-worker-1")
        found = findings(yard, code=5)
    finally:
        yard.hosts["one"].run(f"iptables -D DOCKER-USER -s {three.address} -j DROP")
    assert "let TCP port 5000 in from three" in found["three", "port"]["cure"]
    assert found["two", "port"]["ok"]
    assert "taskyard-squares-worker-1 is exited" in found["two", "containers"]["found"]

    yard.inventory(two='ssh = "root@127.0.0.1:1"')
    assert "cannot be reached" in findings(yard, code=5)["two", "ssh"]["cure"]


def test_hosts_without_a_file(yard: Project) -> None:
    """In words, with the cure below the line; no key yet."""
    said = yard.start("doctor", f"root@{yard.hosts['one'].address}")
    out, _ = said.communicate()
    assert said.returncode == 5
    assert "    do: TASKYARD_AUTHKEY: is not set; run 'taskyard init' first" in out
