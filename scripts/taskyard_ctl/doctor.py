"""Looks at everything that keeps a yard on several hosts from working, and names the cure of what does.

One line a check. It changes nothing: what it has to try from a worker's side runs in a container of the
worker's image that is removed at once.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from taskyard.errors import TaskyardError
from taskyard.settings import split_address
from taskyard_ctl.containers import base
from taskyard_ctl.engine import FAULTS, HostEngine, reason
from taskyard_ctl.inventory import Host
from taskyard_ctl.plan import RUNS, HostNow
from taskyard_ctl.site import Site
from taskyard_ctl.ssh import OPTIONS, Link, connect
from taskyard_ctl.swarmnodes import PORTS, seat

HERE = "here"
ENGINE = (20, 10)
PRIVILEGES = 25  # the first engine that heeds them with Swarm
DISK = 2 << 30  # bytes: an image and its layers, and some logs
MEMORY = 256 << 20  # of a worker
SKEW_S = 5.0
RENEW_DAYS = 30
_DIAL = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check on one host; `cure` is empty if all is well."""

    host: str
    check: str
    found: str
    cure: str = ""

    @property
    def ok(self) -> bool:
        return not self.cure


def examine(site: Site) -> list[Finding]:
    """All checks, those of this machine first."""
    findings = list(_here(site))
    if shutil.which("ssh") is None:
        return findings
    links, faults = connect(site.inventory.hosts)
    try:
        findings += [Finding(name, "ssh", "no connection", str(fault)) for name, fault in faults.items()]
        with ThreadPoolExecutor(max(1, len(links))) as pool:
            for found in pool.map(lambda link: list(_host(site, link)), links.values()):
                findings += found
    finally:
        for link in links.values():
            link.close()
    return findings


# ---------------------------------------------------------------- this machine


def _here(site: Site) -> Iterator[Finding]:
    ssh = shutil.which("ssh")
    yield Finding(HERE, "ssh", ssh or "not installed", "" if ssh else "install OpenSSH's client")
    folder = site.folder
    try:
        yield Finding(HERE, "key", f"{len(folder.settings.authkey)} characters")
    except TaskyardError as fault:
        yield Finding(HERE, "key", "none", " ".join(str(fault).split()))
    yield _tried("engine", lambda: _version(_local().version()["Version"]))
    yield from _certificates(site)


def _certificates(site: Site) -> Iterator[Finding]:
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        entries = [entry for entry in site.certs.entries(now) if entry.file]
    except TaskyardError:
        yield Finding(HERE, "certificates", "none yet: 'taskyard deploy' makes them")
        return
    bad = [entry for entry in entries if entry.state != "ok"]
    for entry in bad:
        yield Finding(HERE, "certificates", f"{entry.file}: {entry.state}", "'taskyard deploy' makes it anew")
    if not bad:
        first = min(entry.not_after for entry in entries)[:10]
        yield Finding(HERE, "certificates", f"{len(entries)}, the first ends on {first}")


def _local() -> Any:
    import docker  # type: ignore[import-untyped]

    return docker.from_env()


def _tried(check: str, look: Callable[[], Finding | str]) -> Finding:
    try:
        found = look()
    except FAULTS as fault:
        return Finding(HERE, check, reason(fault), "start the Docker engine here: it builds the images")
    return found if isinstance(found, Finding) else Finding(HERE, check, found)


# ---------------------------------------------------------------- a host


def _host(site: Site, link: Link) -> Iterator[Finding]:
    host, engine = link.host, HostEngine(link, site.inventory.name)
    yield Finding(host.name, "ssh", host.ssh)
    try:
        info, version = link.docker.info(), link.docker.version()["Version"]
        now = engine.look()
    except (*FAULTS, TaskyardError) as fault:
        text = str(fault) if isinstance(fault, TaskyardError) else reason(fault)
        yield Finding(host.name, "engine", text, "'systemctl restart docker' there, and look at its log")
        return
    yield Finding(host.name, "engine", _version(version), _old(version))
    yield _memory(host, info, now)
    yield from _asked(host, info)
    yield from _containers(host, now)
    yield from [_swarm(engine, version)] if site.swarm else _port(site, engine, now)


def _version(text: str) -> str:
    return f"Docker {text}"


