"""Which base the images get, and what is said about it; a docker that answers as each machine's would."""

import os
from pathlib import Path

import pytest

from taskyard.errors import EngineError
from taskyard.settings import Settings
from taskyard_ctl import images

PULLS = "echo 3.13-slim: Pulling from library/python"
SILENT = "exec sleep 30"
REFUSED = "echo no such host >&2; exit 1"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those that a test writes."""
    monkeypatch.delenv("BASE_IMAGE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    """Write a shell script; what it runs itself, it finds in the usual places."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def docker(folder: Path, images_here: str, pull: str) -> None:
    """A docker that has these images and pulls like this."""
    program(
        folder,
        "docker",
        f'case "$1" in\n  image) case " {images_here} " in *" $5 "*) echo id;; *) exit 1;; esac;;\n'
        f"  pull) {pull};;\nesac",
    )


def find() -> tuple[str, list[str]]:
    """The base, and what was said on the way."""
    said: list[str] = []
    return images.find_base(said.append), said


def test_a_chosen_base_is_taken_as_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BASE_IMAGE asks nobody."""
    monkeypatch.setenv("BASE_IMAGE", "company/python:3.12")
    assert find() == ("company/python:3.12", [])


def test_a_base_that_is_there_is_not_pulled(machine: Path) -> None:
    """The registry is asked once, not at every build."""
    docker(machine, images.REGISTRY_BASE, SILENT)
    assert find() == (images.REGISTRY_BASE, [])


def test_a_registry_that_answers_gives_the_base(machine: Path) -> None:
    """The main road."""
    docker(machine, "", PULLS)
    assert find() == (images.REGISTRY_BASE, [f"pulling {images.REGISTRY_BASE}"])


@pytest.mark.parametrize("pull", [SILENT, REFUSED])
def test_without_a_registry_the_base_is_built_and_that_is_said(
    pull: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses, and one behind a firewall that never answers."""
    monkeypatch.setattr(images, "PULL_PATIENCE_S", 0.2)
    docker(machine, "", pull)
    program(machine, "bash", f'echo "$1" >{machine}/ran')
    base, said = find()
    assert base == images.OWN_BASE
    assert "no registry reachable: building the base from Debian's packages" in said[-1]
    assert (machine / "ran").read_text().endswith("scripts/base-image\n")


def test_a_base_of_our_own_is_not_looked_for_in_a_registry_again(machine: Path) -> None:
    """Its script still runs, since it knows whether the recipe or the certificates changed."""
    docker(machine, images.OWN_BASE, SILENT)
    program(machine, "bash", "exit 0")
    assert find() == (images.OWN_BASE, [])


def test_what_the_script_says_last_is_the_error(machine: Path) -> None:
    """It names the cure for this machine."""
    docker(machine, images.OWN_BASE, SILENT)
    program(machine, "bash", "echo first >&2; echo 'base-image: no apt: do this' >&2; exit 1")
    with pytest.raises(EngineError, match=r"^base-image: no apt: do this$"):
        find()


def test_a_machine_without_docker_is_told_so(machine: Path) -> None:
    """One line, with a way that needs no Docker."""
    assert os.environ["PATH"] == str(machine)
    with pytest.raises(EngineError, match=r"^docker cannot be run .* use --local$"):
        find()


def test_images_of_ones_own_are_taken_and_nothing_is_built(machine: Path) -> None:
    """Not even a docker is asked: Compose pulls what is not there."""
    own = {"TASKYARD_MASTER_IMAGE": "company/master:1", "TASKYARD_WORKER_IMAGE": "company/worker:2"}
    settings = Settings.from_env(own, need_key=False)
    assert images.for_yard("y", settings, print) == images.Images("company/master:1", "company/worker:2")


def test_one_image_of_ones_own_stands_beside_the_one_built_here(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(machine, "", "exit 0")
    built = images.Images("taskyard-master:abc", "taskyard-worker:def")
    monkeypatch.setattr(images, "build_images", lambda tasks, say: built)
    settings = Settings.from_env({"TASKYARD_WORKER_IMAGE": "company/worker:2"}, need_key=False)
    assert images.for_yard("y", settings, print) == images.Images("taskyard-y-master:abc", "company/worker:2")
