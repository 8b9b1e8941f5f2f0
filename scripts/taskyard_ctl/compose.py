"""The engine with containers on this host: Compose starts them, the Docker SDK looks at them.

The files are the kit's, the project's folder is the yard's, so that any folder works and
a plain `docker compose` in the same folder sees the same containers.
"""

import math
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import docker  # type: ignore[import-untyped]
import docker.errors  # type: ignore[import-untyped]

from taskyard.errors import EngineError, UsageError
from taskyard_ctl import envfile, images
from taskyard_ctl.compose_logs import ContainerLogs
from taskyard_ctl.interface import Line, Member, Say
from taskyard_ctl.kitfiles import kit_folder
from taskyard_ctl.ports import check_free
from taskyard_ctl.yard import YardFolder

CURE = "start it, or use 'taskyard up --local'"
MASTER_GRACE_S = 10
CONTAINER_UID = 10001
_SECRETS = ("TASKYARD_AUTHKEY", "TASKYARD_WEB_TOKEN")
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
NUMBER, WORKING_DIR = "com.docker.compose.container-number", "com.docker.compose.project.working_dir"


class ComposeEngine:
    """Drives Compose v2, or docker-compose 1.29, for one yard."""

    name = "compose"
    containers = True

    def __init__(self, folder: YardFolder) -> None:
        self._folder = folder
        self.project = folder.environ.get("COMPOSE_PROJECT_NAME") or project_name(folder.path)

    # ------------------------------------------------------------ the verbs

    def check(self) -> None:
        _ = self._client, self._words

    def running(self) -> bool:
        return any(member.state in ("running", "restarting") for member in self.members())

    def members(self) -> list[Member]:
        found = []
        for container in self._containers():
            labels = _labels(container)
            service, number = labels[SERVICE], labels.get(NUMBER, "1")
            name = "master" if service == "master" else f"{service}-{number}"
            found.append(Member(name, service, container.status, container=str(container.id)))
        return sorted(found, key=lambda m: (m.role, len(m.name), m.name))

    def up(self, workers: int, say: Say) -> None:
        self._check_project()
        check_free(*self._folder.settings.endpoint)
        built = images.for_yard(self.project, self._folder.settings, say)
        try:
            self._compose("up", "--detach", "--no-build", "--scale", f"worker={workers}", built=built)
        except BaseException:
            self.down(0.0, say)
            raise

    def fault(self) -> str:
        for container in self._containers():
            if container.status in ("restarting", "exited", "dead"):
                service = _labels(container)[SERVICE]
                container.reload()
                if container.status != "exited" and container.attrs.get("RestartCount", 0) < 2:
                    continue
                words = container.logs(tail=1).decode(errors="replace").strip()
                code = container.attrs["State"]["ExitCode"]
                return f"the {service} does not start: {words or f'exit code {code}'}"
        return ""

    def grow(self, workers: int) -> None:
        # New workers are of the same image as those that run, whatever was built since.
        now = {_labels(c)[SERVICE]: str(c.attrs["Image"]) for c in self._containers()}
        if {"master", "worker"} <= set(now):
            built = images.Images(now["master"], now["worker"])
        else:
            built = images.for_yard(self.project, self._folder.settings, lambda line: None)
        scaled = ("--scale", f"worker={workers}")
        self._compose("up", "--detach", "--no-build", "--no-recreate", *scaled, built=built)

    def remove(self, member: Member, grace: float) -> None:
        try:
            container = self._client.containers.get(member.container)
            container.stop(timeout=math.ceil(grace))
            container.remove()
        except docker.errors.NotFound:
            pass  # it went by itself
        except docker.errors.APIError as fault:
            raise EngineError(f"{member.name} cannot be removed: {fault.explanation or fault}") from None

    def down(self, grace: float, say: Say) -> None:
        self._check_project()
        if grace:
            self._compose("stop", "--timeout", str(math.ceil(grace)), "worker")
        self._compose("down", "--timeout", str(MASTER_GRACE_S if grace else 1))

    def destroy(self, volumes: bool, say: Say) -> None:
        if all(map(self._is_here, self._list({PROJECT: self.project}))):  # else it is another folder's yard
            self._compose("down", "--timeout", "1", *(["--volumes"] if volumes else []))
            images.forget(self.project, say)
            for name in _SECRETS:
                self._as_file(name).unlink(missing_ok=True)

    def restore(self, file: Path) -> str:
        """In a container of the master's image that has the journal's volume, as the master's user."""
        self._check_project()
        built = images.for_yard(self.project, self._folder.settings, lambda line: None)
        program = ("--entrypoint", "python", "master", "-m", "taskyard_master.restore")
        with file.open("rb") as source:
            return self._compose("run", "--rm", "--no-deps", "-T", *program, built=built, stdin=source)

    def lines(self, since: str, follow: bool) -> Iterator[Line]:
        logs = ContainerLogs(self._client, self.members)
        return logs.follow(since) if follow else logs.history(since)

    # ------------------------------------------------------------ Docker and Compose

    @cached_property
    def _client(self) -> docker.DockerClient:
        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException as fault:
            raise EngineError(f"no Docker engine answers ({_reason(fault)}): {CURE}") from None
        return client

    @cached_property
    def _words(self) -> list[str]:
        """What starts Compose here: v2 if there is one."""
        for words in (["docker", "compose"], ["docker-compose"]):
            try:
                done = subprocess.run([*words, "version"], stdin=subprocess.DEVNULL, capture_output=True)
            except OSError:
                continue
            if done.returncode == 0:
                return words
        raise EngineError(
            "neither 'docker compose' nor 'docker-compose' is installed: install one, or use"
            " 'taskyard up --local'"
        )

    def _list(self, labels: dict[str, str]) -> list[Any]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        try:
            found: list[Any] = self._client.containers.list(all=True, sparse=True, filters={"label": wanted})
        except docker.errors.DockerException as fault:
            raise EngineError(f"the Docker engine failed ({_reason(fault)}): {CURE}") from None
        return found

    def _containers(self) -> list[Any]:
        """Those of this yard; two folders of one name are two yards."""
        return [
            container
            for container in self._list({PROJECT: self.project})
            if _labels(container).get(SERVICE) in ("master", "worker") and self._is_here(container)
        ]

    def _is_here(self, container: Any) -> bool:
        place = _labels(container).get(WORKING_DIR)
        return place is None or Path(place).resolve() == self._folder.path

    def _check_project(self) -> None:
        """Compose goes by the project's name alone, and would stop the yard of another folder."""
        for container in self._list({PROJECT: self.project}):
            if not self._is_here(container):
                place = _labels(container)[WORKING_DIR]
                raise UsageError(
                    f"the name {self.project!r} is taken by the containers of {place}: set another"
                    f" COMPOSE_PROJECT_NAME in {self._folder.env_file}"
                )

    def _compose(
        self, *arguments: str, built: images.Images | None = None, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> str:
        environ = self._environ(built)
        command = [*self._words, "--project-name", self.project]
        command += ["--file", str(kit_folder() / "docker-compose.yml")]
        if "TASKYARD_AUTHKEY_FILE" in environ:
            command += ["--file", str(kit_folder() / "docker-compose.secrets.yml")]
        command += ["--project-directory", str(self._folder.path), *arguments]
        done = subprocess.run(command, env=environ, stdin=stdin, capture_output=True, text=True)
        if done.returncode:
            raise EngineError(f"{' '.join(self._words)} {arguments[0]} failed: {_fault(done.stderr)}")
        return done.stdout.strip()

    def _environ(self, built: images.Images | None) -> dict[str, str]:
        """What the compose file asks for; the key and paths as they are on this host."""
        values = self._folder.child_environ()
        settings = self._folder.basics
        values["TASKYARD_AUTHKEY"] = settings.authkey.decode() or "-"  # to stop, none is needed
        # Without a token nothing is served inside, where it would have to listen on all interfaces.
        values["TASKYARD_WEB_TOKEN"] = settings.web_token if settings.web else ""
        if any(values.get(f"{name}_FILE") for name in _SECRETS):
            self._hide(values)
        else:
            for name in _SECRETS:
                values.pop(f"{name}_FILE", None)
        values["TASKYARD_ADDRESS"] = settings.address
        values.setdefault("TASKYARD_HOST", socket.gethostname())  # a container only knows its own id
        data = settings.data_dir
        if data and not os.path.isdir(data):  # noqa: PTH112 - a str
            raise UsageError(f"TASKYARD_DATA_DIR: there is no folder {data}")
        values["TASKYARD_DATA_DIR"] = data or settings.tasks_dir
        if built is not None:
            values["TASKYARD_MASTER_IMAGE"], values["TASKYARD_WORKER_IMAGE"] = built.master, built.worker
        return values

    def _hide(self, values: dict[str, str]) -> None:
        """Give the containers all secrets as files: one of them is, and another would show in their stead."""
        for name in _SECRETS:
            file = f"{name}_FILE"
            if not values[name]:
                values.pop(file, None)
            elif values.get(file):
                _check_readable(file, Path(values[file]))
            else:
                self._folder.make_state()
                envfile.write(self._as_file(name), values[name], 0o444)
                values[file] = str(self._as_file(name))
            values[name] = "-"

    def _as_file(self, name: str) -> Path:
        """Where a secret goes that is a file for the containers only: a folder that only we may enter."""
        return self._folder.state / name.lower()


def _check_readable(setting: str, key: Path) -> None:
    """Compose hands a file on with the mode that it has here, to a container whose user is another."""
    found = key.stat()
    if not found.st_mode & (0o400 if found.st_uid == CONTAINER_UID else 0o004):
        raise UsageError(
            f"{setting}: containers cannot read {key}: let it be read by all (chmod 444), in a"
            " folder that only you may enter (chmod 700)"
        )


def _labels(container: Any) -> dict[str, str]:
    """Those of a container in a sparse list, which is one request for all and not one for each."""
    return container.attrs.get("Labels") or {}


def project_name(folder: Path) -> str:
    """The name that Compose gives to a project in this folder."""
    return re.sub(r"[^a-z0-9_-]", "", folder.name.lower()).lstrip("_-") or "yard"


def _reason(fault: Exception) -> str:
    """The last words of an error that wraps others."""
    text = str(fault)
    inner = re.findall(r"(?:Error|Exception)\(\d+, '([^']+)'\)", text)
    return inner[-1] if inner else text.partition("\n")[0]


def _fault(text: str) -> str:
    """What Compose said in the end, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower()]
    return (named or lines or ["it said nothing"])[-1]
