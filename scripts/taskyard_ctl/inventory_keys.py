"""The keys of a host in hosts.toml: one function each, from what TOML gives to what the inventory holds."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from taskyard.settings import REGISTRY

PIDS = 1024
ARCHITECTURES = ("amd64", "arm64", "arm", "386", "ppc64le", "riscv64", "s390x")
# What a deploy decides by itself, and an inventory cannot.
_OURS = {f"TASKYARD_{name}" for name in ("ADDRESS", "AUTHKEY", "JOURNAL", "TASKS_DIR", "WORKERS", "HOST")}
_OURS |= {
    f"TASKYARD_{name}"
    for name in ("JOIN", "JOIN_FILE", "JOINED", "AUTHKEY_FILE", "TLS_CA", "TLS_CERT", "TLS_KEY")
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker's container may take; 0 = no limit."""

    memory: int = 0  # bytes
    cpus: float = 0.0
    pids: int = PIDS


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host, at the same path inside."""

    path: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """Images of this kit for another architecture, made elsewhere; the tasks are baked into the latter."""

    master: str
    worker: str


class Inside(ValueError):
    """Faults of a table, each with its key."""


def unknown(path: str, table: Mapping[str, Any], keys: Iterable[str], faults: list[str]) -> None:
    for key in table.keys() - set(keys):
        shown = f"{path}.{key}" if path else key
        if path == "defaults" and key in KEYS:
            faults.append(f"{shown}: cannot be the same for all hosts: set it for each")
        else:
            faults.append(f"{shown}: there is no such key{near(key, keys)}")


def near(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def split_port(text: str) -> tuple[str, str]:
    """ "host:22" as (host, "22"); a bare IPv6 address has no port."""
    place, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in place.rpartition("@")[2] or place.endswith("]")):
        return place, port
    return text, ""


# ---------------------------------------------------------------- keys before all tables


def registry_key(value: Any) -> str:
    """ "registry.example:5000/team"."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?(/[a-z0-9._-]+)*", value):
        raise ValueError('must be a registry, with a path or without: "registry.example:5000/team"')
    first = value.partition("/")[0]
    if not {".", ":"} & set(first) and first != "localhost":
        raise ValueError(
            'begins with what Docker takes for a folder of its hub: write "docker.io/NAME" for that'
        )
    return value


def images_key(value: Any) -> dict[str, Given]:
    """By architecture, as engines name it."""
    if not isinstance(value, dict):
        raise ValueError("must be tables, [images.arm64]")
    faults: list[str] = []
    found = {}
    for architecture, table in value.items():
        if architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            faults.append(
                f"{architecture}: there is no such architecture{near(architecture, ARCHITECTURES)}: {known}"
            )
        elif not isinstance(table, dict):
            faults.append(f"{architecture}: must be a table, [images.{architecture}]")
        else:
            unknown(architecture, table, ("master", "worker"), faults)
            names = [table.get(role, "") for role in ("master", "worker")]
            bad = [
                name for name in names if not isinstance(name, str) or not re.fullmatch(r"[^\s-]\S*", name)
            ]
            if bad:
                faults.append(f'{architecture}: write master = "IMAGE" and worker = "IMAGE"')
            else:
                found[architecture] = Given(*names)
    if faults:
        raise Inside(faults)
    return found


# ---------------------------------------------------------------- one key each


def _ssh(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s-]\S*", value):
        raise ValueError('must be "user@host", "user@host:port" or an alias of the ssh config')
    return value


def _role(value: Any) -> str:
    if value not in ("master", "worker"):
        raise ValueError('must be "master" or "worker"')
    return str(value)


def _address(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:\d{1,5})?", value):
        raise ValueError('must be a name or an address, with a port or without: "192.0.2.1:5000"')
    port = split_port(value)[1]
    if port and not 0 < int(port) < 65536:
        raise ValueError("has a port that cannot be")
    return value


def _workers(value: Any) -> int | str:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError('must be a whole number, 0 or more, or "auto"')
    return value  # type: ignore[no-any-return]


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a table: {name = "value"}')
    bad = [name for name, one in value.items() if not isinstance(one, str | int | float)]
    if bad:
        raise Inside([f"{name}: must be a text or a number (is {value[name]!r})" for name in bad])
    return {name: str(one).lower() if isinstance(one, bool) else str(one) for name, one in value.items()}


def _env(value: Any) -> dict[str, str]:
    found = _strings(value)
    known = {setting.variable for setting in REGISTRY}
    faults = []
    for name in found:
        if name in _OURS:
            faults.append(f"{name}: deploying sets it by itself: leave it out")
        elif name.startswith("TASKYARD_") and name not in known:
            faults.append(f"{name}: there is no such setting{near(name, known)}")
    if faults:
        raise Inside(faults)
    return found


def _limits(value: Any) -> Limits:
    if not isinstance(value, dict):
        raise ValueError('must be a table: {memory = "2g", cpus = 1.5}')
    faults: list[str] = []
    unknown("", value, ("memory", "cpus", "pids"), faults)
    memory, cpus, pids = value.get("memory", 0), value.get("cpus", 0.0), value.get("pids", PIDS)
    match = _MEMORY.fullmatch(str(memory))
    if match is None or isinstance(memory, bool):
        faults.append(f'memory: must be a size such as "512m" or "2g" (is {memory!r})')
    if not isinstance(cpus, int | float) or isinstance(cpus, bool) or cpus < 0:
        faults.append(f"cpus: must be a number, 0 or more (is {cpus!r})")
    if not isinstance(pids, int) or isinstance(pids, bool) or pids < 0:
        faults.append(f"pids: must be a whole number, 0 or more (is {pids!r})")
    if faults or match is None:
        raise Inside(faults)
    return Limits(int(float(match[1]) * _UNITS[match[2].lower()]), float(cpus), pids)


def _mounts(value: Any) -> tuple[Mount, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError('must be a list of folders: ["/srv/data", "/srv/out:rw"]')
    found = []
    for one in value:
        path, _, mode = one.partition(":")
        if mode not in ("", "ro", "rw") or not PurePosixPath(path).is_absolute():
            raise ValueError('has what is no absolute path, with ":rw" or without')
        found.append(Mount(path, mode == "rw"))
    return tuple(found)


def _gpus(value: Any) -> int:
    if value == "all":
        return -1
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError('must be a number, or "all"')
    return value


def _socket(value: Any) -> str:
    if not isinstance(value, str) or not PurePosixPath(value).is_absolute() or ":" in value:
        raise ValueError("must be the absolute path of a socket on the host")
    return value


KEYS: dict[str, Callable[[Any], Any]] = {
    "ssh": _ssh,
    "role": _role,
    "address": _address,
    "workers": _workers,
    "labels": _strings,
    "limits": _limits,
    "mounts": _mounts,
    "env": _env,
    "gpus": _gpus,
    "docker_socket": _socket,
}
