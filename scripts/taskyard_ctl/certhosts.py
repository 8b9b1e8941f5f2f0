"""Who needs a certificate: the hosts of an inventory, or what a folder of certificates already holds."""

import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from taskyard.errors import SettingsError
from taskyard_ctl.certs import Subject

CLIENT = Subject("client", "client")


def of_inventory(path: Path, names: Iterable[str] = ()) -> list[Subject]:
    """One subject a host and role, and the client's; `names` are further ones of the master."""
    try:
        hosts = tomllib.loads(path.read_text()).get("hosts", {})
    except (OSError, ValueError) as fault:
        raise SettingsError(f"{path} cannot be read: {fault}") from None
    if not isinstance(hosts, dict) or not all(isinstance(host, dict) for host in hosts.values()):
        raise SettingsError(f"{path}: hosts: write a table a host, [hosts.NAME]")
    masters = [name for name, host in hosts.items() if host.get("role") == "master"]
    if len(masters) != 1:
        raise SettingsError(f'{path}: hosts: exactly one has role = "master", here {len(masters) or "none"}')
    found = [Subject("master", masters[0], (*_addresses(hosts[masters[0]]), *names)), CLIENT]
    for name, host in hosts.items():
        if name != masters[0] or host.get("workers"):
            found.append(Subject("worker", name))
    return found


def of_folder(known: Iterable[Subject], workers: Iterable[str], names: Iterable[str]) -> list[Subject]:
    """The master, the client, and the workers named or known, with all names that they had."""
    known = list(known)
    [master] = [one for one in known if one.role == "master"] or [Subject("master", "master")]
    hosts = dict.fromkeys([*(one.host for one in known if one.role == "worker"), *workers])
    kept = {one.bare: one for one in known}
    others = [kept.get(one, one) for one in (CLIENT, *(Subject("worker", host) for host in hosts))]
    return [Subject("master", master.host, (*master.names, *names)), *others]


def _addresses(host: dict[str, Any]) -> list[str]:
    """What workers dial: `address`, else the HostName that ssh has for `ssh`."""
    if host.get("address"):
        return [str(host["address"])]
    target = str(host.get("ssh", "")).rpartition("@")[2]
    alias = target.rpartition(":")[0] if target.rpartition(":")[2].isdigit() else target
    if not alias or alias.startswith("-"):
        return []
    try:
        told = subprocess.run(["ssh", "-G", alias], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return [alias]
    found = [line.split()[1] for line in told.stdout.splitlines() if line.startswith("hostname ")]
    return list(dict.fromkeys([*found, alias]))
