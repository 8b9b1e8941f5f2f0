"""What Swarm's services are made from: pure functions from inventory and settings to what its API takes.

As with containers of hosts, a digest of everything that makes a difference tells whether a service is as it
should be. The name of a worker service holds it: another digest is another service, beside the old one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskyard.settings import PREFIX, split_address
from taskyard.tls_files import REVOKED
from taskyard_ctl.containers import (
    INSIDE,
    JOURNAL,
    LABEL,
    LOG,
    MASTER_NAME,
    SECRETS,
    USER,
    base,
    environment,
    keys_digest,
    list_digest,
)
from taskyard_ctl.inventory import Host, Inventory
from taskyard_ctl.inventory_keys import Limits
from taskyard_ctl.plan import Role, Version

CONFIGS = "/etc/taskyard"
PUBLIC = ("ca.pem", "revoked.pem", "cert.pem")  # configs; all other files are secrets
WORKER = ["python", "-m", "taskyard_worker", "--swarm"]
S = 10**9  # Swarm counts in nanoseconds
DRAIN_S = 50.0
OPEN = '{{"{{"}}'  # what Swarm, which fills in values, takes for a "{{"
MARGIN_S = 10  # a worker that is told to end has this much more than TASKYARD_DRAIN
MASTER_GRACE_S = 15


@dataclass(frozen=True, slots=True)
class Service:
    """How to make one service; without what only the Swarm knows."""

    yard: str
    role: Role
    host: str
    version: str
    image: str
    authority: str
    files: Mapping[str, str]  # file -> name of its secret or config
    container: Mapping[str, Any]
    task: Mapping[str, Any]  # its template, the container aside
    port: int = 0  # published by the master's host

    @property
    def digest(self) -> str:
        made_of = [self.role, self.image, self.files, self.container, self.task, self.port]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """The master's stays, so that Swarm can replace it."""
        if self.role == "master":
            return f"{base(self.yard)}-master"
        return f"{base(self.yard)}-worker-{self.host.replace('.', '-')}"[:56] + f"-{self.digest[:6]}"

    @property
    def labels(self) -> dict[str, str]:
        return {
            LABEL: self.yard,
            "taskyard.role": self.role,
            "taskyard.shape": self.digest,
            "taskyard.version": self.version,
            "taskyard.authority": self.authority,
            "taskyard.host": self.host,
        }

    def body(self, ids: Mapping[str, str], replicas: int) -> dict[str, Any]:
        """What the API takes; `ids` are those of secrets and configs by their names."""
        container = {**self.container, "Labels": self.labels, "Secrets": [], "Configs": []}
        for file, name in self.files.items():
            place = f"{CONFIGS}/{file}" if file in PUBLIC else file
            inside = {"Name": place, "UID": str(USER), "GID": str(USER), "Mode": 0o400}
            kind = "Config" if file in PUBLIC else "Secret"
            container[f"{kind}s"].append({"File": inside, f"{kind}ID": ids[name], f"{kind}Name": name})
        # Virtual addresses and Swarm's own published ports need IPVS, which not every kernel has.
        endpoint: dict[str, Any] = {"Mode": "dnsrr"}
        if self.port:
            one = {"Protocol": "tcp", "TargetPort": INSIDE, "PublishedPort": self.port, "PublishMode": "host"}
            endpoint["Ports"] = [one]
        # What deploying does to workers is gentler; this is for a 'docker service update' by hand.
        order = "stop-first" if self.role == "master" else "start-first"
        change = {"Parallelism": 1, "FailureAction": "rollback", "Monitor": 5 * S, "Order": order}
        return {
            "Name": self.name,
            "Labels": self.labels,
            "TaskTemplate": {**self.task, "ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "EndpointSpec": endpoint,
            "UpdateConfig": change,
            "RollbackConfig": {**change, "FailureAction": "pause"},
        }


def master(
    inventory: Inventory, version: Version, environ: Mapping[str, str], files: Mapping[str, bytes],
    authority: str,
) -> Service:  # fmt: skip
    """The master, on the node of its host, with its journal there."""
    host = inventory.master
    env = environment(inventory, host, "master", environ)
    image = version.image("master", host.architecture)
    container = _container(env, host, image, MASTER_GRACE_S)
    journal = {
        "Type": "volume", "Source": f"{base(inventory.name)}-journal", "Target": JOURNAL,
        "VolumeOptions": {"Labels": {LABEL: inventory.name}},
    }  # fmt: skip
    container["Mounts"].append(journal)
    place = f"node.labels.{label(inventory.name, 'master')}==yes"
    task = _task(inventory.name, place, "any", Limits(pids=host.limits.pids), [MASTER_NAME])
    port = split_address(host.address)[1]
    named = names_of(inventory.name, "master", files)
    return Service(
        inventory.name,
        "master",
        host.name,
        version.id,
        image,
        authority,
        named,
        container,
        task,
        port,
    )


def worker(
    inventory: Inventory, host: Host, version: Version, environ: Mapping[str, str],
    files: Mapping[str, bytes], authority: str,
) -> Service:  # fmt: skip
    """The workers of a host."""
    env = environment(inventory, host, "worker", environ)
    env[PREFIX + "ADDRESS"] = f"{MASTER_NAME}:{INSIDE}"
    drain = float(env.get(PREFIX + "DRAIN", DRAIN_S))
    image = version.image("worker", host.architecture)
    container = _container(env, host, image, round(drain + MARGIN_S))
    container["Command"] = WORKER
    container["Mounts"] += [
        {"Type": "bind", "Source": one.path, "Target": one.path, "ReadOnly": not one.writable}
        for one in host.mounts
    ]
    place = f"node.labels.{label(inventory.name, 'host')}=={host.name}"
    task = _task(inventory.name, place, "on-failure", host.limits, [])
    named = names_of(inventory.name, "worker", files)
    return Service(inventory.name, "worker", host.name, version.id, image, authority, named, container, task)


def label(yard: str, key: str) -> str:
    """The name of a label of nodes; all that begin so are this yard's."""
    return f"taskyard.{yard}.{key}"


# ---------------------------------------------------------------- inside


def _container(env: Mapping[str, str], host: Host, image: str, grace: int) -> dict[str, Any]:
    env = dict(env)
    for name, file in (("TLS_CA", "ca.pem"), ("TLS_CERT", "cert.pem")):
        env[PREFIX + name] = f"{CONFIGS}/{file}"
    env[PREFIX + "TLS_KEY"] = f"{SECRETS}/key.pem"
    return {
        "Image": image,
        "Env": [f"{name}={value.replace('{{', OPEN)}" for name, value in sorted(env.items())],
        "Hostname": host.name.replace(".", "-")[:60],
        "User": f"{USER}:{USER}",
        "Init": True,
        "ReadOnly": True,
        "CapabilityDrop": ["ALL"],
        "Privileges": {"NoNewPrivileges": True},  # heeded from engine 25 on
        "StopGracePeriod": grace * S,
        # What is not said here is as in the image. Engines from 25 on see a start at once, not after 30 s.
        "Healthcheck": {"Test": [], "StartInterval": S},
        "Mounts": [
            {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"Mode": 0o1777}}
            for path in ("/tmp", "/run/taskyard")
        ],
    }


def _task(yard: str, place: str, restart: str, limits: Limits, names: list[str]) -> dict[str, Any]:
    bounds = {"NanoCPUs": int(limits.cpus * S), "MemoryBytes": limits.memory, "Pids": limits.pids}
    return {
        "Resources": {"Limits": bounds},
        "RestartPolicy": {"Condition": restart, "Delay": S},
        "Placement": {"Constraints": [place]},
        "Networks": [{"Target": base(yard), "Aliases": names}],
        "LogDriver": {"Name": "json-file", "Options": LOG},
    }


def names_of(yard: str, role: str, files: Mapping[str, bytes]) -> dict[str, str]:
    """The names of secrets and configs, which cannot be changed and therefore are named by their content.

    What the list of revoked certificates says of workers is the master's alone to know.
    """
    key = files["authkey"]
    digests = {file: keys_digest({file: content}, key) for file, content in files.items()}
    if role == "master":
        digests[REVOKED] = list_digest(files[REVOKED])[:8]
    ends = {file: f"-{digest}-{file}" for file, digest in digests.items()}
    return {file: base(yard)[: 64 - len(end)] + end for file, end in ends.items()}
