"""Whether this machine can listen at an address, told before anything is started."""

import errno
import socket

from taskyard.errors import UnreachableError


def check_free(host: str, port: int, setting: str = "TASKYARD_ADDRESS") -> None:
    """Raise UnreachableError, with the cure, if nobody can listen at the address of a setting now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as fault:
            if fault.errno == errno.EADDRINUSE:
                raise UnreachableError(
                    f"port {port} of {host} is in use: stop what holds it, or change {setting}"
                ) from None
            raise UnreachableError(
                f"this machine cannot listen at {host}:{port} ({fault.strerror or fault}):"
                f" set {setting} to an address of its own"
            ) from None


def first_free(host: str, ports: range) -> int:
    """The first port that nobody listens at; the first of all if there is none."""
    for port in ports:
        try:
            check_free(host, port)
        except UnreachableError:
            continue
        return port
    return ports[0]
