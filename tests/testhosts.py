"""Hosts for tests: containers with sshd and a Docker engine of their own, on a network of their own.

They are reached as real ones are: by the machine's ssh program, with a key and a configuration
that the test makes. A shim named `ssh` hands the configuration over, since OpenSSH does not look at HOME.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from support import eventually

HERE = Path(__file__).parent / "e2e" / "hosts"
IMAGE = "taskyard-testhost:trixie"
READY_S = 60.0
OVERLAY2 = '{"storage-driver": "overlay2"}'
CONTAINERD = '{"features": {"containerd-snapshotter": true}}'  # the image store of newer engines
_CAPABILITIES = """
    DAC_READ_SEARCH LINUX_IMMUTABLE NET_BROADCAST NET_ADMIN IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG LEASE AUDIT_CONTROL
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND
"""


def sh(*command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a program; its output, which a failure shows."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class TestHost:
    """One machine; the methods do what people and accidents do to machines."""

    __test__ = False

    def __init__(self, lab: "Lab", name: str, config: str) -> None:
        self.lab = lab
        self.name = name
        self.container = f"{lab.network}-{name}"
        words = [word for name in _CAPABILITIES.split() for word in ("--cap-add", name)]
        words += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
        words += ["--device-cgroup-rule", "a *:* rwm", "--cgroupns", "host"]
        words += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--volume", "/var/lib/docker"]
        words += ["--tmpfs", "/run"]  # as on real machines: nothing there outlives a loss of power
        words += ["--network", lab.network, "--hostname", name, "--name", self.container]
        sh("docker", "create", *words, IMAGE)
        sh("docker", "cp", str(HERE / "start"), f"{self.container}:/usr/local/bin/start")
        (lab.folder / "daemon.json").write_text(config)
        sh("docker", "cp", str(lab.folder / "daemon.json"), f"{self.container}:/etc/docker/daemon.json")
        sh("docker", "cp", str(lab.folder / "key.pub"), f"{self.container}:/authorized_keys")
        sh("docker", "start", self.container)
        self.wait()
        self.address = self._address()
        lab.know(self)

    def _address(self) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return sh("docker", "inspect", "--format", form, self.container)

    def run(self, command: str, check: bool = True) -> str:
        """A shell command there, as root."""
        return sh("docker", "exec", self.container, "sh", "-c", command, check=check)

    def docker(self, command: str, check: bool = True) -> str:
        return self.run(f"docker {command}", check)

    def wait(self) -> None:
        """Until its engine answers."""
        eventually(lambda: self.docker("version -f '{{.Server.Version}}'", check=False), self.name, READY_S)

    def power_off(self) -> None:
        sh("docker", "kill", self.container)

    def power_on(self) -> None:
        sh("docker", "start", self.container)
        self.wait()
        assert self._address() == self.address

    def stop_engine(self) -> None:
        self.run("touch /run/engine-stays-down; kill $(cat /run/docker.pid)")
        eventually(lambda: not self.run("pidof dockerd", check=False), "the engine ends")

    def start_engine(self) -> None:
        self.run("rm /run/engine-stays-down")
        self.wait()

    def clean(self) -> None:
        """As it was, images aside."""
        self.run(
            'rm -f /run/engine-stays-down; c=$(docker ps -aq); [ -z "$c" ] || docker rm -f $c >/dev/null;'
            " docker volume prune -af >/dev/null; docker network prune -f >/dev/null"
        )


class Lab:
    """A network of test hosts, and the way of the tests into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = f"taskyard-test-{secrets.token_hex(3)}"
        self.hosts: dict[str, TestHost] = {}
        sh(str(HERE / "make-image"))
        sh("docker", "network", "create", self.network)
        self.key("key")
        program = shutil.which("ssh")
        assert program is not None
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "ssh").write_text(f'#!/bin/sh\nexec {program} -F {folder}/config "$@"\n')
        (self.bin / "ssh").chmod(0o755)
        (self.folder / "known_hosts").touch()
        self.configure()

    def key(self, name: str, passphrase: str = "") -> Path:
        path = self.folder / name
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path))
        return path

    def configure(self, *lines: str) -> None:
        """Write the ssh configuration; `lines` come first, so they win."""
        ours = f"IdentityFile {self.folder}/key", f"UserKnownHostsFile {self.folder}/known_hosts"
        text = "\n".join([*lines, *ours, "GlobalKnownHostsFile /dev/null", "IdentitiesOnly yes"]) + "\n"
        (self.folder / "config").write_text(text)

    def know(self, host: TestHost) -> None:
        """As a person does who has compared the fingerprint."""
        key = host.run("cat /etc/ssh/ssh_host_ed25519_key.pub")
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"{host.address} {key}\n")

    def environ(self, **more: str) -> dict[str, str]:
        """For a process that uses ssh."""
        base = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        return {**base, "PATH": f"{self.bin}:{base['PATH']}", **more}

    def host(self, name: str, config: str = OVERLAY2) -> TestHost:
        """The host of that name, made when first asked for; `config` is its engine's."""
        if name not in self.hosts:
            self.hosts[name] = TestHost(self, name, config)
        return self.hosts[name]

    def close(self) -> None:
        made = sh("docker", "ps", "-aq", "--filter", f"name={self.network}-").split()  # also a half made one
        if made:
            sh("docker", "rm", "--force", "--volumes", *made, check=False)
        sh("docker", "network", "rm", self.network, check=False)


