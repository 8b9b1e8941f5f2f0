"""The images and the containers that compose makes of them: what is inside, and what they may do."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from taskyard.errors import EngineError
from taskyard_ctl.images import OWN_BASE, Images, build_images, find_base

ROOT = Path(__file__).parents[2]
AIM_BYTES = 100_000_000  # both images together, above their base
UID = "10001"
Docker = Callable[..., str]

# What a container can say about itself: its user, its capabilities, and where it can write.
LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, os

def writable(folder):
    try:
        open(folder + "/probe", "w").close()
    except OSError:
        return False
    return True

folders = "/", "/opt/taskyard/app", "/tmp", "/run/taskyard", "/var/lib/taskyard"
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
ours = [found for found in metadata.distributions() if "/opt/" in str(found.locate_file(""))]
print(json.dumps({
    "uid": os.getuid(),
    "gid": os.getgid(),
    "bounds": status["CapBnd"],
    "no_new_privs": status["NoNewPrivs"],
    "writable": [folder for folder in folders if writable(folder)],
    "rooms": sorted(os.listdir("/opt/taskyard/app")),
    "packages": sorted(found.metadata["Name"].lower().replace("_", "-") for found in ours),
    "compiled": all(os.path.exists(util.cache_from_source(module.__file__)) for module in (json, metadata)),
}))
"""


