"""The images of one version: the kit's, and in the worker's the tasks folder and its requirements."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from taskyard.errors import EngineError, SettingsError
from taskyard_ctl.images import Say, build_images, yard_image
from taskyard_ctl.inventory_keys import Given
from taskyard_ctl.plan import Version

_DOCKERFILE = "FROM {image}\nCOPY tasks /tasks\n"
_DIGITS = 12


def bake(yard: str, tasks: Path, say: Say, given: Mapping[str, Given] | None = None) -> Version:
    """Make the images of the tasks folder as it is; quick if they are there.

    `given` are the kit's images for other architectures than this machine's, which are here too.
    """
    images = build_images(tasks, say)
    master = f"{yard_image(yard, 'master')}:{images.master.rpartition(':')[2]}"
    _docker("tag", images.master, master)
    others = []
    with tempfile.TemporaryDirectory(prefix="taskyard-") as folder:
        context = Path(folder)
        _stage(tasks, context / "tasks")
        worker = _bake(yard, tasks, images.worker, context, say)
        for architecture, other in sorted((given or {}).items()):
            ids = [_checked(image, architecture, role) for role, image in
                   (("master", other.master), ("worker", other.worker))]  # fmt: skip
            theirs = f"{yard_image(yard, 'master')}:{ids[0][:_DIGITS]}"
            _docker("tag", other.master, theirs)
            baked = _bake(yard, tasks, other.worker, context, say, ids[1], architecture)
            others.append((architecture, theirs, baked))
    return version(master, worker, others)


def _bake(
    yard: str, tasks: Path, image: str, context: Path, say: Say, content: str = "", architecture: str = ""
) -> str:
    """The tasks in an image of the worker; `content` names what the image's name does not."""
    worker = f"{yard_image(yard, 'worker')}:{_digest(content or image, context / 'tasks', context)}"
    if _docker("image", "inspect", worker, check=False).returncode:
        (context / "Dockerfile").write_text(_DOCKERFILE.format(image=image))
        platform = ("--platform", f"linux/{architecture}") if architecture else ()
        _docker("build", "--quiet", *platform, "--tag", worker, str(context))
        say(f"baked {tasks} into {worker}" + (f" for {architecture}" if architecture else ""))
    return worker


def _checked(image: str, architecture: str, role: str) -> str:
    """The id of an image that hosts.toml names, without its prefix; raises SettingsError."""
    form = "{{.Architecture}} {{.Id}}"
    found = _docker("image", "inspect", "--format", form, image, check=False).stdout.split()
    where = f"hosts.toml: images.{architecture}.{role}"
    if len(found) != 2:
        raise SettingsError(f"{where}: there is no image {image} here: 'docker load' or 'docker pull' it")
    if found[0] != architecture:
        raise SettingsError(f"{where}: {image} is for {found[0]}: name one that is for {architecture}")
    return found[1].removeprefix("sha256:")


def version(master: str, worker: str, others: Iterable[tuple[str, str, str]] = ()) -> Version:
    """Images and the name of them all."""
    words = [master, worker, *(word for other in others for word in other)]
    return Version(hashlib.sha256(" ".join(words).encode()).hexdigest()[:8], master, worker, tuple(others))


def _stage(tasks: Path, target: Path) -> None:
    """A copy without caches, hidden files and virtual environments, which every user may read."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name.startswith((".", "__pycache__")) or Path(folder, name, "pyvenv.cfg").exists()
        }

    shutil.copytree(tasks, target, ignore=left_out)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (0, 0))  # the same content makes the same layer


def _digest(image: str, folder: Path, context: Path) -> str:
    digest = hashlib.sha256(image.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, content = path.relative_to(context).as_posix(), path.read_bytes()
            mode = path.stat().st_mode & 0o777
            digest.update(f"\0{name}\0{mode:o}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:_DIGITS]


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(f"'docker {arguments[0]}' failed: {last}")
    return done
