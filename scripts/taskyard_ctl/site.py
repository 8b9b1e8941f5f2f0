"""A yard on hosts, seen from its folder: which inventory, which certificates, which way to its master."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from taskyard.errors import HostError, SettingsError, UsageError
from taskyard.settings import PREFIX, Settings, split_address
from taskyard_ctl.certs import Subject
from taskyard_ctl.compose import project_name
from taskyard_ctl.containers import MASTER_NAME, Box, box, keys_digest
from taskyard_ctl.inventory import Host, Inventory, host_name, load, of_targets, with_address
from taskyard_ctl.plan import Role, Version
from taskyard_ctl.yard import YardFolder

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard_ctl.certfiles import Change

ENGINE = "hosts"  # in the record
INVENTORY = "hosts.toml"
CERTS = "certs"

Via = Literal["ssh", "swarm"]  # who starts containers: we, or Docker Swarm


@dataclass
class Site:
    """One inventory and what belongs to it."""

    folder: YardFolder
    source: Path | None  # hosts.toml; None if the hosts were named on the command line
    targets: tuple[str, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)
    via: Via = "ssh"

    @classmethod
    def of_words(cls, folder: YardFolder, words: Sequence[str], via: Via | None = None) -> "Site":
        """From what stands behind `deploy`; what is not said is as it was last, else hosts.toml and ssh."""
        site = cls._of_words(folder, words)
        record = folder.record()
        site.via = via or (record.get("via", "ssh") if record.get("engine") == ENGINE else "ssh")
        return site

    @classmethod
    def _of_words(cls, folder: YardFolder, words: Sequence[str]) -> "Site":
        if not words:
            if folder.record().get("engine") == ENGINE:
                return cls.recorded(folder)
            if not (folder.path / INVENTORY).exists():
                raise UsageError(
                    "name a hosts.toml, or hosts as user@host; 'taskyard init' writes an example"
                )
            return cls(folder, folder.path / INVENTORY)
        if len(words) == 1 and (words[0].endswith(".toml") or Path(words[0]).is_file()):
            return cls(folder, Path(words[0]).resolve())
        if any(word.endswith(".toml") for word in words):
            raise UsageError("name one hosts.toml, or hosts as user@host")
        return cls(folder, None, tuple(words))

    @classmethod
    def recorded(cls, folder: YardFolder) -> "Site":
        """What the last deploy wrote down."""
        record = folder.record()
        source = record.get("inventory")
        targets = tuple(record.get("targets", ()))
        return cls(folder, Path(source) if source else None, targets, via=record.get("via", "ssh"))

    @property
    def swarm(self) -> bool:
        return self.via == "swarm"

    def write_record(self, leaving: Iterable[Host]) -> None:
        """What is deployed, for all verbs; hosts that still have to be left are kept in mind."""
        source = str(self.source) if self.source else None
        hosts = [
            {"name": host.name, "ssh": host.ssh, "docker_socket": host.docker_socket}
            for host in (*self.inventory.hosts, *leaving)
        ]
        targets = list(self.targets)
        self.folder.write_record(engine=ENGINE, via=self.via, inventory=source, targets=targets, hosts=hosts)

    def leaving(self) -> tuple[Host, ...]:
        """Hosts of the deploys before that are not in the inventory any more."""
        record = self.folder.record()
        if record.get("engine") != ENGINE:
            return ()
        names, there = set(self.names), {host.ssh for host in self.inventory.hosts}
        found = []
        for one in record.get("hosts", ()):
            if one["ssh"] not in there:
                name = one["name"] if one["name"] not in names else f"{one['name']}-before"
                host = Host(name, one["ssh"], workers=0, docker_socket=one["docker_socket"], leaving=True)
                found.append(host)
        return tuple(found)

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.inventory.hosts]

    @cached_property
    def inventory(self) -> Inventory:
        name = project_name(self.folder.path)[:40]
        if self.source is None:
            return with_address(of_targets(self.targets, name))
        return with_address(load(self.source, name))

    # ------------------------------------------------------------ keys

    @cached_property
    def certs(self) -> Any:
        from taskyard_ctl.certfiles import CertFolder

        return CertFolder((self.source.parent if self.source else self.folder.path) / CERTS)

    def make_certs(self) -> "list[Change]":
        """Make what is missing, renew what ends soon."""
        changes: list[Change] = self.certs.ensure(self._subjects(), datetime.now(UTC).replace(microsecond=0))
        ignore = self.certs.path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")  # the authority's key is nobody else's
        return changes

    def _subjects(self) -> list[Subject]:
        master = self.inventory.master
        names = {split_address(master.address)[0], host_name(master).strip("[]")}
        if self.swarm:
            names.add(MASTER_NAME)
        return [
            Subject("master", master.name, tuple(sorted(names))),
            Subject("client", "client"),
            *(Subject("worker", host.name) for host in self.inventory.hosts if host.workers),
        ]

    def keys(self, host: Host, role: Role) -> dict[str, bytes]:
        """The files that a host's containers of a role need."""
        stem = "master" if role == "master" else f"worker-{host.name}"
        path = self.certs.path
        try:
            files = {
                "ca.pem": (path / "ca.pem").read_bytes(),
                "revoked.pem": (path / "revoked.pem").read_bytes(),
                "cert.pem": (path / f"{stem}.pem").read_bytes(),
                "key.pem": (path / f"{stem}.key").read_bytes(),
            }
        except FileNotFoundError as fault:
            raise SettingsError(
                f"{fault.filename} is not there: if {host.name} was revoked, 'taskyard certs --renew"
                f" {host.name}' lets it in again"
            ) from None
        token = self.folder.basics.web_token if role == "master" else ""
        if token:
            files["web_token"] = token.encode()
        return {**files, "authkey": bytes(self.folder.settings.authkey)}

    @property
    def authority(self) -> str:
        """A name for the authority of this yard's certificates."""
        return hashlib.sha256((self.certs.path / "ca.pem").read_bytes()).hexdigest()[:12]

    def boxes(
        self, version: Version, inventory: Inventory | None = None
    ) -> tuple[dict[tuple[str, Role], Box], dict[tuple[str, Role], Mapping[str, bytes]]]:
        """How to make the containers of every host, and the files that go with them."""
        inventory = inventory or self.inventory
        boxes: dict[tuple[str, Role], Box] = {}
        keys: dict[tuple[str, Role], Mapping[str, bytes]] = {}
        for host in inventory.hosts:
            roles: list[Role] = ["master", "worker"] if host.role == "master" else ["worker"]
            for role in roles:
                known = host.workers or role == "master"
                files = self.keys(host, role) if known else {}
                digest = keys_digest(files, self.folder.settings.authkey)
                environ = self.folder.environ
                boxes[host.name, role] = box(inventory, host, role, version, environ, digest, self.authority)
                keys[host.name, role] = files
        return boxes, keys

    # ------------------------------------------------------------ the master

    @property
    def master_port(self) -> int:
        """Of the master on its host."""
        return split_address(self.inventory.master.address)[1]

    def connect(self, port: int, patience: float, reconnect: float | None) -> "Yard":
        """A connection to the master through the local end of a forwarded port."""
        from taskyard.client import Yard

        path = self.certs.path
        if not (path / "client.pem").exists():
            raise HostError(f"{path} holds no client.pem: 'taskyard deploy' makes it where ca.key is kept")
        environ = {name: value for name, value in self.folder.environ.items() if name.startswith(PREFIX)}
        environ |= {
            "TASKYARD_ADDRESS": f"127.0.0.1:{port}",
            "TASKYARD_TLS_CA": str(path / "ca.pem"),
            "TASKYARD_TLS_CERT": str(path / "client.pem"),
            "TASKYARD_TLS_KEY": str(path / "client.key"),
        }
        settings = Settings.from_env(environ)
        return Yard.from_settings(settings, label="taskyard", patience=patience, reconnect=reconnect)
