"""Images by way of a real registry, Debian's, that this machine and all hosts reach as 127.0.0.1."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine import ROOT, lacking
from support import eventually
from testhosts import TASKS, Project, sh

pytestmark = pytest.mark.timeout(400)
CONFIG = """
version: 0.1
log: {level: error}
storage: {filesystem: {rootdir: STORE}}
http: {addr: "127.0.0.1:PORT"}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port; the program is Debian's, unpacked and not installed."""
    folder = tmp_path_factory.mktemp("registry")
    program = shutil.which("docker-registry")
    if program is None:
        script = [str(ROOT / "scripts" / "debian-unpack"), str(folder / "unpacked"), "docker-registry"]
        done = subprocess.run(["bash", *script], capture_output=True, text=True)
        if done.returncode:
            lacking(f"docker-registry ({done.stderr.strip()})")
        program = str(folder / "unpacked" / "usr" / "bin" / "docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    text = CONFIG.replace("STORE", str(folder / "store")).replace("PORT", str(port))
    (folder / "config.yml").write_text(text)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(answers, "the registry answers")
        yield port
    finally:
        process.kill()
        process.wait()


def names_of(yard: Project, host: str) -> list[str]:
    """The images there, by name."""
    return sorted(yard.hosts[host].docker("images --format '{{.Repository}}:{{.Tag}}'").split())


def test_hosts_pull(yard: Project, registry: int, tmp_path: Path) -> None:
    """Nothing but the plan goes through ssh; names are the same as ever; one that cannot pull is named."""
    for host in yard.hosts.values():
        host.docker("image prune -af")
    where = f"127.0.0.1:{registry}/team"
    text = (yard.path / "hosts.toml").read_text()
    (yard.path / "hosts.toml").write_text(f'registry = "{where}"\n{text}')
    with ExitStack() as stack:
        for name, host in yard.hosts.items():
            if name == "three":
                continue
            words = ["-nNT", "-o", "ExitOnForwardFailure=yes", "-R", f"{registry}:127.0.0.1:{registry}"]
            ssh = stack.enter_context(
                subprocess.Popen(["ssh", *words, f"root@{host.address}"], env=yard.lab.environ())
            )
            stack.callback(ssh.kill)
            probe = f"bash -c ': </dev/tcp/127.0.0.1/{registry}' 2>/dev/null && echo yes"
            eventually(lambda host=host, probe=probe: host.run(probe, check=False), "it is forwarded")  # type: ignore[misc]
        said = yard("deploy", "hosts.toml", code=5)
        assert "pull image taskyard-squares-worker:" in said and "pushing taskyard-squares-master:" in said
        assert re.search(rf"three .*{where}/taskyard-squares-worker:\w+.*(refused|cannot be pulled)", said)
        assert re.search(r"two +worker +2 +\w+ +\d+ +0 ", said)  # bytes
        assert yard.joined() == ["two", "two"]
        for name in ("one", "two"):
            assert all(re.fullmatch(r"taskyard-squares-\w+:\w{12}", image) for image in names_of(yard, name))
        yard.tasks(TASKS.replace("VERSION = 1", "VERSION = 2"))
        yard("deploy", code=5)
        assert '"value":[0,2]' in yard("run", "jobs:slow", "--arg", "0").replace(" ", "")
        line = yard("join", "desk")
        assert f" {where}/taskyard-squares-worker:" in line and "docker save" not in yard.said
    assert where not in sh("docker", "images", "--format", "{{.Repository}}")
