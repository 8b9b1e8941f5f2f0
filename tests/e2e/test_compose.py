"""The verbs in containers, by Compose v2 and by docker-compose 1.29."""

import os
import secrets
import shutil
import stat
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import scenarios
from machine import ROOT, lacking
from support import eventually
from yards import TestYard, free_port

from taskyard_ctl.images import Images, build_images

pytestmark = pytest.mark.timeout(600)  # the first one builds the images

Docker = Callable[..., str]
NewYard = scenarios.NewYard


@pytest.fixture(scope="module", autouse=True)
def kept(docker: Docker) -> Iterator[Images]:
    """The images, used by containers that are never started, so that no `destroy` here takes them away."""
    images = build_images(ROOT / "examples", print)
    pins = [docker("create", image) for image in (images.master, images.worker)]
    yield images
    docker("rm", *pins)


@contextmanager
def containers(folder: Path, docker: Docker, **values: str) -> Iterator[TestYard]:
    """A yard whose project has a name of its own, and of which nothing is left."""
    yard = TestYard(folder / f"yard-{secrets.token_hex(3)}", **values)
    try:
        yield yard
    finally:
        yard.run("down", "--deadline", "0")
        docker("volume", "rm", "--force", f"{yard.folder.name}_journal")


@pytest.fixture
def new_yard(tmp_path: Path, docker: Docker) -> Iterator[NewYard]:
    with containers(tmp_path, docker) as yard:

        def make(**values: str) -> TestYard:
            if values:
                lines = (yard.folder / ".env").read_text().splitlines()
                kept = [line for line in lines if line.partition("=")[0] not in values]
                kept += [f"{name}={value}" for name, value in values.items()]
                (yard.folder / ".env").write_text("\n".join(kept) + "\n")
            return yard

        yield make


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, docker: Docker) -> Iterator[TestYard]:
    with containers(tmp_path_factory.mktemp("compose"), docker) as yard:
        done = yard.run("up", "--workers", "2")
        assert (
            done.err.splitlines()[-1] == f"the yard is up: master at {yard.address}, 2 workers, as containers"
        )
        yield yard


@pytest.fixture
def only_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Compose v2."""
    if shutil.which("docker-compose") is None:
        lacking("docker-compose")
    program = shutil.which("docker")
    script = tmp_path / "bin" / "docker"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n[ "$1" = compose ] && exit 1\nexec {program} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose engine does not answer."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")


def names(docker: Docker, yard: TestYard) -> dict[str, str]:
    """The ids of the yard's containers by service and number."""
    label = "com.docker.compose"
    lines = docker(
        "ps", "--filter", f"label={label}.project={yard.folder.name}", "--format",
        f'{{{{.Label "{label}.service"}}}}-{{{{.Label "{label}.container-number"}}}} {{{{.ID}}}}',
    ).splitlines()  # fmt: skip
    return dict(line.split() for line in lines)


KILL = """
import os, sys
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) not in (1, os.getpid()):
        if sys.argv[1].encode() in open(f"/proc/{pid}/cmdline", "rb").read():
            os.kill(int(pid), 9)
"""


def kill_inside(docker: Docker, container: str, module: str) -> None:
    """Kill -9 what runs inside; PID 1 is the engine's, which ends by itself then."""
    docker("exec", container, "python", "-c", KILL, module, check=False)


class TestWorking(scenarios.Working):
    """As on every engine, and what only containers have."""

    def test_files_that_workers_cannot_see_are_refused(self, yard: TestYard) -> None:
        done = yard.run("submit", "work:lines_of", "--glob", "/usr/share/doc/*/changelog*", code=2)
        assert "is not inside TASKYARD_DATA_DIR" in done.err
        assert done.err.count("\n") == 1


class TestScaling(scenarios.Scaling):
    """As on every engine."""

    def test_the_others_keep_their_ids(self, yard: TestYard, docker: Docker) -> None:
        before = names(docker, yard)
        yard.run("scale", "4")
        yard.run("scale", "2")
        after = names(docker, yard)
        assert len(after) == 3
        assert after["master-1"] == before["master-1"]
        assert len(set(after.values()) & set(before.values())) >= 1


