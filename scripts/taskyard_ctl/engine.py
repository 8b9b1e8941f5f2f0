"""What is done on one host, with the Docker SDK through the host's connection."""

import contextlib
import functools
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import docker.errors  # type: ignore[import-untyped]
import requests

from taskyard.errors import HostError, StorageError
from taskyard.tls_files import REVOKED
from taskyard_ctl.containers import JOURNAL, LABEL, SECRETS, USER, Box, base, list_digest
from taskyard_ctl.images import PARTS, yard_image
from taskyard_ctl.layout import Cargo
from taskyard_ctl.plan import HostNow, Role, Running
from taskyard_ctl.registry import remote
from taskyard_ctl.shipping import Hold, Progress, send, shared, size
from taskyard_ctl.ssh import Link

P = ParamSpec("P")
T = TypeVar("T")
SERVICE, TASK = "com.docker.swarm.service.name", "com.docker.swarm.task.name"  # labels that Swarm sets
_CURES = {
    "could not select device driver": "its engine knows no graphics cards: install their vendor's container"
    " toolkit there, or take gpus out of hosts.toml",
}
FAULTS = (docker.errors.DockerException, requests.RequestException, OSError)


def reason(fault: Exception) -> str:
    """What an engine said, in one line, and what to do about it where that is known."""
    text = " ".join(str(getattr(fault, "explanation", None) or fault).split())
    cures = [f"{text}: {cure}" for said, cure in _CURES.items() if said in text]
    return "the connection broke off" if isinstance(fault, requests.ConnectionError) else (cures or [text])[0]


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """An engine's fault becomes a HostError that names the host."""
    try:
        yield
    except FAULTS as fault:
        raise HostError(f"{name}: {reason(fault)}") from None


