"""A machine without ssh becomes a worker by one pasted line, and is shut out again."""

import json
import re
from pathlib import Path

import pytest
from support import eventually
from testhosts import Project, TestHost, sh

pytestmark = pytest.mark.timeout(400)


def carry(image: str, there: TestHost, folder: Path) -> None:
    """Bring an image to a machine, as on a stick."""
    sh("docker", "save", "--output", str(folder / "image.tar"), image)
    sh("docker", "cp", str(folder / "image.tar"), f"{there.container}:/image.tar")
    there.docker("load --quiet --input /image.tar")


def test_a_pasted_line(yard: Project, tmp_path: Path) -> None:
    """It joins, works, outlives restarts and deploys; revoked, it is out while the master runs on."""
    desk = yard.hosts.pop("three")
    yard.inventory()
    try:
        yard("deploy", "hosts.toml")
        assert "'taskyard deploy' makes it a worker" in yard("join", "two", code=2)
        line = yard("join", "desk", "--slots", "2").strip()
        image = re.search(r"docker save (\S+)", yard.said)
        assert image is not None
        carry(image[1], desk, tmp_path)
        desk.run(line)
        eventually(lambda: yard.joined() == ["desk", "two", "two"], "it joins", 60)
        [seen] = json.loads(desk.docker("inspect taskyard-desk"))
        assert seen["Config"]["User"] == "10001:10001" and seen["HostConfig"]["ReadonlyRootfs"]

        desk.docker("rm --force taskyard-desk")
        assert desk.run(line)  # the volume has what the ticket brought
        eventually(lambda: yard.joined() == ["desk", "two", "two"], "it joins again", 60)
        results = [json.loads(row) for row in yard("run", "jobs:slow", "--range", "0:40").splitlines()]
        assert {result["host"] for result in results} == {"desk", "two"}

        before = yard.status()["master"]["started"]
        assert "knows it within a second" in (yard("join", "--revoke", "desk"), yard.said)[1]
        eventually(lambda: yard.joined() == ["two", "two"], "it is out", 60)
        assert yard.status()["master"]["started"] == before
        yard("deploy")
        assert "nothing is to do" in yard.said
        desk.docker("rm --force taskyard-desk")
        desk.docker("volume rm taskyard-desk")
        again = line.replace("--detach", "--rm").replace("--restart unless-stopped ", "")
        assert "does not take the ticket for desk" in desk.run(f"{again} 2>&1; true")
    finally:
        yard.hosts["three"] = desk
