"""Images to hosts without a registry: only the layers that a host lacks, compressed once for all hosts.

A layer becomes a tar entry, compressed on its own and kept in a folder; members of gzip may
follow each other, so what a host gets is a concatenation. The archive is an OCI layout with a
`manifest.json`: engines with either image store load it, and look only for layers they do not have.
"""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import docker.errors  # type: ignore[import-untyped]
import requests

from taskyard.errors import EngineError, HostError
from taskyard_ctl.layout import PIECE, Cargo, archive, compressed, entry, place

SMALL = 1 << 20  # a description is smaller, a layer that is smaller too does no harm
_GZIP = b"\x1f\x8b"

Progress = Callable[[int], None]  # so many bytes more were sent


class Hold:
    """The folder of compressed layers of the images that were sent from here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, client: Any, names: Iterable[str]) -> list[Cargo]:
        """Everything of local images that may have to be sent; quick if their layers were met before."""
        images = {}
        for name in names:
            try:
                images[name] = client.images.get(name)
            except docker.errors.ImageNotFound:
                raise EngineError(f"image {name} is not here any more: 'taskyard deploy' makes it") from None
        layers = {name: tuple(image.attrs["RootFS"]["Layers"]) for name, image in images.items()}
        # The id names the description, except on containerd's store, where it names a list of them.
        kept = {name: self.folder / f"{image.id[7:]}.json" for name, image in images.items()}
        lacking = [
            name
            for name in images
            if not kept[name].exists() or not all(self.blob(layer).exists() for layer in layers[name])
        ]
        if lacking:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save(lacking, {layer for name in lacking for layer in layers[name]}, kept)
        return [
            Cargo(name, kept[name].read_bytes(), layers[name], image.attrs["Architecture"])
            for name, image in images.items()
        ]

    def blob(self, layer: str) -> Path:
        """The compressed tar entry of a layer."""
        return self.folder / f"{layer.removeprefix('sha256:')}.gz"

    def plain_size(self, layer: str) -> int:
        """The size of a layer uncompressed, from the header of its entry."""
        with gzip.open(self.blob(layer)) as blob:
            return tarfile.TarInfo.frombuf(blob.read(tarfile.BLOCKSIZE), "utf-8", "strict").size

    def prune(self, cargos: Iterable[Cargo]) -> None:
        """Forget the layers of other images."""
        kept = {self.blob(layer) for cargo in cargos for layer in cargo.layers}
        for path in self.folder.glob("*.gz"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _save(self, names: list[str], wanted: set[str], kept: dict[str, Path]) -> None:
        """Take the layers out of what the engine saves, whichever of three forms that has."""
        small: dict[str, bytes] = {}
        command = ["docker", "save", *names]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as saving:
            assert saving.stdout is not None and saving.stderr is not None
            with suppress(tarfile.ReadError), tarfile.open(fileobj=saving.stdout, mode="r|") as saved:
                for member in saved:
                    content = saved.extractfile(member) if member.isfile() else None
                    if content is None:
                        continue
                    if member.size <= SMALL:
                        small[member.name] = content.read()
                        content = io.BytesIO(small[member.name])
                    if not member.name.endswith((".json", "VERSION")):
                        self._take(content, wanted)
            said = saving.stderr.read().decode(errors="replace").strip()
        missing = [layer for layer in wanted if not self.blob(layer).exists()]
        if missing or "manifest.json" not in small:
            raise EngineError(f"the engine here cannot save {' and '.join(names)}: {said or missing}")
        for described in json.loads(small["manifest.json"]):
            for name in described["RepoTags"] or ():
                if name in names:
                    kept[name].write_bytes(small[described["Config"]])

    def _take(self, content: IO[bytes], wanted: set[str]) -> None:
        """Keep a layer, if it is one that is wanted; an engine may have saved it compressed."""
        with tempfile.TemporaryFile(dir=self.folder) as plain:
            head = content.read(len(_GZIP))
            source: Any = _Joined(head, content)
            if head == _GZIP:
                source = gzip.GzipFile(fileobj=source)
            digest = hashlib.sha256()
            with suppress(gzip.BadGzipFile):
                while part := source.read(PIECE):
                    digest.update(part)
                    plain.write(part)
            name = f"sha256:{digest.hexdigest()}"
            if name not in wanted or self.blob(name).exists():
                return
            size = plain.tell()
            plain.seek(0)
            part_file = self.blob(name).with_suffix(".part")
            with part_file.open("wb") as target:
                target.writelines(compressed(entry(place(name), size, plain)))
            part_file.replace(self.blob(name))


# ---------------------------------------------------------------- sending


def shared(cargo: Cargo, images: Iterable[tuple[str, ...]]) -> int:
    """How many of the lowest layers a host has already, which has images of these layers."""
    best = 0
    for layers in images:
        count = 0
        for ours, theirs in zip(cargo.layers, layers, strict=False):
            if ours != theirs:
                break
            count += 1
        best = max(best, count)
    return best


def size(hold: Hold, cargo: Cargo, skip: int) -> int:
    """The bytes that sending it takes, near enough for a bar."""
    lowest = set(cargo.layers[:skip])
    return sum(hold.blob(layer).stat().st_size for layer in cargo.unique if layer not in lowest)


def send(client: Any, hold: Hold, cargo: Cargo, skip: int, progress: Progress) -> int:
    """Load an image into another engine; returns the bytes sent. Once more in full if that is refused."""
    sent = _Counter(progress)
    try:
        _load(client, sent.count(archive(cargo, skip, hold.blob, hold.plain_size)))
        if _is_there(client, cargo):
            return sent.bytes
        refusal = "it loaded something else"
    except (docker.errors.DockerException, requests.RequestException) as fault:
        refusal = _reason(fault)
        if not skip or "no space left" in refusal:
            raise _fault(cargo, refusal) from None
    if skip:
        try:
            _load(client, sent.count(archive(cargo, 0, hold.blob, hold.plain_size)))
        except (docker.errors.DockerException, requests.RequestException) as fault:
            raise _fault(cargo, _reason(fault)) from None
        if _is_there(client, cargo):
            return sent.bytes
    raise _fault(cargo, refusal)


def _load(client: Any, data: Iterator[bytes]) -> None:
    for _ in client.images.load(data):
        pass


def _is_there(client: Any, cargo: Cargo) -> bool:
    """Whether the name means these layers there; ids differ between image stores."""
    try:
        return tuple(client.images.get(cargo.name).attrs["RootFS"]["Layers"]) == cargo.layers
    except docker.errors.ImageNotFound:
        return False


class _Counter:
    def __init__(self, progress: Progress) -> None:
        self.bytes = 0
        self._progress = progress

    def count(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            yield part
            self.bytes += len(part)
            self._progress(len(part))


class _Joined(io.RawIOBase):
    """A stream whose beginning was read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._stream = rest

    def read(self, count: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head[:count], self._head[count:] if count > 0 else b""
            return head
        return self._stream.read(count)


def _reason(fault: Exception) -> str:
    explanation = getattr(fault, "explanation", None)
    return " ".join(str(explanation or fault).split())


def _fault(cargo: Cargo, reason: str) -> HostError:
    cure = ": free some with 'docker system prune' there" if "no space left" in reason else ""
    return HostError(f"{cargo.name} cannot be loaded ({reason}){cure}")