def _old(version: str) -> str:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return "" if numbers >= ENGINE else f"install Docker {ENGINE[0]}.{ENGINE[1]:02} or later"


def _memory(host: Host, info: dict[str, Any], now: HostNow) -> Finding:
    workers = now.cpus if host.workers == "auto" else host.workers
    needed, there = workers * max(MEMORY, host.limits.memory), info["MemTotal"]
    found = f"{there / (1 << 30):.1f} GiB for {workers} workers"
    cure = "" if there >= needed else f"set hosts.{host.name}.workers lower, or limits.memory"
    return Finding(host.name, "memory", found, cure)


def _asked(host: Host, info: dict[str, Any]) -> Iterator[Finding]:
    """Disk and clock, which only a command on the host tells."""
    root = info["DockerRootDir"]
    command = f"date +%s.%N; df -Pk '{root}' 2>/dev/null || df -Pk /"
    before = time.time()
    asked = subprocess.run(
        ["ssh", *OPTIONS, "-nT", *host.target, command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = asked.stdout.splitlines()
    try:
        clock, free = float(lines[0]), int(lines[-1].split()[3]) << 10
    except (IndexError, ValueError):
        yield Finding(host.name, "shell", "df and date do not answer", "let the user have a shell there")
        return
    found = f"{free / (1 << 30):.1f} GiB free in {root}"
    cure = "" if free >= DISK else "'docker system prune' there, or more disk"
    yield Finding(host.name, "disk", found, cure)
    skew = max(before - clock, clock - time.time(), 0.0)  # the time that asking took counts for neither
    cure = "" if skew < SKEW_S else "set its clock by NTP: certificates and logs go by it"
    yield Finding(host.name, "clock", f"within {max(skew, 0.1):.1f} s of this one", cure)


def _containers(host: Host, now: HostNow) -> Iterator[Finding]:
    if not now.containers:
        yield Finding(host.name, "containers", "none yet")
        return
    bad = [one for one in now.containers if one.state not in RUNS]
    versions = sorted({one.version for one in now.containers})
    found = f"{len(now.containers)}, version {', '.join(versions)}"
    if bad:
        found += f"; {', '.join(one.name for one in bad)} is {bad[0].state}"
    cure = "'taskyard deploy' makes them alike" if bad or len(versions) > 1 else ""
    yield Finding(host.name, "containers", found, cure)


def _swarm(engine: HostEngine, version: str) -> Finding:
    """The host's place in the Swarm; whether it gets through to the others is what Swarm itself watches."""
    place = seat(engine)
    if place.state == "inactive":
        return Finding(engine.name, "swarm", "in none yet: 'taskyard deploy' brings it into one")
    if place.state != "active":
        cure = f"let {PORTS} through between the hosts; 'docker info' there says more"
        return Finding(engine.name, "swarm", f"its place is {place.state}", cure)
    found = f"{'manager' if place.manager else 'worker'} {place.hostname}"
    if int(version.split(".")[0]) < PRIVILEGES:
        found += f"; engines before {PRIVILEGES} ignore no-new-privileges of services"
    return Finding(engine.name, "swarm", found)


def _port(site: Site, engine: HostEngine, now: HostNow) -> Iterator[Finding]:
    """Whether a worker here gets through to the master: firewalls are closed more often than not."""
    images = [image for image in now.images if "-worker:" in image]
    if not images or not now.network:
        return
    address = site.inventory.master.address
    name, port = split_address(address)
    try:
        engine.client.containers.run(
            images[0], ["-c", _DIAL, name, str(port)], entrypoint="python", remove=True,
            network=base(engine.yard), use_config_proxy=False, cap_drop=["ALL"],
        )  # fmt: skip
    except FAULTS as fault:
        last = str(fault).strip("'\n\"").splitlines()[-1] if str(fault) else "no answer"
        last = last.replace("\\n'", "").rpartition("\\n")[2] or last
        yield Finding(
            engine.name, "port", f"workers here do not get through to {address}: {last}",
            f"on {site.inventory.master.name} let TCP port {port} in from {engine.name}"
            f" ('ufw allow {port}/tcp', or your provider's firewall), or set another address in hosts.toml",
        )  # fmt: skip
        return
    yield Finding(engine.name, "port", f"{address} is open from here")
