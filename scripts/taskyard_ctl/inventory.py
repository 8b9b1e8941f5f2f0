"""hosts.toml: the machines of a yard, read into one frozen inventory, every fault with its path.

The commented example that `taskyard init` writes documents every key; a test keeps
it and the table below alike. Nothing here reaches a host.
"""

import difflib
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from taskyard.errors import SettingsError
from taskyard.settings import REGISTRY

EXAMPLE = Path(__file__).with_name("hosts.example.toml")
SOCKET = "/var/run/docker.sock"
PORT = 5000
PIDS = 1024
# What a deploy decides by itself, and an inventory cannot.
_OURS = {f"TASKYARD_{name}" for name in ("ADDRESS", "AUTHKEY", "JOURNAL", "TASKS_DIR", "WORKERS", "HOST")}
_OURS |= {f"TASKYARD_{name}" for name in ("AUTHKEY_FILE", "TLS_CA", "TLS_CERT", "TLS_KEY")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
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
class Host:
    """One machine."""

    name: str
    ssh: str
    role: Literal["master", "worker"] = "worker"
    address: str = ""  # host:port that workers dial; of the master only
    workers: int | Literal["auto"] = "auto"
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0  # -1 = all
    docker_socket: str = SOCKET
    leaving: bool = False  # it was in an inventory before, and is not any more

    @property
    def target(self) -> tuple[str, ...]:
        """The words for the ssh program: options, then where to."""
        place, port = split_port(self.ssh)
        return ("-p", port, "--", place) if port else ("--", place)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All machines; the master's comes first."""

    name: str
    hosts: tuple[Host, ...]

    @property
    def master(self) -> Host:
        return self.hosts[0]

    def host(self, name: str) -> Host:
        """By its name; raises SettingsError with the names there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise SettingsError(f"there is no host {name!r}{_near(name, [h.name for h in self.hosts])}: {known}")


# ---------------------------------------------------------------- reading


def load(path: Path, name: str) -> Inventory:
    """The inventory in a file; `name` is the yard's unless the file has one. Raises SettingsError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise SettingsError(f"{path} cannot be read: {reason}; 'taskyard init' writes an example") from None
    return parse(text, name, str(path))


def of_targets(targets: Iterable[str], name: str) -> Inventory:
    """The inventory of `user@a user@b`: the first is the master, and the only host if alone."""
    targets = list(targets)
    hosts: dict[str, Any] = {}
    for number, target in enumerate(targets):
        own = split_port(target)[0].rpartition("@")[2].strip("[]")
        own = re.sub(r"[^A-Za-z0-9_.-]", "-", own).lstrip("-._") or "host"
        own = own if own not in hosts else f"{own}-{number + 1}"
        hosts[own] = {"ssh": target, "role": "worker" if number else "master"}
        if len(targets) == 1:
            hosts[own]["workers"] = "auto"
    return _build({"hosts": hosts}, name, "hosts on the command line")


def parse(text: str, name: str, where: str = "hosts.toml") -> Inventory:
    """The inventory in a text; raises SettingsError that lists every fault, one a line."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise SettingsError(f"{where}: is no TOML: {fault}") from None
    return _build(content, name, where)


def with_address(inventory: Inventory) -> Inventory:
    """The same, with the master's address asked from ssh where the inventory does not say."""
    master = inventory.master
    host, port = split_port(master.address)
    address = f"{host or host_name(master)}:{port or PORT}"
    return replace(inventory, hosts=(replace(master, address=address), *inventory.hosts[1:]))


def host_name(host: Host) -> str:
    """What ssh dials for a host: its HostName, after the user's configuration."""
    command = ["ssh", "-G", *host.target]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as fault:
        raise SettingsError(f"hosts.{host.name}.ssh: 'ssh -G' does not know {host.ssh!r}: {fault}") from None
    found = [line.split()[1] for line in told.stdout.splitlines() if line.startswith("hostname ")]
    name = found[0] if found else split_port(host.ssh)[0].rpartition("@")[2]
    return f"[{name}]" if ":" in name else name


# ---------------------------------------------------------------- inside


def _build(content: dict[str, Any], name: str, where: str) -> Inventory:
    faults: list[str] = []
    _unknown("", content, ("name", "defaults", "hosts"), faults)
    name = content.get("name", name)
    if not isinstance(name, str) or not _PROJECT.fullmatch(name):
        faults.append(f"name: must be small letters, digits, '-' and '_', no sign first (is {name!r})")
    defaults = content.get("defaults", {})
    tables = content.get("hosts", {})
    shared: dict[str, Any] = {}
    if not isinstance(defaults, dict):
        faults.append("defaults: must be a table, [defaults]")
    else:
        shared = _values("defaults", defaults, set(_KEYS) - {"ssh", "role", "address"}, faults)
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        faults.append("hosts: write a table for each host, [hosts.NAME]")
        tables = None
    hosts = [_host(own, table, shared, faults) for own, table in (tables or {}).items()]
    faults += _between(hosts, malformed=tables is None)
    if faults:
        raise SettingsError("\n".join(f"{where}: {fault}" for fault in faults))
    return Inventory(name, tuple(sorted(hosts, key=lambda host: host.role != "master")))


def _host(name: str, table: dict[str, Any], shared: dict[str, Any], faults: list[str]) -> Host:
    path = f"hosts.{name}"
    if not _NAME.fullmatch(name):
        faults.append(f"{path}: a name has 1 to 63 letters, digits, '-', '_' and '.'")
    before = len(faults)
    own = _values(path, table, set(_KEYS), faults)
    if "ssh" not in table:
        faults.append(f'{path}.ssh: is missing: write ssh = "user@host"')
    values = {**shared, **own}
    if own.get("role") == "master":
        values["workers"] = own.get("workers", 0)
    elif "address" in own and len(faults) == before:
        faults.append(f"{path}.address: only the master has one: workers dial out")
    for key in ("env", "labels"):  # tables of names: a host adds to what all have
        values[key] = {**shared.get(key, {}), **own.get(key, {})}
    values.setdefault("ssh", "")
    return Host(name, **values)


def _between(hosts: list[Host], malformed: bool) -> list[str]:
    """What is wrong with the hosts together."""
    faults = []
    if not hosts and not malformed:
        faults.append("hosts: there is none: write a table for each host, [hosts.NAME]")
    masters = [host.name for host in hosts if host.role == "master"]
    if hosts and len(masters) != 1:
        found = f"it is set for {', '.join(masters)}" if masters else "no host has it"
        faults.append(f'hosts: exactly one has role = "master"; {found}')
    first: dict[str, str] = {}
    for host in hosts:
        if host.ssh and first.setdefault(host.ssh, host.name) != host.name:
            faults.append(f"hosts.{host.name}.ssh: is the same as that of {first[host.ssh]}: {host.ssh!r}")
    return faults


def _values(path: str, table: dict[str, Any], keys: set[str], faults: list[str]) -> dict[str, Any]:
    _unknown(path, table, keys, faults)
    found = {}
    for key in table.keys() & keys:
        try:
            found[key] = _KEYS[key](table[key])
        except _Inside as inside:
            faults += [f"{path}.{key}.{fault}" for fault in inside.args[0]]
        except ValueError as fault:
            faults.append(f"{path}.{key}: {fault} (is {table[key]!r})")
    return found


class _Inside(ValueError):
    """Faults of a table, each with its key."""


def _unknown(path: str, table: Mapping[str, Any], keys: Iterable[str], faults: list[str]) -> None:
    for key in table.keys() - set(keys):
        shown = f"{path}.{key}" if path else key
        if path == "defaults" and key in _KEYS:
            faults.append(f"{shown}: cannot be the same for all hosts: set it for each")
        else:
            faults.append(f"{shown}: there is no such key{_near(key, keys)}")


def _near(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def split_port(text: str) -> tuple[str, str]:
    """ "host:22" as (host, "22"); a bare IPv6 address has no port."""
    place, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in place.rpartition("@")[2] or place.endswith("]")):
        return place, port
    return text, ""


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
        raise _Inside([f"{name}: must be a text or a number (is {value[name]!r})" for name in bad])
    return {name: str(one).lower() if isinstance(one, bool) else str(one) for name, one in value.items()}


def _env(value: Any) -> dict[str, str]:
    found = _strings(value)
    known = {setting.variable for setting in REGISTRY}
    faults = []
    for name in found:
        if name in _OURS:
            faults.append(f"{name}: deploying sets it by itself: leave it out")
        elif name.startswith("TASKYARD_") and name not in known:
            faults.append(f"{name}: there is no such setting{_near(name, known)}")
    if faults:
        raise _Inside(faults)
    return found


def _limits(value: Any) -> Limits:
    if not isinstance(value, dict):
        raise ValueError('must be a table: {memory = "2g", cpus = 1.5}')
    faults: list[str] = []
    _unknown("", value, ("memory", "cpus", "pids"), faults)
    memory, cpus, pids = value.get("memory", 0), value.get("cpus", 0.0), value.get("pids", PIDS)
    match = _MEMORY.fullmatch(str(memory))
    if match is None or isinstance(memory, bool):
        faults.append(f'memory: must be a size such as "512m" or "2g" (is {memory!r})')
    if not isinstance(cpus, int | float) or isinstance(cpus, bool) or cpus < 0:
        faults.append(f"cpus: must be a number, 0 or more (is {cpus!r})")
    if not isinstance(pids, int) or isinstance(pids, bool) or pids < 0:
        faults.append(f"pids: must be a whole number, 0 or more (is {pids!r})")
    if faults or match is None:
        raise _Inside(faults)
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


_KEYS: dict[str, Callable[[Any], Any]] = {
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
