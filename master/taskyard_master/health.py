"""The master's health probe: does its port greet like a master? Exit code 0 or 1.

Run as a file, never imported, and itself importing only the standard library:
it runs every two seconds in a container, so its start is what it costs.
"""

import os
import socket
import sys

GREETING = b"#CHALLENGE#"  # after four bytes of length
TIMEOUT_S = 3.0
WILDCARDS = {"", "0.0.0.0", "::"}


def probe(address: str, tls: bool) -> str:
    """What is wrong with the master at `address`, or an empty string."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection(
            ("localhost" if host in WILDCARDS else host, int(port)), TIMEOUT_S
        ) as peer:
            if tls:
                return ""  # the port greets only those with a certificate; that it accepts must do
            start = b""
            while len(start) < 4 + len(GREETING):
                received = peer.recv(64)
                if not received:
                    return f"{address} hangs up instead of greeting"
                start += received
    except (OSError, ValueError) as fault:
        return f"{address} does not answer: {fault}"
    return "" if start[4:].startswith(GREETING) else f"{address} is no taskyard master"


if __name__ == "__main__":
    address = os.environ.get("TASKYARD_ADDRESS") or "0.0.0.0:5000"
    sys.exit(probe(address, tls=bool(os.environ.get("TASKYARD_TLS_CERT"))) or 0)
