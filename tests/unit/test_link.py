"""The connection to a host, with a program in the place of ssh that takes its time."""

import os
import sys
import time
from pathlib import Path

import pytest

from taskyard_ctl import ssh
from taskyard_ctl.inventory import Host

# Binds the engine's socket, and listens only when it is told to: a busy machine may stop ssh in between.
SSH = """#!{python}
import http.server, os, socketserver, sys, time

class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = b'{{"ApiVersion": "1.41"}}' if self.path.endswith("/version") else b"OK"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_HEAD = do_GET

    def log_message(self, *words):
        pass

path = next(word for word in sys.argv if "host.sock:" in word).partition(":")[0]
server = socketserver.ThreadingUnixStreamServer(path, Engine, bind_and_activate=False)
server.server_bind()
while not os.path.exists("{go}"):
    time.sleep(0.005)
server.server_activate()
server.serve_forever()
"""


def test_a_socket_that_is_there_before_ssh_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for: it is no engine that does not answer."""
    go = tmp_path / "go"
    (tmp_path / "ssh").write_text(SSH.format(python=sys.executable, go=go))
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    looks = 0

    class Clock:
        """Lets ssh listen only after a look or two at a socket that nobody listens at."""

        @staticmethod
        def sleep(seconds: float) -> None:
            nonlocal looks
            looks += link._socket.exists()
            if looks > 2:
                go.touch()
            time.sleep(seconds)

    monkeypatch.setattr(ssh, "time", Clock)
    link = ssh.Link(Host("one", "one"))
    try:
        assert link.wait().docker.ping()
        assert looks > 2
    finally:
        link.close()
