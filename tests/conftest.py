"""Fixtures that all tests share: a clean environment, and the Docker engine with our images in it."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from machine import ROOT, lacking

from taskyard_ctl.images import Images, build_images

IMAGES_TIMEOUT_S = 900  # the first build makes the base too


def pytest_configure() -> None:
    """A yard that the caller is running must not leak into the tests."""
    for name in [name for name in os.environ if name.startswith("TASKYARD_")]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test asks for the images first waits for their build."""
    for item in items:
        if "images" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(IMAGES_TIMEOUT_S))


@pytest.fixture(scope="session")
def docker() -> Callable[..., str]:
    """The docker program, for an engine that answers: docker("image", "ls") gives its output."""

    def run(*arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    if shutil.which("docker") is None or not run("version", "--format", "{{.Server.Version}}", check=False):
        lacking("a Docker engine")
    return run


@pytest.fixture
def images(docker: Callable[..., str]) -> Images:
    """The images of this tree, with the requirements of the examples; built when the first test asks.

    Later ones find them, or make them again where a test has destroyed its yard with all that was its own.
    """
    return build_images(ROOT / "examples", print)


@pytest.fixture(params=["docker compose", "docker-compose"])
def compose(request: pytest.FixtureRequest) -> list[str]:
    """The words that start Compose: a test that asks for it runs with v2 and with 1.29."""
    words = str(request.param).split()
    if shutil.which(words[0]) is None or subprocess.run([*words, "version"], capture_output=True).returncode:
        lacking(request.param)
    return words