class TestLiving(scenarios.Living):
    """As on every engine."""

    def test_with_the_key_in_a_file_no_secret_is_shown(self, new_yard: NewYard, docker: Docker) -> None:
        """The token of the dashboard, which stands in .env, goes to the master as a file too."""
        key, token, board = secrets.token_hex(32), secrets.token_urlsafe(24), f"127.0.0.1:{free_port()}"
        yard = new_yard(
            TASKYARD_AUTHKEY="", TASKYARD_AUTHKEY_FILE="key", TASKYARD_WEB=board, TASKYARD_WEB_TOKEN=token
        )
        (yard.folder / "key").write_text(key)
        yard.run("up")
        shown = docker("inspect", *names(docker, yard).values())
        assert key not in shown and token not in shown
        assert len(yard.run("submit", "work:square", "--range", "0:3", "--wait").rows()) == 3
        page = urllib.request.Request(f"http://{board}/metrics", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(page) as reply:
            assert reply.status == 200
        copy = yard.folder / ".taskyard" / "taskyard_web_token"
        assert copy.read_text() == token
        yard.run("destroy", "--volumes")
        assert not copy.exists()

    def test_nothing_is_left_after_down_but_the_journal(self, new_yard: NewYard, docker: Docker) -> None:
        yard = new_yard()
        yard.run("up")
        assert len(names(docker, yard)) == 2
        yard.run("down")
        assert names(docker, yard) == {}
        networks = docker("network", "ls", "--format", "{{.Name}}").splitlines()
        assert f"{yard.folder.name}_yard" not in networks
        assert f"{yard.folder.name}_journal" in docker("volume", "ls", "--format", "{{.Name}}").splitlines()
        yard.run("destroy", "--volumes")
        assert (
            f"{yard.folder.name}_journal" not in docker("volume", "ls", "--format", "{{.Name}}").splitlines()
        )

    def test_destroy_removes_images_of_its_own(self, new_yard: NewYard, docker: Docker, kept: Images) -> None:
        """What another yard, which may be down, has a name for stays; what nobody else has goes."""
        yard = new_yard()
        yard.run("up", "--workers", "0")
        own, shared = f"taskyard-{yard.folder.name}-worker", f"taskyard-{secrets.token_hex(4)}-worker:1"
        docker("tag", kept.worker, shared)
        made = docker("create", kept.worker)
        alone = secrets.token_hex(6)
        docker("commit", made, f"taskyard-worker:{alone}")
        docker("tag", f"taskyard-worker:{alone}", f"{own}:{alone}")
        docker("rm", made)
        try:
            done = yard.run("destroy", "--volumes")
            assert done.err.count(f"removed image {own}:") >= 2
            assert not docker("image", "ls", "--quiet", own)
            assert not docker("image", "ls", "--quiet", f"taskyard-worker:{alone}")
            for name in (shared, kept.worker, kept.master):
                assert docker("image", "inspect", "--format", "{{.Id}}", name)
        finally:
            docker("rmi", shared)

    def test_a_bare_compose_up_is_a_yard_too(self, new_yard: NewYard, docker: Docker) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "1")
        (yard.folder / ".taskyard" / "yard.json").unlink()
        yard.run("scale", "2")
        assert len(yard.workers()) == 2
        assert "worker-2" in yard.run("logs").out
        yard.run("down")
        assert names(docker, yard) == {}

    def test_logs_follow_a_restart_and_a_new_worker(self, new_yard: NewYard, docker: Docker) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "1")
        with yard.start("logs", "-f", "--grep", "joined the master") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("worker-1 | ")
            kill_inside(docker, names(docker, yard)["worker-1"], "taskyard_worker")
            assert process.stdout.readline().startswith("worker-1 | ")
            yard.run("scale", "2")
            assert process.stdout.readline().startswith("worker-2 | ")
            process.terminate()

    def test_without_an_engine_processes_are_started(self, new_yard: NewYard, no_engine: None) -> None:
        yard = new_yard()
        done = yard.run("up", "--workers", "1")
        first, *_, last = done.err.splitlines()
        assert first.startswith("no Docker engine answers (")
        assert first.endswith("; starting processes instead, as 'taskyard up --local' does")
        assert last.endswith(", 1 worker, as processes")
        assert "as processes" in last
        yard.run("down")

    def test_two_folders_of_one_name_do_not_meet(self, new_yard: NewYard, tmp_path: Path) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "0")
        other = TestYard(tmp_path / "elsewhere" / yard.folder.name)
        assert other.run("down").err == "no yard runs here\n"
        done = other.run("up", code=2)
        assert f"is taken by the containers of {yard.folder}: set another COMPOSE_PROJECT_NAME" in done.err
        assert yard.status()["master"]

    def test_docker_compose_1_29_does_it_all(self, new_yard: NewYard, docker: Docker, only_old: None) -> None:
        yard = new_yard()
        yard.run("up", "--workers", "2")
        before = names(docker, yard)
        assert len(before) == 3
        assert len(yard.run("submit", "work:square", "--range", "0:10", "--wait").rows()) == 10
        yard.run("scale", "3")
        assert before.items() < names(docker, yard).items()
        yard.run("scale", "1")
        assert len(yard.workers()) == 1
        yard.run("down")
        assert names(docker, yard) == {}


def test_a_killed_master_comes_back_with_everything(yard: TestYard, docker: Docker) -> None:
    gate = yard.data / "killed"
    yard.run("submit", "work:hold", "--arg", f'"{gate}"', "--job", "survivor")
    yard.busy(1)
    started = yard.status()["master"]["started"]
    kill_inside(docker, names(docker, yard)["master-1"], "taskyard_master")
    gate.touch()
    eventually(lambda: yard.status()["master"]["started"] > started, "the master is back")
    assert yard.ended("survivor")["completed"] == 1
