"""Builds the images of master and worker, and finds or makes the base that they stand on.

An image is built only if its content is new: a digest over everything that goes
into it is its tag. The docker program does the work, as it knows BuildKit,
contexts and proxies.
"""

import argparse
import hashlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskyard import __version__, environment
from taskyard.errors import EngineError, TaskyardError, UsageError
from taskyard.settings import Settings
from taskyard_ctl.kitfiles import kit_folder

REGISTRY_BASE = "python:3.13-slim"
OWN_BASE = "taskyard-base:3.13"  # what scripts/base-image makes
PULL_PATIENCE_S = 10.0  # a registry that says nothing for so long counts as not there

# What a role's image is made of, relative to the kit; a Dockerfile copies nothing else.
PARTS = {
    role: (
        f"{role}/Dockerfile",
        f"locks/{role}.txt",
        "core/taskyard",
        f"{role}/taskyard_{role}",
    )
    for role in ("master", "worker")
}
# Values of the caller's environment that a build needs behind a proxy or with an index of one's own.
FORWARDED = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"),
)

Say = Callable[[str], None]
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ERROR = re.compile(r"(?:#\d+ )?(?:[\d.]+ )?ERROR: (.*)")  # BuildKit puts step and second before it


@dataclass(frozen=True, slots=True)
class Images:
    """The names to run: they hold the content, so a name never means two things."""

    master: str
    worker: str


def build_images(tasks: Path, say: Say, tags: tuple[str, ...] = ()) -> Images:
    """Make both images, with the requirements of the folder `tasks`; quick if nothing changed.

    `tags` are names beside the content's, for people and for a plain `docker compose up`.
    """
    if not tasks.is_dir():
        raise UsageError(f"tasks folder {tasks}: there is no such folder; name one in TASKYARD_TASKS_DIR")
    engine = _run("docker", "version")
    if engine.returncode:
        raise EngineError(f"no Docker engine answers ({_reason(engine)}): start it, or use --local")
    base = find_base(say)
    images = Images(master=_build("master", base, None, say), worker=_build("worker", base, tasks, say))
    for image in (images.master, images.worker):
        for tag in tags:
            _run("docker", "tag", image, f"{image.partition(':')[0]}:{tag}")
    return images


def for_yard(yard: str, settings: Settings, say: Say) -> Images:
    """What a yard is started with: images that its settings name, else those built here."""
    own = Images(settings.master_image, settings.worker_image)
    if own.master and own.worker:
        return own
    built = claim(yard, build_images(Path(settings.tasks_dir), say))
    return Images(own.master or built.master, own.worker or built.worker)


def claim(yard: str, built: Images) -> Images:
    """The same images under the names of one yard: an image goes when no yard has a name for it any more."""
    named = {}
    for role, image in (("master", built.master), ("worker", built.worker)):
        named[role] = f"{yard_image(yard, role)}:{image.rpartition(':')[2]}"
        _run("docker", "tag", image, named[role])
    return Images(named["master"], named["worker"])


def forget(yard: str, say: Say) -> None:
    """Remove the names of one yard, and the images that are left without another yard's; others stay."""
    for role in PARTS:
        listed = _run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", yard_image(yard, role))
        for name in listed.stdout.split():
            image = _image_id(name)
            if _run("docker", "image", "rm", name).returncode:
                continue  # a container of somebody else's is made of it
            say(f"removed image {name}")
            found = _run("docker", "image", "inspect", "--format", '{{join .RepoTags " "}}', image)
            left = found.stdout.split()
            # The name by content is nobody's; `make images` gives further ones, which people ask for.
            if len(left) == 1 and re.fullmatch(f"taskyard-{role}:[0-9a-f]{{12}}", left[0]):
                _run("docker", "image", "rm", left[0])


def yard_image(yard: str, role: str) -> str:
    """What the images of one yard are called, without the tag; Docker wants no two signs together."""
    return re.sub(r"[_-]{2,}", "-", f"taskyard-{yard}-{role}")


def find_base(say: Say) -> str:
    """BASE_IMAGE, else the registry's, else one made of Debian's packages, saying so."""
    chosen = os.environ.get("BASE_IMAGE")
    if chosen:
        return chosen
    if _image_id(REGISTRY_BASE):
        return REGISTRY_BASE
    if not _image_id(OWN_BASE):
        say(f"pulling {REGISTRY_BASE}")
        if _pull(REGISTRY_BASE):
            return REGISTRY_BASE
        say("no registry reachable: building the base from Debian's packages, about half a minute")
    made = _run("bash", str(kit_folder() / "scripts" / "base-image"))  # a wheel may lose its x bit
    if made.returncode:
        raise EngineError(_reason(made))
    return OWN_BASE