TASKS = """
import time

def square(n):
    print(f"squaring {n}")
    return n * n

def slow(n):
    time.sleep(0.25)
    return [n, VERSION]

VERSION = 1
"""


class Project:
    """A folder with tasks and a hosts.toml, and the command in it."""

    def __init__(self, path: Path, lab: Lab) -> None:
        self.path = path
        self.lab = lab
        self.hosts = {name: lab.host(name) for name in ("one", "two", "three")}
        (path / "tasks").mkdir()
        self.tasks(TASKS)
        self.inventory()

    def tasks(self, text: str) -> None:
        (self.path / "tasks" / "jobs.py").write_text(text)

    def inventory(self, defaults: str = "", **hosts: str) -> None:
        """Write hosts.toml: `two='ssh = ...'` replaces what a host has."""
        lines = ["[defaults]", "workers = 2", 'env = {TASKYARD_LEASE = "3", TASKYARD_GRACE = "1"}', defaults]
        for name, host in self.hosts.items():
            role = 'role = "master"' if name == "one" else ""
            lines += [f"[hosts.{name}]", role, hosts.get(name, f'ssh = "root@{host.address}"')]
        (self.path / "hosts.toml").write_text("\n".join(lines) + "\n")

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "taskyard_ctl", *words], cwd=self.path, env=self.lab.environ(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a verb; its stdout, or with another code than 0 its stderr."""
        with self.start(*words) as process:
            out, err = process.communicate()
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}{err}"
        self.said = err
        return out if code == 0 else err

    def look_at_dashboard(self) -> None:
        """As a browser does that is led there; Ctrl-C ends the command, and that is no failure."""
        with self.start("dashboard") as dashboard:
            assert dashboard.stdout is not None
            address = dashboard.stdout.readline().strip()
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with browser.open(address, timeout=20) as page:
                assert page.status == 200 and b"taskyard" in page.read()
            dashboard.send_signal(signal.SIGINT)
            dashboard.communicate()
        assert dashboard.returncode == 0

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("status", "--json"))
        return found

    def certificate(self, host: str, role: str) -> dict[str, Any]:
        """What the certificate says that the first container of a role on a host has, as OpenSSL reads it."""
        look = "import _ssl, json; print(json.dumps(_ssl._test_decode_cert('/run/secrets/cert.pem')))"
        name = self.hosts[host].docker(f"ps --format '{{{{.Names}}}}' --filter label=taskyard.role={role}")
        found: dict[str, Any] = json.loads(
            self.hosts[host].docker(f'exec {name.split()[0]} python -c "{look}"')
        )
        return found

    def joined(self) -> list[str]:
        """The hosts of the workers that take part, one name a worker."""
        return sorted(w["host"] for w in self.status()["workers"] if w["state"] in ("idle", "running"))

    def completed(self) -> list[int]:
        """How much of each job is done, that of plain peers aside."""
        return [job["completed"] for job in self.status()["jobs"] if job["id"] != "plain"]

    def results(self, job: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("results", job, "--follow", "--ordered").splitlines()]
