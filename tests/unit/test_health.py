"""The health probes, run as the images run them, against real ports and files."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path

ROOT = Path(__file__).parents[2]


def probe(role: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and words of a role's probe, in a process without site and packages."""
    script = ROOT / role / f"taskyard_{role}" / "health.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


@contextlib.contextmanager
def port_that_says(words: bytes) -> Iterator[str]:
    """A port of this machine that sends `words` to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_port_that_greets_like_a_master_is_healthy() -> None:
    """What greets is the standard library itself, whose protocol the master speaks."""
    with connection.Listener(("127.0.0.1", 0), authkey=b"k" * 32) as listener:

        def accept() -> None:
            with contextlib.suppress(EOFError, OSError):  # the probe does not answer the challenge
                listener.accept()

        thread = threading.Thread(target=accept)
        thread.start()
        port = listener.address[1]
        assert probe("master", TASKYARD_ADDRESS=f"0.0.0.0:{port}") == (0, "")
        thread.join()


def test_a_port_that_says_something_else_is_no_master() -> None:
    """Something else took the port: a live process is not enough."""
    with port_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        code, words = probe("master", TASKYARD_ADDRESS=address)
    assert (code, words) == (1, f"{address} is no taskyard master")


def test_a_port_that_hangs_up_is_unhealthy() -> None:
    """A master that is ending, or full."""
    with port_that_says(b"") as address:
        code, words = probe("master", TASKYARD_ADDRESS=address)
    assert code == 1
    assert "hangs up" in words


def test_a_port_that_nobody_holds_is_unhealthy() -> None:
    """No master at all."""
    code, words = probe("master", TASKYARD_ADDRESS="127.0.0.1:1")
    assert code == 1
    assert "does not answer" in words


def test_with_tls_a_port_that_accepts_is_healthy() -> None:
    """A TLS port greets only those with a certificate, and the probe has none."""
    with port_that_says(b"") as address:
        assert probe("master", TASKYARD_ADDRESS=address, TASKYARD_TLS_CERT="/run/cert.pem") == (0, "")


def test_a_worker_is_healthy_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    """No file, a fresh one, one that nobody touched for a minute."""
    beat = tmp_path / "worker.json"
    assert probe("worker", str(beat))[0] == 1
    beat.touch()
    assert probe("worker", str(beat)) == (0, "")
    os.utime(beat, (time.time() - 60,) * 2)
    code, words = probe("worker", str(beat))
    assert code == 1
    assert "60 s old" in words
