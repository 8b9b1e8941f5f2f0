"""One compose file that Compose v2 and docker-compose 1.29 both read, and that leaves no setting out."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from machine import lacking

from taskyard.settings import REGISTRY

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
KEY = "k" * 32
# Between containers of one host there is no TLS and no invitation, and an image has what is required.
NOT_IN_COMPOSE = ("TASKYARD_TLS_", "TASKYARD_JOIN", "TASKYARD_ENVIRONMENTS")


def config(
    compose: list[str], folder: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the file, in a folder without `.env`."""
    command = [*compose, "--file", str(FILE), "--project-directory", str(folder), "config", *options]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def services(tmp_path: Path) -> dict[str, Any]:
    """The services with all defaults, as data; only Compose v2 prints them as JSON."""
    done = config(["docker", "compose"], tmp_path, "--format", "json", TASKYARD_AUTHKEY=KEY)
    if done.returncode:
        lacking("docker compose")
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_both_composes_read_the_file(compose: list[str], tmp_path: Path) -> None:
    """No key that only one of them knows."""
    done = config(compose, tmp_path, "--quiet", TASKYARD_AUTHKEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_key_both_name_the_next_step(compose: list[str], tmp_path: Path) -> None:
    """The first thing that a new user meets."""
    done = config(compose, tmp_path, "--quiet")
    assert done.returncode != 0
    assert "run 'taskyard init' first" in done.stderr


def test_the_master_is_published_where_clients_of_this_host_dial(services: dict[str, Any]) -> None:
    """TASKYARD_ADDRESS is what gets published, so no second name has to keep in step; by default loopback."""
    port, _ = services["master"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "5002", 5000)
    default = next(setting.default for setting in REGISTRY if setting.name == "ADDRESS")
    assert default == "127.0.0.1:5002"
    assert "ports" not in services["worker"]


@pytest.mark.parametrize(("web", "published"), [("127.0.0.1:8590", "127.0.0.1:8590"), ("", "127.0.0.1:0")])
def test_the_dashboard_is_published_on_loopback(
    compose: list[str], tmp_path: Path, web: str, published: str
) -> None:
    """At the port of .env; where it has none, at any, so that it is in nobody's way."""
    done = config(compose, tmp_path, TASKYARD_AUTHKEY=KEY, TASKYARD_WEB=web)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    short = f"- {published.replace(':0', ':')}:8585/tcp"
    if short not in lines:  # v2 writes it long
        at = lines.index("target: 8585")
        assert "host_ip: 127.0.0.1" in lines[at - 2 : at]
        assert ('published: "8590"' in lines[at : at + 2]) == bool(web)


@pytest.mark.parametrize("role", ["master", "worker"])
def test_every_setting_of_a_role_reaches_its_container(role: str, services: dict[str, Any]) -> None:
    """A setting that compose does not hand through would be ignored in silence."""
    wanted = {setting.variable for setting in REGISTRY if role in setting.roles.split()}
    wanted = {name for name in wanted if not name.startswith(NOT_IN_COMPOSE)}
    assert wanted == services[role]["environment"].keys()


def test_every_name_in_the_file_is_a_setting() -> None:
    """And the other way: a name that the registry lacks would be refused by the command."""
    names = set(re.findall(r"TASKYARD_[A-Z0-9_]*[A-Z0-9]", FILE.read_text()))
    assert names <= {setting.variable for setting in REGISTRY}


@pytest.mark.parametrize("role", ["master", "worker"])
def test_services_are_confined(role: str, services: dict[str, Any]) -> None:
    """What a task or a peer could do to the host, were the process taken over: as little as can be."""
    service = services[role]
    assert service["read_only"] and service["init"]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"] == {"max-file": "3", "max-size": "10m"}
    assert all(volume["read_only"] for volume in service["volumes"] if volume["type"] == "bind")


def test_the_worker_may_drain_before_it_is_killed(services: dict[str, Any]) -> None:
    """The grace period is longer than the drain, or a stop would cost tasks."""
    drain = float(next(setting.default for setting in REGISTRY if setting.name == "DRAIN"))
    minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", services["worker"]["stop_grace_period"]).groups()
    assert int(minutes) * 60 + int(seconds) > drain
