"""The images of one version: the kit's, and in the worker's the tasks folder and its requirements."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from taskyard.errors import EngineError
from taskyard_ctl.images import Say, build_images, yard_image
from taskyard_ctl.plan import Version

_DOCKERFILE = "FROM {image}\nCOPY tasks /tasks\n"
_DIGITS = 12


def bake(yard: str, tasks: Path, say: Say) -> Version:
    """Make the images of the tasks folder as it is; quick if they are there."""
    images = build_images(tasks, say)
    master = f"{yard_image(yard, 'master')}:{images.master.rpartition(':')[2]}"
    _docker("tag", images.master, master)
    with tempfile.TemporaryDirectory(prefix="taskyard-") as folder:
        context = Path(folder)
        _stage(tasks, context / "tasks")
        worker = f"{yard_image(yard, 'worker')}:{_digest(images.worker, context)}"
        if _docker("image", "inspect", worker, check=False).returncode:
            (context / "Dockerfile").write_text(_DOCKERFILE.format(image=images.worker))
            _docker("build", "--quiet", "--tag", worker, folder)
            say(f"baked {tasks} into {worker}")
    return version(master, worker)


def version(master: str, worker: str) -> Version:
    """Two images and the name of both."""
    return Version(hashlib.sha256(f"{master} {worker}".encode()).hexdigest()[:8], master, worker)


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


def _digest(image: str, context: Path) -> str:
    digest = hashlib.sha256(image.encode())
    for path in sorted(context.rglob("*")):
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
