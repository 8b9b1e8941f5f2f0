"""Small file systems for tests, with the root's rights; a test that can't have them is skipped aloud."""

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import lacking
from support import eventually

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), of ext4 and others
_NO_LOG_FLUSH = 2  # not even what the file system's own journal holds in memory


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine cannot do that: {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def tmpfs(folder: Path, size: str, options: str = "rw") -> Iterator[Path]:
    """A file system in memory, of so much room."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size},{options}", "taskyard-test", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Disk:
    """An ext4 in a file, whose power can be cut."""

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounts need root")
        if shutil.which("mkfs.ext4") is None:
            lacking("mkfs.ext4 (e2fsprogs)")
        self.image = folder / "disk.img"
        self.path = folder / "disk"
        self.path.mkdir()
        with self.image.open("wb") as image:
            image.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        """Mount it anew. Whoever has copied the list of mounts meanwhile, such as a container that starts,
        keeps the old one for a moment, and then that is what comes back."""

        def fresh() -> bool:
            _run("mount", "-o", "loop", str(self.image), str(self.path))
            try:
                (self.path / "probe").touch()
            except OSError:
                self.unmount()
                return False
            return True

        eventually(fresh, "the disk is on again")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def cut(self) -> None:
        """What was not synced by now is gone, as when the power fails."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
                pytest.skip(f"this kernel cannot cut the power of an ext4: {error}")
            raise
        finally:
            os.close(fd)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            return path