def _named(
    method: "Callable[Concatenate[HostEngine, P], T]",
) -> "Callable[Concatenate[HostEngine, P], T]":
    """What a method does is `told` of its host."""

    def wrapped(self: "HostEngine", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with told(self.name):
            return method(self, *args, **kwargs)

    functools.update_wrapper(wrapped, method)
    return wrapped


def _number(labels: Mapping[str, str]) -> int:
    """Of a worker on its host; Swarm's tasks are SERVICE.NUMBER.ID."""
    words = labels.get("taskyard.number") or labels.get(TASK, ".0.").rpartition(".")[0].rpartition(".")[2]
    return int(words)


class HostEngine:
    """The engine of one host, for one yard: it sees and touches only what has the yard's label."""

    def __init__(self, link: Link, yard: str) -> None:
        self.link = link
        self.name = link.host.name
        self.yard = yard
        self.mine = {"label": [f"{LABEL}={yard}"]}  # the filter for what has the yard's label
        self._base = base(yard)
        self._image_names = [yard_image(yard, role) for role in PARTS]

    @property
    def client(self) -> Any:
        return self.link.docker

    @property
    def api(self) -> Any:
        return self.client.api

    # ------------------------------------------------------------ looking

    @_named
    def look(self) -> HostNow:
        """What is there now."""
        api = self.api
        info = api.info()
        images = api.images(filters={"reference": self._image_names})
        volumes = api.volumes(filters=self.mine)["Volumes"] or []
        networks = api.networks(names=[self._base])
        containers = self.containers()
        return HostNow(
            info["NCPU"],
            api.version()["Arch"],
            frozenset(tag for image in images for tag in image["RepoTags"] or () if tag[0] != "<"),
            tuple(containers),
            any(network["Name"] == self._base for network in networks),
            frozenset(v["Name"] for v in volumes if v["Name"].startswith(f"{self._base}-keys-")),
            list_digest(b"".join(self._read(c.id, REVOKED) for c in containers if c.role == "master")),
        )

    @_named
    def containers(self) -> list[Running]:
        found = []
        for raw in self.api.containers(all=True, filters=self.mine):
            labels = raw["Labels"]
            role: Role | None = {"master": "master", "worker": "worker"}.get(labels.get("taskyard.role"))  # type: ignore[assignment]
            if role is not None:
                number, shape = _number(labels), labels["taskyard.shape"]
                version = labels["taskyard.version"]
                name = raw["Names"][0].lstrip("/")
                authority, service = labels.get("taskyard.authority", ""), labels.get(SERVICE, "")
                found.append(
                    Running(name, role, number, shape, version, raw["State"], raw["Id"], authority, service)
                )
        return sorted(found, key=lambda one: (one.role, one.number, one.name))

    @_named
    def state(self, name: str) -> tuple[str, int]:
        """A container's state, and how often it was restarted; "gone" if it is not there."""
        try:
            attributes = self.api.inspect_container(name)
        except docker.errors.NotFound:
            return "gone", 0
        return attributes["State"]["Status"], attributes["RestartCount"]

    @_named
    def published(self, name: str, inside: int) -> int:
        """The host's port that leads to one of a container; 0 if none does."""
        ports = self.api.inspect_container(name)["NetworkSettings"]["Ports"]
        found = ports.get(f"{inside}/tcp") or []
        return int(found[0]["HostPort"]) if found else 0

    @_named
    def task_of(self, name: str) -> tuple[str, str]:
        """The service of Swarm that a container is of, and the id of its task."""
        labels = self.api.inspect_container(name)["Config"]["Labels"]
        return str(labels.get(SERVICE, "")), str(labels.get(TASK, "")).rpartition(".")[2]

    @_named
    def gateway_address(self, name: str) -> str:
        """Where this host reaches a container of Swarm, published or not; "" if it does not run."""
        sandbox = self.api.inspect_container(name)["NetworkSettings"]["SandboxID"]
        for one in self.api.inspect_network("docker_gwbridge")["Containers"].values():
            if sandbox and one["Name"] == f"gateway_{sandbox[:12]}":
                return str(one["IPv4Address"]).partition("/")[0]
        return ""

    @_named
    def tail(self, name: str, lines: int) -> list[str]:
        said: bytes = self.api.logs(name, tail=lines)
        return said.decode(errors="replace").splitlines()

    # ------------------------------------------------------------ changing

    @_named
    def send(self, hold: Hold, cargo: Cargo, total: Callable[[int], None], progress: Progress) -> int:
        """Load an image; returns the bytes that went over the wire."""
        there = [tuple(image.attrs["RootFS"].get("Layers") or ()) for image in self.client.images.list()]
        skip = shared(cargo, there)
        total(size(hold, cargo, skip))
        return send(self.client, hold, cargo, skip, progress)

    @_named
    def pull(self, registry: str, image: str) -> None:
        """Get an image from a registry, and call it as if it had been sent."""
        api, name = self.api, remote(registry, image)
        where, _, tag = name.rpartition(":")
        try:
            said = [
                step["error"] for step in api.pull(where, tag, stream=True, decode=True) if "error" in step
            ]
        except FAULTS as fault:
            said = [reason(fault)]
        if said:
            raise HostError(
                f"{self.name}: {name} cannot be pulled ({said[0]}): can it reach the registry, does its"
                " engine trust it, and may you pull?"
            )
        repository, _, tag = image.rpartition(":")
        api.tag(name, repository, tag)
        api.remove_image(name, noprune=True)

    @_named
    def make_network(self) -> None:
        self.api.create_network(self._base, driver="bridge", labels={LABEL: self.yard}, check_duplicate=True)

    @_named
    def make_volume(self, name: str) -> None:
        self.api.create_volume(name, labels={LABEL: self.yard})

    @_named
    def put(self, volume: str, image: str, files: Mapping[str, bytes], mode: int = 0o400) -> None:
        """Write files into a volume, which is made if it is not there; nothing is started for it."""
        self.make_volume(volume)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.uid, info.gid, info.mtime = (
                    len(data),
                    mode,
                    USER,
                    USER,
                    time.time(),
                )
                archive.addfile(info, io.BytesIO(data))
        helper = self._helper(volume, image)
        try:
            self.api.put_archive(helper, SECRETS, content.getvalue())
        finally:
            self.api.remove_container(helper, force=True)

    @_named
    def get(self, volume: str, image: str, name: str) -> bytes:
        """A file of a volume; empty if there is none."""
        helper = self._helper(volume, image)
        try:
            return self._read(helper, name)
        finally:
            self.api.remove_container(helper, force=True)

    def _read(self, container: str, name: str) -> bytes:
        """A file of the volume that a container has for its secrets; empty if there is none."""
        try:
            stream, _ = self.api.get_archive(container, f"{SECRETS}/{name}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                content = archive.extractfile(archive.next() or tarfile.TarInfo())
                return content.read() if content else b""
        except docker.errors.NotFound:
            return b""

    def _helper(self, volume: str, image: str) -> str:
        """A container that is never started: files go through it into its volume and out of it."""
        api = self.api
        mount = {"Type": "volume", "Source": volume, "Target": SECRETS, "ReadOnly": False}
        made = api.create_container(
            image, labels={LABEL: self.yard}, host_config=api.create_host_config(mounts=[mount]),
            use_config_proxy=False,
        )  # fmt: skip
        helper: str = made["Id"]
        return helper

    @_named
    def create(self, box: Box, number: int) -> str:
        """Make a container and do not start it; returns its name."""
        api = self.api
        suffix = box.shape.digest[:6] if box.role == "master" else str(number)
        name = f"{self._base}-{box.role}-{suffix}"
        if box.role == "master":
            self.make_volume(f"{self._base}-journal")  # the engine would make one without a label
        api.create_container(
            box.image, name=name, labels=box.labels(self.yard, number), use_config_proxy=False,
            host_config=api.create_host_config(**box.host_options), **box.options,
        )  # fmt: skip
        return name

    @_named
    def start(self, name: str) -> None:
        self.api.start(name)

    @_named
    def stop(self, name: str, grace: int) -> None:
        self.api.stop(name, timeout=grace)

    @_named
    def end(self, name: str, grace: int) -> None:
        """Have a worker of Swarm end for good: any other end than by SIGINT has Swarm start it again."""
        api = self.api
        try:
            if api.inspect_container(name)["State"]["Running"]:
                api.kill(name, signal="SIGINT")
                api.wait(name, timeout=grace)
        except docker.errors.NotFound:
            pass

    @_named
    def remove(self, name: str, grace: int = 0) -> None:
        """Stop a container and forget it; gone already is as good."""
        try:
            if grace:
                self.api.stop(name, timeout=grace)
            self.api.remove_container(name, force=True)
        except docker.errors.NotFound:
            pass

    @_named
    def remove_image(self, name: str) -> None:
        try:
            self.api.remove_image(name)
        except docker.errors.APIError as fault:
            if fault.status_code not in (404, 409):  # gone, or a worker that still drains is made of it
                raise

    @_named
    def remove_volume(self, name: str) -> None:
        try:
            self.api.remove_volume(name)
        except docker.errors.APIError as fault:
            if fault.status_code not in (404, 409):
                raise

    @_named
    def restore(self, image: str, file: Path) -> str:
        """Put a backup in the journal's place, with the master's own program; returns what it said."""
        api, journal = self.api, f"{self._base}-journal"
        self.make_volume(journal)
        mount = {"Type": "volume", "Source": journal, "Target": JOURNAL, "ReadOnly": False}
        program = ["python", "-m", "taskyard_master.restore", "/tmp/backup"]
        limits = api.create_host_config(mounts=[mount], network_mode="none", cap_drop=["ALL"])
        made = api.create_container(
            image, entrypoint=program, labels={LABEL: self.yard}, host_config=limits, use_config_proxy=False,
            environment={"TASKYARD_AUTHKEY": "none-is-needed-for-this"},
        )  # fmt: skip
        try:
            with tempfile.TemporaryFile() as content:
                with tarfile.open(fileobj=content, mode="w") as archive:
                    info = archive.gettarinfo(str(file), "backup")
                    info.uid, info.gid, info.mode = USER, USER, 0o400
                    with file.open("rb") as source:
                        archive.addfile(info, source)
                content.seek(0)
                api.put_archive(made["Id"], "/tmp", content)
            api.start(made["Id"])
            code = api.wait(made["Id"])["StatusCode"]
            said: str = api.logs(made["Id"]).decode(errors="replace").strip()
        finally:
            api.remove_container(made["Id"], force=True)
        if code:
            raise StorageError(f"{self.name}: {said.splitlines()[-1] if said else f'exit code {code}'}")
        return f"{self.name}: {said}"

    @_named
    def remove_all(self, keep: tuple[str, ...] = (), network: bool = True) -> None:
        """Whatever of the yard is here, except the volumes `keep`; its network unless it is the Swarm's."""
        api = self.api
        for raw in api.containers(all=True, filters=self.mine):
            self.remove(raw["Id"])
        if network:
            self.remove_network()
        for name, _ in self.volumes():
            if name not in keep:
                self.remove_volume(name)
        for image in api.images(filters={"reference": self._image_names}):
            for tag in image["RepoTags"] or ():
                self.remove_image(tag)

    @_named
    def volumes(self) -> list[tuple[str, dict[str, str]]]:
        """Those of the yard, with their labels."""
        found = self.api.volumes(filters=self.mine)["Volumes"] or []
        return [(volume["Name"], volume["Labels"] or {}) for volume in found]

    @_named
    def claim(self, volume: str, labels: Mapping[str, str]) -> dict[str, str]:
        """Make a volume with these labels, or return the labels that it has: engines do this at once."""
        self.api.create_volume(volume, labels={LABEL: self.yard, **labels})
        return dict(self.api.inspect_volume(volume)["Labels"] or {})

    @_named
    def remove_network(self) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            self.api.remove_network(self._base)
