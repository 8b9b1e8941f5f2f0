"""Why a slot died, in words; and what the container's memory limit has to do with it."""

import signal
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # version 1 of cgroups writes a huge number where there is no limit
_WORDS = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGABRT: "abort",
    signal.SIGFPE: "arithmetic error",
    signal.SIGILL: "illegal instruction",
}


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control group of this process, as far as memory goes; version 1 or 2, or none."""

    limit_file: Path | None = None
    events_file: Path | None = None

    @classmethod
    def find(cls, root: Path = _ROOT, proc: Path = Path("/proc/self/cgroup")) -> "Cgroup":
        """Look it up. In a container the group's own path may not be visible: its root then is."""
        try:
            lines = proc.read_text().splitlines()
        except OSError:
            return cls()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                folders = (root / "memory" / path.lstrip("/"), root / "memory")
                names = ("memory.limit_in_bytes", "memory.oom_control")
            elif not controllers:
                folders = (root / path.lstrip("/"), root)
                names = ("memory.max", "memory.events")
            else:
                continue
            for folder in folders:
                if (folder / names[0]).exists():
                    return cls(folder / names[0], folder / names[1])
        return cls()

    def limit(self) -> int | None:
        """Bytes of memory that the group may use; None if it has no limit."""
        try:
            raw = self.limit_file.read_text().strip() if self.limit_file else "max"
            return None if raw == "max" or int(raw) >= _UNLIMITED else int(raw)
        except (OSError, ValueError):
            return None

    def kills(self) -> int:
        """How many processes of the group the kernel has killed for memory so far."""
        try:
            lines = self.events_file.read_text().splitlines() if self.events_file else []
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError, IndexError):
            return 0


def size(count: int) -> str:
    """A number of bytes for people: "512 MiB"."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"


def death(returncode: int, cgroup: Cgroup, kills_before: int) -> str:
    """What ended a process, from its return code (negative: a signal), as a clause for a message."""
    if returncode >= 0:
        return f"its process ended with exit code {returncode}"
    number = -returncode
    if number in _WORDS:
        return f"its process was killed by signal {number} ({_WORDS[signal.Signals(number)]})"
    if number != signal.SIGKILL:
        return f"its process was killed by signal {number}"
    limit = cgroup.limit()
    container = f": container limit {size(limit)}" if limit is not None else ""
    if cgroup.kills() > kills_before:
        return f"its process was killed by signal 9, out of memory{container}"
    return f"its process was killed by signal 9, probably out of memory{container}"
