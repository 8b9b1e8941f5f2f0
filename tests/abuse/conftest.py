"""Fixtures of the abuse tests, and their figures at the end of the run."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures import TABLE, Figures
from lab import Lab
from siege import Siege, besieged
from yardcerts import tls_of, yard


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []
    # Thousands of connections, and some to spare.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16) if most > 0 else 1 << 16, most))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for number, (row, values) in enumerate(config.stash[TABLE]):
        if not number:
            terminalreporter.section("figures")
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        terminalreporter.write_line(f"{row}: {said}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request)


@pytest.fixture
def siege(tmp_path: Path, figures: Figures) -> Iterator[Siege]:
    with besieged(Lab(tmp_path), figures) as it:
        yield it


@pytest.fixture
def sealed(tmp_path: Path, figures: Figures) -> Iterator[Siege]:
    """The same with TLS."""
    certs = yard(tmp_path / "certs")
    with besieged(Lab(tmp_path), figures, certs.path, **tls_of(certs)) as it:
        yield it