def _build(role: str, base: str, tasks: Path | None, say: Say) -> str:
    name = f"taskyard-{role}"
    with tempfile.TemporaryDirectory(prefix="taskyard-") as folder:
        context = Path(folder)
        _stage(role, tasks, context)
        content = _digest(context, _image_id(base))
        image = f"{name}:{content}"
        if not _image_id(image):
            say(f"building {name} {__version__}")
            started = time.monotonic()
            built = _run(
                *(
                    "docker",
                    "build",
                    "--force-rm",
                    "--file",
                    str(context / role / "Dockerfile"),
                    "--tag",
                    image,
                ),
                *("--build-arg", f"BASE_IMAGE={base}"),
                *("--label", f"org.opencontainers.image.version={__version__}"),
                *(word for name in FORWARDED if os.environ.get(name) for word in ("--build-arg", name)),
                folder,
            )
            if built.returncode:
                for line in (built.stdout + built.stderr).splitlines()[-20:]:
                    say(line)
                asked = environment.requirements(tasks) if tasks else ""
                if tasks and asked and environment.failure(asked, built.stdout + built.stderr)[0]:
                    path = str(tasks / environment.NAME)
                    said = environment.explain(path, asked, built.stdout + built.stderr)
                    raise EngineError(f"{name} cannot be built: {said}")
                hint = f"look at {tasks / environment.NAME}" if tasks else "see above"
                raise EngineError(f"{name} cannot be built: {_reason(built)} ({hint})")
            say(f"built {name} {__version__} in {time.monotonic() - started:.0f} s")
    return image


def _stage(role: str, tasks: Path | None, context: Path) -> None:
    for part in PARTS[role]:
        source, target = kit_folder() / part, context / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    wanted = environment.requirements(tasks) if tasks else ""
    if wanted:
        (context / "tasks").mkdir()
        (context / "tasks" / environment.NAME).write_text(wanted)


def _digest(context: Path, base_id: str) -> str:
    digest = hashlib.sha256(base_id.encode())
    for path in sorted(path for path in context.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(context).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _pull(image: str) -> bool:
    """Pull with patience for a slow download, but none for a registry that does not answer."""
    with subprocess.Popen(
        ["docker", "pull", image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as pull, selectors.DefaultSelector() as selector:  # fmt: skip
        assert pull.stdout is not None
        selector.register(pull.stdout, selectors.EVENT_READ)
        if not selector.select(PULL_PATIENCE_S):  # the first line comes with the registry's answer
            pull.terminate()
            return False
        pull.stdout.read()
    return pull.returncode == 0


def _image_id(image: str) -> str:
    """The id of an image on this engine, or nothing."""
    found = _run("docker", "image", "inspect", "--format", "{{.Id}}", image)
    return "" if found.returncode else found.stdout.strip()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as fault:
        raise EngineError(
            f"{command[0]} cannot be run ({fault.strerror}): install it, or use --local"
        ) from None


def _reason(failed: subprocess.CompletedProcess[str]) -> str:
    """The line that tells most: the first that calls itself an error, as pip's do, else the last."""
    lines = _COLOUR.sub("", failed.stdout + failed.stderr).strip().splitlines() or ["it said nothing"]
    named = [found[1] for line in lines if (found := _ERROR.match(line))]
    return (named or lines[-1:])[0].strip()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(arguments: list[str] | None = None) -> int:
    """`make images`: for the yard of the current folder, under the names that a plain compose looks for."""
    from taskyard_ctl.yard import YardFolder  # which itself uses this module

    parser = argparse.ArgumentParser("images", description="Build the images; print their names.")
    parser.add_argument("--tasks", type=Path, help="tasks folder whose requirements.txt goes into the worker")
    options = parser.parse_args(arguments)
    try:
        tasks = options.tasks or Path(YardFolder(Path.cwd()).basics.tasks_dir)
        images = build_images(tasks, _say, ("latest", __version__))
    except TaskyardError as error:
        sys.stderr.write(f"images: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{images.master}\n{images.worker}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
