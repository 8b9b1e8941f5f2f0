"""The connection to a host: what goes through it, and what is said when there is none."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import eventually
from testhosts import Lab, TestHost, sh

from taskyard.errors import EngineError, RefusedError, TaskyardError, UnreachableError
from taskyard_ctl.inventory import Host, host_name
from taskyard_ctl.ssh import Link, connect


def fault(host: Host) -> TaskyardError:
    """Why there is no connection."""
    with pytest.raises(TaskyardError) as caught:
        Link(host).wait()
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_engine_and_a_port_ride_one_connection(reach: Lab, one: TestHost) -> None:
    """And nothing is left of it afterwards."""
    host = Host("one", f"root@{one.address}")
    with Link(host, ports=[22]) as link:
        assert link.docker.version()["Version"].startswith("26.")
        with socket.create_connection(("127.0.0.1", link.ports[22]), 5) as peer:
            assert peer.recv(4) == b"SSH-"
        folder = link._folder
        assert len(one.run("pgrep -f 'sshd.*root@notty'").split()) == 1
    assert not folder.exists()
    assert not link.alive


def test_a_user_who_is_not_root(reach: Lab, one: TestHost) -> None:
    """In the group docker all is well; without it the cure is named."""
    host = Host("one", f"worker@{one.address}")
    with Link(host) as link:
        assert link.docker.ping()
    one.run("gpasswd -d worker docker; usermod -g nogroup worker")
    try:
        error = fault(host)
    finally:
        one.run("usermod -g docker worker")
    assert isinstance(error, RefusedError)
    assert "usermod -aG docker" in str(error)


def test_an_unknown_host_key_stops(reach: Lab, one: TestHost) -> None:
    """With the command to check it; nothing is written to the known hosts."""
    known = reach.folder / "known_hosts"
    before = known.read_text()
    known.write_text("")
    try:
        error = fault(Host("one", f"root@{one.address}"))
        assert known.read_text() == ""
        other = sh("ssh-keygen", "-y", "-f", str(reach.folder / "key"))
        known.write_text(f"{one.address} {other}\n")
        changed = fault(Host("one", f"root@{one.address}"))
    finally:
        known.write_text(before)
    assert isinstance(error, RefusedError)
    assert "its key is not known here" in str(error) and "ssh-keygen -lf" in str(error)
    assert "another than before" in str(changed) and "ssh-keygen -R" in str(changed)


def test_a_refused_login_is_tried_once(reach: Lab, one: TestHost) -> None:
    """A second attempt might shut the address out."""
    reach.key("stranger")
    (reach.folder / "config").write_text(
        f"IdentityFile {reach.folder}/stranger\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {reach.folder}/known_hosts\n"
    )
    calls = reach.folder / "calls"
    program = (reach.bin / "ssh").read_text()
    (reach.bin / "ssh").write_text(program.replace("exec ", f"echo >>{calls}; exec "))
    try:
        error = fault(Host("one", f"root@{one.address}"))
    finally:
        (reach.bin / "ssh").write_text(program)
    assert isinstance(error, RefusedError)
    assert "ssh-copy-id" in str(error)
    assert calls.read_text() == "\n"


def test_nobody_there(reach: Lab, one: TestHost) -> None:
    """A port that is closed, and a name that nobody has."""
    assert isinstance(fault(Host("one", f"root@{one.address}:2222")), UnreachableError)
    error = fault(Host("x", "root@no-such-host.invalid"))
    assert isinstance(error, UnreachableError)
    assert "no-such-host.invalid" in str(error)


def test_an_engine_that_is_down(reach: Lab, one: TestHost) -> None:
    """Down, and not there at all."""
    one.stop_engine()
    try:
        down = fault(Host("one", f"root@{one.address}"))
        none = fault(Host("one", f"root@{one.address}", docker_socket="/run/no.sock"))
    finally:
        one.start_engine()
    assert isinstance(down, EngineError) and "Docker engine" in str(down)
    assert "no Docker engine listens at /run/no.sock" in str(none)


def test_all_hosts_at_once(reach: Lab, one: TestHost) -> None:
    """Those that answer are there, the others named with their fault."""
    hosts = [Host("one", f"root@{one.address}"), Host("gone", f"root@{one.address}:1")]
    up, faults = connect(hosts)
    try:
        assert list(up) == ["one"] and list(faults) == ["gone"]
    finally:
        up["one"].close()


def test_a_host_behind_another_one(reach: Lab, one: TestHost) -> None:
    """By ProxyJump of the ssh config, as an alias or for an address: engine and ports ride along."""
    inner = reach.host("two")
    rule = f"INPUT ! -i lo -p tcp --dport 22 ! -s {one.address} -j REJECT --reject-with tcp-reset"
    inner.run(f"iptables -I {rule}")
    jump = f"ProxyJump root@{one.address}"
    try:
        assert isinstance(fault(Host("inner", f"root@{inner.address}")), UnreachableError)
        reach.configure("Host behind", f"HostName {inner.address}", "User root", jump,
                        f"Host {inner.address}", jump, "Host *")  # fmt: skip
        for target in ("behind", f"root@{inner.address}"):
            with Link(Host("inner", target), ports=[22]) as link:
                assert link.docker.info()["Name"] == "two"
                with socket.create_connection(("127.0.0.1", link.ports[22]), 5) as peer:
                    assert peer.recv(4) == b"SSH-"
        assert host_name(Host("inner", "behind")) == inner.address
    finally:
        inner.run(f"iptables -D {rule}")
        reach.configure()


def test_a_key_with_a_passphrase_in_an_agent(
    reach: Lab, one: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Works if the agent has it, and nobody is asked."""
    key = reach.key("locked", "secret words")
    one.run(f"echo '{key.with_suffix('.pub').read_text().strip()}' >>/root/.ssh/authorized_keys")
    lines = sh("ssh-agent", "-s")
    found = re.search(r"SSH_AUTH_SOCK=([^;]+);.*SSH_AGENT_PID=(\d+)", lines, re.DOTALL)
    assert found is not None
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", found[1])
        (reach.folder / "config").write_text(f"UserKnownHostsFile {reach.folder}/known_hosts\n")
        asks = reach.folder / "asks"
        asks.write_text("#!/bin/sh\necho 'secret words'\n")
        asks.chmod(0o755)
        refused = fault(Host("one", f"root@{one.address}"))
        env = {**os.environ, "SSH_ASKPASS": str(asks), "SSH_ASKPASS_REQUIRE": "force"}
        sh("ssh-add", str(key), env=env)
        with Link(Host("one", f"root@{one.address}")) as link:
            assert link.docker.ping()
    finally:
        os.kill(int(found[2]), signal.SIGTERM)
        reach.configure()
    assert isinstance(refused, RefusedError)


def test_ssh_ends_with_the_process_that_started_it(reach: Lab, one: TestHost, tmp_path: Path) -> None:
    """Even if that is killed."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from taskyard_ctl.inventory import Host
        from taskyard_ctl.ssh import Link
        link = Link(Host("one", "root@{one.address}")).wait()
        print(link._process.pid, flush=True)
        sys.stdin.read()
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "ssh ends")
