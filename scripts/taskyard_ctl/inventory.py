"""hosts.toml: the machines of a yard, read into one frozen inventory, every fault with its path.

The commented example that `taskyard init` writes documents every key; a test keeps
it and the table below alike. Nothing here reaches a host.
"""

import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from taskyard.errors import SettingsError
from taskyard_ctl.inventory_keys import (
    KEYS,
    Given,
    Inside,
    Limits,
    Mount,
    images_key,
    near,
    registry_key,
    split_port,
    unknown,
)

EXAMPLE = Path(__file__).with_name("hosts.example.toml")
SOCKET = "/var/run/docker.sock"
PORT = 5000
T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine."""

    name: str
    ssh: str
    role: Literal["master", "worker"] = "worker"
    address: str = ""  # host:port that workers dial; of the master only
    workers: int | Literal["auto"] = "auto"
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0  # -1 = all
    docker_socket: str = SOCKET
    leaving: bool = False  # it was in an inventory before, and is not any more
    architecture: str = ""  # of its CPU, once that is known

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
    registry: str = ""  # from which hosts pull images; "" = they come through ssh
    images: Mapping[str, Given] = field(default_factory=dict)  # by architecture

    @property
    def master(self) -> Host:
        return self.hosts[0]

    def host(self, name: str) -> Host:
        """By its name; raises SettingsError with the names there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise SettingsError(f"there is no host {name!r}{near(name, [h.name for h in self.hosts])}: {known}")


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
    unknown("", content, ("name", "registry", "images", "defaults", "hosts"), faults)
    name = content.get("name", name)
    if not isinstance(name, str) or not _PROJECT.fullmatch(name):
        faults.append(f"name: must be small letters, digits, '-' and '_', no sign first (is {name!r})")
    registry = _top("registry", content, registry_key, "", faults)
    images: Mapping[str, Given] = _top("images", content, images_key, {}, faults)
    defaults = content.get("defaults", {})
    tables = content.get("hosts", {})
    shared: dict[str, Any] = {}
    if not isinstance(defaults, dict):
        faults.append("defaults: must be a table, [defaults]")
    else:
        shared = _values("defaults", defaults, set(KEYS) - {"ssh", "role", "address"}, faults)
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        faults.append("hosts: write a table for each host, [hosts.NAME]")
        tables = None
    hosts = [_host(own, table, shared, faults) for own, table in (tables or {}).items()]
    faults += _between(hosts, malformed=tables is None)
    if faults:
        raise SettingsError("\n".join(f"{where}: {fault}" for fault in faults))
    return Inventory(name, tuple(sorted(hosts, key=lambda host: host.role != "master")), registry, images)


def _top(key: str, content: dict[str, Any], parse: Callable[[Any], T], default: T, faults: list[str]) -> T:
    """A key that stands before all tables."""
    if key not in content:
        return default
    try:
        return parse(content[key])
    except Inside as inside:
        faults += [f"{key}.{fault}" for fault in inside.args[0]]
    except ValueError as fault:
        faults.append(f"{key}: {fault} (is {content[key]!r})")
    return default


def _host(name: str, table: dict[str, Any], shared: dict[str, Any], faults: list[str]) -> Host:
    path = f"hosts.{name}"
    if not _NAME.fullmatch(name):
        faults.append(f"{path}: a name has 1 to 63 letters, digits, '-', '_' and '.'")
    before = len(faults)
    own = _values(path, table, set(KEYS), faults)
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
    unknown(path, table, keys, faults)
    found = {}
    for key in table.keys() & keys:
        try:
            found[key] = KEYS[key](table[key])
        except Inside as inside:
            faults += [f"{path}.{key}.{fault}" for fault in inside.args[0]]
        except ValueError as fault:
            faults.append(f"{path}.{key}: {fault} (is {table[key]!r})")
    return found
