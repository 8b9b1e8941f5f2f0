"""What the containers of hosts are made from: pure functions from inventory and settings to their options.

Everything that makes a difference goes into the shape's digest, so that two containers with one
digest are alike, and a deploy that changes nothing has nothing to do.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskyard.settings import PREFIX, REGISTRY, split_address
from taskyard.tls_files import REVOKED
from taskyard_ctl.inventory import Host, Inventory
from taskyard_ctl.plan import Role, Shape, Version

LABEL = "taskyard.yard"
INSIDE = 5000  # the master's port in its container
WEB = 8585  # and its dashboard's
MASTER_NAME = "taskyard-master"  # what workers dial on a Swarm's network
SECRETS = "/run/secrets"
JOURNAL = "/var/lib/taskyard"
USER = 10001
LOG = {"max-size": "10m", "max-file": "3"}
# What a deploy sets by itself, or what means something only here.
_OWN = {
    *(
        "ADDRESS",
        "AUTHKEY",
        "PORT",
        "JOURNAL",
        "TASKS_DIR",
        "DATA_DIR",
        "WORKERS",
        "HOST",
        "WEB",
        "WEB_TOKEN",
        "JOIN",
        "JOINED",
    ),
    *("TLS_CA", "TLS_CERT", "TLS_KEY"),
}


def base(yard: str) -> str:
    """What all names of a yard's things on a host begin with."""
    return f"taskyard-{yard}"


@dataclass(frozen=True, slots=True)
class Box:
    """How to make the containers of one role on one host."""

    role: Role
    image: str
    keys: str  # volume
    options: Mapping[str, Any]  # for `create_container`, without name and host_config
    host_options: Mapping[str, Any]  # for `create_host_config`
    version: str
    authority: str  # names the certificate authority; the keys' name covers it in the shape

    @property
    def shape(self) -> Shape:
        made_of = [self.role, self.image, self.keys, self.options, self.host_options]
        text = json.dumps(made_of, sort_keys=True)
        return Shape(hashlib.sha256(text.encode()).hexdigest()[:12], self.keys)

    def labels(self, yard: str, number: int) -> dict[str, str]:
        return {
            LABEL: yard,
            "taskyard.role": self.role,
            "taskyard.number": str(number),
            "taskyard.shape": self.shape.digest,
            "taskyard.version": self.version,
            "taskyard.authority": self.authority,
        }


def box(
    inventory: Inventory,
    host: Host,
    role: Role,
    version: Version,
    environ: Mapping[str, str],
    keys: str,
    authority: str = "",
) -> Box:
    """The containers of a role on a host; `environ` holds the yard's settings, `keys` digests its secrets."""
    name = base(inventory.name)
    volume = f"{name}-keys-{role}-{keys}"
    mounts = [_mount("volume", volume, SECRETS, read_only=True)]
    options: dict[str, Any] = {
        "environment": environment(inventory, host, role, environ),
        "hostname": host.name.replace(".", "-")[:60],
        "user": f"{USER}:{USER}",
        "stop_timeout": 60,  # more than TASKYARD_DRAIN, for a host that shuts down
    }
    host_options: dict[str, Any] = {
        "network_mode": name,
        "init": True,
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777", "/run/taskyard": f"uid={USER},gid={USER},mode=0700"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": host.limits.pids or -1,
        "restart_policy": {"Name": "unless-stopped"},
        "log_config": {"Type": "json-file", "Config": LOG},
    }
    if role == "master":
        mounts.append(_mount("volume", f"{name}-journal", JOURNAL))
        options["ports"] = [INSIDE, WEB]
        host_options["port_bindings"] = {
            str(INSIDE): split_address(inventory.master.address)[1],
            str(WEB): ("127.0.0.1",),  # any free port, for those who come through ssh
        }
    else:
        mounts += [_mount("bind", m.path, m.path, read_only=not m.writable) for m in host.mounts]
        if host.limits.memory:
            host_options["mem_limit"] = host.limits.memory
        if host.limits.cpus:
            host_options["nano_cpus"] = int(host.limits.cpus * 1e9)
        if host.gpus:
            request = {"Driver": "", "Count": host.gpus, "DeviceIDs": None, "Capabilities": [["gpu"]]}
            host_options["device_requests"] = [request]
    return Box(
        role,
        version.image(role, host.architecture),
        volume,
        options,
        {**host_options, "mounts": mounts},
        version.id,
        authority,
    )


def keys_digest(files: Mapping[str, bytes], authkey: bytes) -> str:
    """Names the content of a volume of keys without telling anything of it.

    Of the list of revoked certificates, only what it says of masters counts: the master itself gets
    a new list while it runs, and for workers it does not matter which workers are let in.
    """
    digest = hmac.new(authkey, digestmod="sha256")
    for name in sorted(files):
        content = files[name]
        if name == REVOKED:
            lines = [line for line in content.splitlines() if b" master " in line]
            content = b"\n".join(lines)
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:8]


def list_digest(content: bytes) -> str:
    """Names a list of revoked certificates; "" for none."""
    return hashlib.sha256(content).hexdigest()[:12] if content else ""


def environment(inventory: Inventory, host: Host, role: Role, environ: Mapping[str, str]) -> dict[str, str]:
    passed = {
        setting.variable: environ[setting.variable]
        for setting in REGISTRY
        if setting.name not in _OWN and role in setting.roles and environ.get(setting.variable)
    }
    ours = {
        "AUTHKEY_FILE": f"{SECRETS}/authkey",
        "TLS_CA": f"{SECRETS}/ca.pem",
        "TLS_CERT": f"{SECRETS}/cert.pem",
        "TLS_KEY": f"{SECRETS}/key.pem",
    }
    if role == "master":
        ours |= {"ADDRESS": f"0.0.0.0:{INSIDE}", "JOURNAL": f"{JOURNAL}/journal.db"}
        if environ.get("TASKYARD_WEB_TOKEN") or environ.get("TASKYARD_WEB_TOKEN_FILE"):
            ours |= {"WEB": f"0.0.0.0:{WEB}", "WEB_TOKEN_FILE": f"{SECRETS}/web_token"}
    else:
        ours |= {"ADDRESS": inventory.master.address, "TASKS_DIR": "/tasks", "HOST": host.name}
    return {**passed, **host.env, **{PREFIX + name: value for name, value in ours.items()}}


def _mount(kind: str, source: str, target: str, read_only: bool = False) -> dict[str, Any]:
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": read_only}
