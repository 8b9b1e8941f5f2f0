"""Fixtures of the tests with hosts: real engines and real ssh, in containers on this machine."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testhosts import Lab, Project, TestHost


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves these out, `make test-hosts` runs them."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.hosts)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, docker: Callable[..., str]) -> Iterator[Lab]:
    """A network for test hosts."""
    if shutil.which("ssh") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this machine lacks OpenSSH's client")
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.close()


@pytest.fixture
def reach(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab, with the way into it for this process."""
    for name, value in lab.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    lab.configure()
    return lab


@pytest.fixture
def one(lab: Lab) -> TestHost:
    """One host."""
    return lab.host("one")


@pytest.fixture
def yard(tmp_path: Path, lab: Lab) -> Iterator[Project]:
    """A project with three hosts on which nothing runs."""
    lab.configure()
    folder = tmp_path / "squares"
    folder.mkdir()
    project = Project(folder, lab)
    yield project
    for host in project.hosts.values():
        host.clean()