def look(docker: Docker, image: str, *options: str) -> dict[str, Any]:
    """What a container of the image says about itself."""
    printed = docker("run", "--rm", *options, "--entrypoint", "python", image, "-c", LOOK)
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.mark.parametrize("role", ["master", "worker"])
def test_an_image_holds_core_and_its_own_room(role: str, docker: Docker, images: Images) -> None:
    """No other room, no pip, no package that the lock of its role does not name."""
    seen = look(docker, getattr(images, role))
    assert seen["rooms"] == ["taskyard", f"taskyard_{role}"]
    lock = (ROOT / "locks" / f"{role}.txt").read_text()
    assert seen["packages"] == sorted(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert seen["compiled"]  # bytecode is there, since nobody can write it later


@pytest.mark.parametrize("role", ["master", "worker"])
def test_an_image_runs_as_nobody_in_particular(role: str, docker: Docker, images: Images) -> None:
    """A numeric user, and of its folders only state and run are its own."""
    seen = look(docker, getattr(images, role))
    assert (seen["uid"], seen["gid"]) == (int(UID), int(UID))
    assert seen["writable"] == ["/tmp", "/run/taskyard", "/var/lib/taskyard"]


@pytest.mark.parametrize("role", ["master", "worker"])
def test_an_image_says_what_it_is_and_how_to_stop_and_probe_it(
    role: str, docker: Docker, images: Images
) -> None:
    """The contract with whoever runs it: compose, a host's engine, Swarm."""
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", getattr(images, role)))
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["python", "-m", f"taskyard_{role}"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Interval"] == {"master": 2, "worker": 30}[role] * 10**9
    assert config["Labels"]["org.opencontainers.image.title"] == f"taskyard-{role}"
    assert config["Labels"]["org.opencontainers.image.version"]


def test_the_images_are_small(docker: Docker, images: Images) -> None:
    """Both together above their base, which they share."""

    def size(image: str) -> int:
        return int(docker("image", "inspect", "--format", "{{.Size}}", image))

    base = size(find_base(print))
    assert 0 < (size(images.master) - base) + (size(images.worker) - base) < AIM_BYTES


def test_an_unchanged_tree_builds_nothing(images: Images, tmp_path: Path) -> None:
    """So that a second `make demo` is quick; a tasks folder that asks for nothing changes nothing."""
    said: list[str] = []
    assert build_images(ROOT / "examples", said.append) == images
    assert build_images(tmp_path, said.append) == images
    assert said == []


def test_the_tasks_requirements_are_in_the_worker(docker: Docker, images: Images, tmp_path: Path) -> None:
    """And in a worker image of its own, so that two yards on one host don't meet in one name."""
    (tmp_path / "requirements.txt").write_text("# small, and pure Python\nsix==1.17.0\n")
    built = build_images(tmp_path, print)
    assert built.master == images.master
    assert built.worker != images.worker
    assert "six" in look(docker, built.worker)["packages"]
    docker("image", "rm", built.worker)


def test_the_images_build_without_buildkit(
    docker: Docker, images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where there is no buildx, Docker still builds the old way."""
    (tmp_path / "requirements.txt").write_text("six==1.16.0\n")
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    built = build_images(tmp_path, print)
    seen = look(docker, built.worker)
    assert seen["rooms"] == ["taskyard", "taskyard_worker"]
    assert "six" in seen["packages"]
    docker("image", "rm", built.worker)


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_a_requirement_that_contradicts_ours_is_named(
    buildkit: str, images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line that says what and where, however the engine builds; the images stay as they are."""
    # A file like no other: BuildKit shows the output of a step that two builds share to one of them only.
    (tmp_path / "requirements.txt").write_text(f"msgspec==0.18.6  # {tmp_path}\n")
    monkeypatch.setenv("DOCKER_BUILDKIT", buildkit)
    with pytest.raises(EngineError, match=r"^taskyard-worker cannot be built: .*msgspec==0\.18\.6") as raised:
        build_images(tmp_path, print)
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "requirements.txt") in str(raised.value)


def test_the_base_from_debians_packages_is_made_once(docker: Docker, images: Images) -> None:
    """Asked again, the script finds it; this machine's certificates are in it."""
    if not docker("image", "inspect", OWN_BASE, check=False):
        pytest.skip("the registry's base was pulled here, so there was no need for one of our own")
    done = subprocess.run([ROOT / "scripts" / "base-image"], capture_output=True, text=True, check=True)
    assert "up to date" in done.stderr
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    carried = docker("run", "--rm", OWN_BASE, "sha256sum", str(bundle)).split()[0]
    here = subprocess.run(["sha256sum", bundle], capture_output=True, text=True, check=True).stdout.split()[0]
    assert carried == here


@pytest.fixture
def project(
    compose: list[str], docker: Docker, images: Images, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Compose on our file, as a project of its own, gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": f"images-test-{os.getpid()}",
        "TASKYARD_MASTER_IMAGE": images.master,
        "TASKYARD_WORKER_IMAGE": images.worker,
        "TASKYARD_ADDRESS": address,
        "TASKYARD_AUTHKEY": "k" * 32,
        "TASKYARD_DATA_DIR": str(tmp_path),
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*compose, "--file", str(ROOT / "docker-compose.yml"), *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    try:
        yield run
    finally:
        print(run("logs"))  # shown if the test failed
        run("down", "--volumes", "--timeout", "5")


def inspect(docker: Docker, containers: str) -> list[dict[str, Any]]:
    """Everything that the engine knows about these containers."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", *containers.split()))
    return found


def test_compose_confines_its_containers(project: Callable[..., str], docker: Docker) -> None:
    """What the file says is what the engine got, from either Compose, for every worker."""
    project("up", "--no-start", "--scale", "worker=2")
    containers = inspect(docker, docker("ps", "--all", "--quiet", "--filter", f"label={label()}"))
    assert len(containers) == 3
    for container in containers:
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Init"] and host["PidsLimit"] > 0
        assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
        assert all(not mount["RW"] for mount in container["Mounts"] if mount["Type"] == "bind")


def test_compose_runs_a_healthy_master_on_loopback(project: Callable[..., str], docker: Docker) -> None:
    """Without capabilities, on a root that it can't write, with a journal on a volume that it can."""
    project("up", "--detach", "master")
    [container] = docker("ps", "--quiet", "--filter", f"label={label()}").split()
    eventually(
        lambda: inspect(docker, container)[0]["State"]["Health"]["Status"] == "healthy", "the master's health"
    )
    ports = inspect(docker, container)[0]["NetworkSettings"]["Ports"]["5000/tcp"]
    assert [port["HostIp"] for port in ports] == ["127.0.0.1"]
    seen = json.loads(docker("exec", container, "python", "-c", LOOK))
    assert int(seen["bounds"], 16) == 0
    assert seen["no_new_privs"] == "1"
    assert seen["writable"] == ["/tmp", "/run/taskyard", "/var/lib/taskyard"]


def label() -> str:
    """By which both Composes mark the containers of the project."""
    return f"com.docker.compose.project=images-test-{os.getpid()}"
