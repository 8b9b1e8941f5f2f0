"""What running containers may do, seen from inside; and that key and token are only where they have to be.

They come from files here (docker-compose.secrets.yml), with either Compose.
"""

import json
import os
import secrets
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from taskyard import Yard
from taskyard.errors import RefusedError
from taskyard_ctl.images import Images

ROOT = Path(__file__).parents[2]
Docker = Callable[..., str]

# What every process of a container may do, what it can reach, and how much it may use.
LOOK = """
import glob, json, os

def read(*paths):
    for path in paths:
        if os.path.exists(path):
            return open(path).read().strip()

def of(pid):
    fields = dict(line.split(":\\t", 1) for line in open(f"/proc/{pid}/status") if ":\\t" in line)
    return {name: fields[name].split()[0] for name in
            ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")}

def writable(folder):
    try:
        open(os.path.join(folder, ".probe"), "w").close()
        os.unlink(os.path.join(folder, ".probe"))
    except OSError:
        return False
    return True

pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
print(json.dumps({
    "processes": [of(pid) for pid in pids],
    "root": [line.split()[3] for line in open("/proc/self/mounts") if line.split()[1] == "/"],
    "writable": [folder for folder in ("/", "/etc", "/usr", "/opt/taskyard", "/tasks", "/proc/sys/kernel")
                 if os.path.isdir(folder) and writable(folder)],
    "docker": [path for path in glob.glob("/run/*.sock") + glob.glob("/var/run/*.sock") + ["/run/docker.sock"]
               if os.path.exists(path)],
    "pids": read("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "memory": read("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "setuid": [path for folder in ("/bin", "/usr/bin", "/usr/sbin") for path in glob.glob(folder + "/*")
               if os.stat(path).st_mode & 0o6000 and writable(path)],
    "environ": dict(os.environ),
}))
"""


class Running:
    """A yard in containers, by compose, whose key is in a file."""

    def __init__(self, words: list[str], folder: Path, images: Images, docker: Docker) -> None:
        self.docker = docker
        self.key = secrets.token_hex(32)
        self.token = secrets.token_urlsafe(24)
        room = folder / "secret"
        room.mkdir(mode=0o700)
        for name, text in (("key", self.key), ("token", self.token)):
            (room / name).write_text(text + "\n")
            (room / name).chmod(0o444)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._project = f"hardening-{secrets.token_hex(4)}"
        files = [ROOT / "docker-compose.yml", ROOT / "docker-compose.secrets.yml"]
        self._words = [*words, *(part for file in files for part in ("--file", str(file)))]
        self._environ = {
            **os.environ, "COMPOSE_PROJECT_NAME": self._project, "TASKYARD_MASTER_IMAGE": images.master,
            "TASKYARD_WORKER_IMAGE": images.worker, "TASKYARD_ADDRESS": self.address,
            "TASKYARD_AUTHKEY": "-", "TASKYARD_AUTHKEY_FILE": str(room / "key"),
            "TASKYARD_WEB_TOKEN_FILE": str(room / "token"),
            "TASKYARD_DATA_DIR": str(folder), "TASKYARD_MEMORY": "300m",
        }  # fmt: skip

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._words, *arguments], env=self._environ, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        labels = [f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}"]
        [found] = self.docker("ps", "--quiet", *(f"--filter=label={label}" for label in labels)).split()
        return found

    def look(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.docker("exec", self.container(service), "python", "-I", "-S", "-c", LOOK)
        )
        return found

    def yard(self) -> Yard:
        return Yard(self.address, self.key, patience=60.0)


@pytest.fixture
def running(compose: list[str], docker: Docker, images: Images, tmp_path: Path) -> Iterator[Running]:
    it = Running(compose, tmp_path, images, docker)
    try:
        it.compose("up", "--detach", "--scale", "worker=1")
        with it.yard() as yard:
            eventually(lambda: yard.status().workers, "a worker", 60)
        yield it
    finally:
        print(it.compose("logs"))  # shown if the test failed
        it.compose("down", "--volumes", "--timeout", "5")


def squares(running: Running) -> list[Any]:
    with running.yard() as yard:
        return list(yard.submit("squares:square", range(20)).values())


def asked(board: str, token: str) -> int:
    """The dashboard's answer to who shows this token."""
    request = urllib.request.Request(f"http://{board}/metrics", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_containers_may_do_next_to_nothing_and_keep_the_key_to_themselves(
    running: Running, docker: Docker, images: Images
) -> None:
    for service in ("master", "worker"):
        seen = running.look(service)
        assert len(seen["processes"]) >= 2
        for process in seen["processes"]:
            assert {int(process[name], 16) for name in process if name.startswith("Cap")} == {0}
            assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
            assert (process["Uid"], process["Gid"]) == ("10001", "10001")
        assert all("ro" in options.split(",") for options in seen["root"])
        assert seen["writable"] == seen["docker"] == seen["setuid"] == []
        assert int(seen["pids"]) == 1024
        assert int(seen["memory"]) == 300 << 20
        environ = json.dumps(seen["environ"])
        assert running.key not in environ and running.token not in environ
    assert squares(running) == [n * n for n in range(20)]
    board = docker("port", running.container("master"), "8585").split()[0]
    assert asked(board, "") == 401
    assert asked(board, running.token) == 200
    with pytest.raises(RefusedError) as refused:
        Yard(running.address, "another key of sixteen", patience=5.0)
    containers = [running.container("master"), running.container("worker")]
    with running.yard() as yard:
        status = repr(yard.status())
    told = {
        "inspect": docker("inspect", *containers),
        "logs": running.compose("logs"),
        "status": status,
        "an error": str(refused.value),
        "history": "".join(docker("history", "--no-trunc", it) for it in (images.master, images.worker)),
        "processes": docker("top", containers[0], "-ef") + docker("top", containers[1], "-ef"),
    }  # fmt: skip
    assert [where for where, text in told.items() if running.key in text or running.token in text] == []
    assert "docker.sock" not in told["inspect"]
    assert "unconfined" not in told["inspect"]


def test_the_master_survives_its_pids_limit(running: Running, docker: Docker) -> None:
    """The tutorial's master never accepts anybody again after it; this one needs no thread for a peer."""
    master = running.container("master")
    docker("update", "--pids-limit", "40", master)
    docker("exec", "--detach", master, "sh", "-c", "while true; do sleep 3600 & done")
    full = "import os\ntry: os.fork()\nexcept OSError as e: print(e.errno)"

    def is_full() -> bool:
        done = subprocess.run(
            ["docker", "exec", master, "python", "-I", "-S", "-c", full], capture_output=True, text=True
        )
        return "11" in done.stdout or done.returncode != 0

    eventually(is_full, "there is room for no process more", 90)
    assert squares(running) == [n * n for n in range(20)]
    others = [
        socket.create_connection(("127.0.0.1", int(running.address.rpartition(":")[2]))) for _ in range(50)
    ]
    assert all(other.recv(64) for other in others)
    for other in others:
        other.close()
    assert squares(running) == [n * n for n in range(20)]
    docker("update", "--pids-limit", "1024", master)
    assert docker("inspect", "--format", "{{.State.Running}} {{.RestartCount}}", master) == "true 0"
