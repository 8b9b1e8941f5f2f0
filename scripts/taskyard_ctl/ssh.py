"""One ssh process a host, through which the Docker SDK, the master's port and the dashboard go.

The user's own ssh does it, so jump hosts, agents, known hosts and aliases are as ever.
The SDK's own `ssh://` is not used: it starts a process a request, and long log streams hang in it.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import docker  # type: ignore[import-untyped]
import docker.errors  # type: ignore[import-untyped]
import requests

from taskyard.clock import Deadline
from taskyard.errors import EngineError, HostError, RefusedError, TaskyardError, UnreachableError
from taskyard_ctl.inventory import Host
from taskyard_ctl.inventory_keys import split_port

CONNECT_S = 10
LOGIN_S = 30.0  # jump hosts and slow name servers included
ANSWER_S = 60.0  # how long the engine may be silent within one request
POLL_S = 0.01
OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", f"ConnectTimeout={CONNECT_S}"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ControlPath=none"),
)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Link:
    """The connection to one host; made at once, never again by itself: a refused login must not repeat."""

    def __init__(self, host: Host, ports: Iterable[int] = (), at: str = "127.0.0.1") -> None:
        """`at`: the address on the host that the ports are of."""
        self.host = host
        self.ports = {port: _free_port() for port in ports}  # of the host -> of our loopback
        self._folder = Path(tempfile.mkdtemp(prefix="taskyard-"))  # 0700; short, as sockets' paths have to be
        self._socket = self._folder / "host.sock"
        self._said = self._folder / "ssh.log"
        words = [*OPTIONS, "-nNT"]
        for theirs, ours in self.ports.items():
            words += ["-L", f"127.0.0.1:{ours}:{at}:{theirs}"]
        words += ["-L", f"{self._socket}:{host.docker_socket}"]  # last: once it is there, all others are
        with self._said.open("wb") as said:
            try:
                self._process = subprocess.Popen(
                    ["ssh", *words, *host.target],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                    start_new_session=True,  # a Ctrl-C is ours to answer, with the connection still up
                    preexec_fn=_tie(),
                )  # fmt: skip
            except OSError as fault:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise EngineError(f"ssh cannot be run ({fault.strerror}): install OpenSSH's client") from None

    def wait(self) -> Self:
        """Wait until the connection is there and the engine answers; an error says its cure."""
        deadline = Deadline.after(LOGIN_S)
        try:
            while not self._listens():
                if self._process.poll() is not None:
                    raise login_fault(self.host, self._said.read_text(errors="replace"))
                if deadline.passed:
                    raise UnreachableError(f"{self._name}: no login within {LOGIN_S:.0f} s")
                time.sleep(POLL_S)
            _ = self.docker
        except BaseException:
            self.close()
            raise
        return self

    def _listens(self) -> bool:
        """Whether ssh takes connections for the engine; on a busy machine the socket is there before that."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    @property
    def _name(self) -> str:
        return f"host {self.host.name} ({self.host.ssh})"

    def wait_end(self) -> None:
        """Until the connection ends."""
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @cached_property
    def docker(self) -> Any:
        """The host's engine; its requests may come from several threads."""
        try:
            client = docker.DockerClient(
                base_url=f"unix://{self._socket}", version="auto", timeout=ANSWER_S, max_pool_size=32
            )
            client.ping()
        except (docker.errors.DockerException, requests.RequestException):
            raise self._engine_fault() from None
        return client

    def _engine_fault(self) -> TaskyardError:
        """Why the engine cannot be used, asked from the host once."""
        path = self.host.docker_socket
        ask = f"test -S {_quoted(path)} || exit 11; test -w {_quoted(path)} || exit 12; exit 13"
        asked = subprocess.run(
            ["ssh", *OPTIONS, "-nT", *self.host.target, ask], stdin=subprocess.DEVNULL, capture_output=True
        )
        if asked.returncode == 11:
            return EngineError(
                f"{self._name}: no Docker engine listens at {path}: 'systemctl start docker' there, install"
                f" one, or set hosts.{self.host.name}.docker_socket"
            )
        if asked.returncode == 12:
            return RefusedError(
                f"{self._name}: its user may not use the Docker engine: as root there, say"
                " 'usermod -aG docker USER', and try again"
            )
        return EngineError(f"{self._name}: its Docker engine does not answer: 'systemctl start docker' there")

    def close(self) -> None:
        with contextlib.suppress(KeyError):
            vars(self).pop("docker").close()
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(self, *error: object) -> None:
        self.close()


def connect(
    hosts: Iterable[Host], ports: Mapping[str, Iterable[int]] | None = None
) -> tuple[dict[str, Link], dict[str, TaskyardError]]:
    """Links to all hosts at once, and why there is none to some; `ports` are those to forward, by host."""
    links = [Link(host, (ports or {}).get(host.name, ())) for host in hosts]
    up: dict[str, Link] = {}
    faults: dict[str, TaskyardError] = {}

    def wait(link: Link) -> None:
        try:
            up[link.host.name] = link.wait()
        except TaskyardError as error:
            faults[link.host.name] = error

    try:
        with ThreadPoolExecutor(max(1, len(links))) as pool:
            for future in [pool.submit(wait, link) for link in links]:
                future.result()
    except BaseException:
        for link in links:
            link.close()
        raise
    order = [link.host.name for link in links]
    return {name: up[name] for name in order if name in up}, faults


def login_fault(host: Host, said: str) -> TaskyardError:
    """What ssh complained of, as one line with the next step."""
    name, target = f"host {host.name} ({host.ssh})", " ".join(host.target).replace("-- ", "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "ssh ended without a word"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return RefusedError(
            f"{name}: its key is another than before: somebody may be in between, or it was installed anew;"
            f" in the latter case say 'ssh-keygen -R {_plain_host(host)}' and 'ssh {target}'"
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return RefusedError(
            f"{name}: its key is not known here: say 'ssh {target}' once, and compare the fingerprint with"
            " what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' says there"
        )
    if "Permission denied" in said:
        return RefusedError(
            f"{name}: the login is refused ({last}): 'ssh-copy-id {target}' installs your key there, and"
            " 'ssh-add' unlocks one that has a passphrase"
        )
    if "cannot listen to port" in said or "Address already in use" in said:
        return HostError(f"{name}: a local port was taken in between: try again")
    if "kex_exchange_identification" in said:
        return UnreachableError(
            f"{name}: it hangs up at once; after failed logins sshd refuses an address for a while: wait a"
            " minute, and try again"
        )
    return UnreachableError(f"{name} cannot be reached: {last.removeprefix('ssh: ')}")


def _plain_host(host: Host) -> str:
    place, port = split_port(host.ssh)
    place = place.rpartition("@")[2]
    return f"'[{place}]:{port}'" if port else place


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tie() -> Callable[[], None] | None:
    """So that ssh ends with this process, however that ends; the kernel means the thread, so the main one."""
    if _LIBC is None or threading.current_thread() is not threading.main_thread():
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
