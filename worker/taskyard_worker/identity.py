"""Who this worker is: its id, host and container, and a file that shows that it lives."""

import contextlib
import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of a worker; another one on the same host has another id."""

    id: str  # for people: "host-3f2a"
    boot: str  # names the holder of leases
    host: str
    container: str  # the engine's id, 12 digits; "" outside of containers

    @classmethod
    def make(cls, host: str = "") -> "Identity":
        """`host`: the name to show for the machine, "" for its own."""
        own = socket.gethostname()
        name = f"{own.partition('.')[0][:20]}-{secrets.token_hex(2)}"
        return cls(name, secrets.token_hex(8), host or own, container())


def container(mounts: Path = _MOUNTS) -> str:
    """The id of the container that this process is in, as `docker ps` shows it; "" if in none.

    Engines mount the container's hostname file from a folder that is named by its id.
    """
    with contextlib.suppress(OSError):
        for line in mounts.read_text().splitlines():
            fields = line.split()
            # The last one: the engine's own folder may be a volume, which has such a name too.
            found = re.search(r"/([0-9a-f]{64})/(?:userdata/)?hostname$", fields[3])
            if found and fields[4] == "/etc/hostname":
                return found[1][:12]
    return ""


def baked(folder: Path, inside: str) -> bool:
    """Whether the tasks folder is part of the image of the container `inside`, and not mounted there."""
    return bool(inside) and not any(os.path.ismount(path) for path in (folder, *folder.parents[:-1]))


def memory(pids: list[int]) -> int:
    """Bytes of memory that processes have to themselves, those that are gone left out."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
            total += (int(resident) - int(shared)) * _PAGE
    return total


class Beacon:
    """A file that the health probe looks at, rewritten at every heartbeat; only where its folder exists."""

    def __init__(self) -> None:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        folders = [Path("/run/taskyard"), *([Path(runtime, "taskyard")] if runtime else [])]
        self._folder = next((f for f in folders if f.is_dir() and os.access(f, os.W_OK)), None)

    def show(self, state: dict[str, object]) -> None:
        if self._folder is None:
            return
        path = self._folder / "worker.json"
        part = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(state) + "\n")
            part.replace(path)
