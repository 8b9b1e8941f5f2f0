"""Images for hosts with another kind of CPU: told by the engine itself, not by their names."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskyard.errors import SettingsError
from taskyard_ctl.baking import bake
from taskyard_ctl.images import Images
from taskyard_ctl.inventory_keys import Given

Docker = Callable[..., str]
BASE = "taskyard-test-arm64:1"
YARD = "test-architectures"


def archive(name: str, architecture: str) -> bytes:
    """An image of one small layer, as `docker save` writes them."""

    def tar(**files: bytes) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as file:
            for path, data in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return content.getvalue()

    layer = tar(file=b"of a foreign machine")
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}}
    manifest = [{"Config": "config", "RepoTags": [name], "Layers": ["layer"]}]
    return tar(
        layer=layer, config=json.dumps(config).encode(), **{"manifest.json": json.dumps(manifest).encode()}
    )


@pytest.fixture
def foreign(docker: Docker) -> Iterator[str]:
    """An image for arm64, or for amd64 where that is foreign."""
    here = docker("version", "--format", "{{.Server.Arch}}")
    architecture = "amd64" if here == "arm64" else "arm64"
    subprocess.run(
        ["docker", "load", "--quiet"], input=archive(BASE, architecture), check=True, capture_output=True
    )
    yield architecture
    docker("rmi", "--force", BASE)
    for role in ("master", "worker"):  # by name: another yard may have an image of the same content
        names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"taskyard-{YARD}-{role}")
        for name in names.split():
            docker("rmi", name)


def test_tasks_for_another_cpu(docker: Docker, images: Images, foreign: str, tmp_path: Path) -> None:
    """The tasks go into what hosts.toml names, and nothing is run for it; the same again is the same."""
    (tmp_path / "tasks.py").write_text("def f():\n    return 1\n")
    said: list[str] = []
    given = {foreign: Given(BASE, BASE)}
    made = bake(YARD, tmp_path, said.append, given)
    [(architecture, master, worker)] = made.others
    assert architecture == foreign
    for name, expected in ((made.worker, docker("version", "--format", "{{.Server.Arch}}")),
                           (worker, foreign), (master, foreign)):  # fmt: skip
        assert docker("image", "inspect", "--format", "{{.Architecture}}", name) == expected
    container = docker("create", worker, "none")
    try:
        assert docker("cp", f"{container}:/tasks/tasks.py", str(tmp_path / "copy")) == ""
    finally:
        docker("rm", container)
    assert (tmp_path / "copy").read_text() == (tmp_path / "tasks.py").read_text()
    assert made.image("worker", foreign) == worker != made.image("worker") == made.worker
    assert set(made.images) == {made.master, made.worker, master, worker}
    (tmp_path / "copy").unlink()
    again = bake(YARD, tmp_path, said.append, given)
    assert again == made and len(said) == 2
    assert bake(YARD, tmp_path, said.append).id != made.id


def test_images_that_are_not_what_hosts_toml_says(images: Images, foreign: str, tmp_path: Path) -> None:
    """For another CPU, or not here."""
    with pytest.raises(SettingsError, match=rf"images\.s390x\.master: {BASE} is for {foreign}"):
        bake(YARD, tmp_path, print, {"s390x": Given(BASE, BASE)})
    with pytest.raises(
        SettingsError, match=rf"images\.{foreign}\.master: there is no image taskyard-none:1 here"
    ):
        bake(YARD, tmp_path, print, {foreign: Given("taskyard-none:1", BASE)})
