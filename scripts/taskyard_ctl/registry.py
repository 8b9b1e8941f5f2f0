"""Images by way of a registry, where hosts.toml names one: pushed once from here, pulled by each host."""

import subprocess

from taskyard.errors import EngineError


def remote(registry: str, image: str) -> str:
    """What an image is called at the registry."""
    return f"{registry}/{image}"


def push(registry: str, image: str) -> None:
    """Bring an image there; what is there already is not sent. Raises EngineError.

    The docker program does it, which knows whom to log in as, with all helpers that people have for it.
    """
    name = remote(registry, image)
    _docker("tag", image, name)
    try:
        _docker("push", name)
    finally:
        _docker("rmi", name, check=False)  # the name only: images here are known by their own


def _docker(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(f"'docker {arguments[0]} {arguments[-1]}' failed: {last}")
