"""The same no-op tasks with master, workers and client in containers on one bridge, plain and over TLS."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from book import Book, say
from yardlab import ROOT, TASKS, tls_settings

from taskyard_ctl.images import Images, build_images

WORKERS = 2
TIMEOUT = 300
SIDES = (("containers", False), ("containers, TLS", True))


def measure(book: Book, rounds: int, share: float = 1.0) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True).returncode:
        book.skip("containers on one bridge: no Docker engine answers here")
        return
    images = build_images(TASKS, say)
    for _ in range(rounds):
        for side, tls in SIDES:
            with tempfile.TemporaryDirectory() as folder, _yard(images, Path(folder), tls) as client:
                found = json.loads(_docker(*client, "--share", str(share)).splitlines()[-1])
            book.add("bridge", side, "tasks/s", found["rate"])
            say(f"bridge: {side}: {found['rate']:,.0f} tasks/s")


@contextmanager
def _yard(images: Images, folder: Path, tls: bool) -> Iterator[list[str]]:
    """Start master and workers; gives the words after `docker` that run the client."""
    name = f"taskyard-bench-{os.getpid()}"
    roles = tls_settings(folder / "certs") if tls else {}
    _docker("network", "create", name)
    started = []
    try:
        for number, role in enumerate(["master", *["worker"] * WORKERS]):
            started.append(f"{name}-{number}")
            words = ["run", "--detach", "--name", started[-1], *_common(name, folder, role, roles)]
            if role == "master":
                words += ["--network-alias", "master", "--volume", "/var/lib/taskyard", images.master]
            else:
                words += [
                    "--env",
                    "TASKYARD_TASKS_DIR=/tasks",
                    "--volume",
                    f"{TASKS}:/tasks:ro",
                    images.worker,
                ]
            _docker(*words)
        yield [
            "run", "--rm", *_common(name, folder, "client", roles), "--volume", f"{ROOT}:{ROOT}:ro",
            "--entrypoint", "python", images.worker, str(ROOT / "benchmarks/drive.py"), "joined",
        ]  # fmt: skip
    finally:
        for container in started:
            _docker("rm", "--force", "--volumes", container)
        _docker("network", "rm", name)


def _common(network: str, folder: Path, role: str, roles: dict[str, dict[str, str]]) -> list[str]:
    """Root, so that it may read the certificates, which are ours alone."""
    address = "0.0.0.0:5000" if role == "master" else "master:5000"
    settings = {"address": address, "authkey": "k" * 40, **roles.get(role, {})}
    return [
        "--network", network, "--user", "0:0", "--volume", f"{folder}:{folder}:ro",
        *(word for key, value in settings.items() for word in ("--env", f"TASKYARD_{key.upper()}={value}")),
    ]  # fmt: skip


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise SystemExit(f"docker {words[0]}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return done.stdout
