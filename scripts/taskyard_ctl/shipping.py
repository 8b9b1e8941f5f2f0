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
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker.errors  # type: ignore[import-untyped]
import requests

from taskyard.errors import EngineError, HostError

LEVEL = 3  # of compression: a third more costs thrice the time
PIECE = 1 << 20
SMALL = 1 << 20  # a description is smaller, a layer that is smaller too does no harm
_OCI = "application/vnd.oci.image"
_FORM = {"schemaVersion": 2}
_GZIP = b"\x1f\x8b"

Progress = Callable[[int], None]  # so many bytes more were sent


@dataclass(frozen=True, slots=True)
class Cargo:
    """One image, ready to be sent: its name, and what it is made of."""

    name: str
    config: bytes
    layers: tuple[str, ...]  # digests of the layers uncompressed, lowest first
    architecture: str

    @property
    def unique(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.layers))


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
            with suppress(tarfile.ReadError), tarfile.open(fileobj=saving.stdout, mode="r|") as archive:
                for entry in archive:
                    content = archive.extractfile(entry) if entry.isfile() else None
                    if content is None:
                        continue
                    if entry.size <= SMALL:
                        small[entry.name] = content.read()
                        content = io.BytesIO(small[entry.name])
                    if not entry.name.endswith((".json", "VERSION")):
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
                target.writelines(_compressed(_entry(_place(name), size, plain)))
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
        _load(client, sent.count(_archive(hold, cargo, skip)))
        if _is_there(client, cargo):
            return sent.bytes
        refusal = "it loaded something else"
    except (docker.errors.DockerException, requests.RequestException) as fault:
        refusal = _reason(fault)
        if not skip or "no space left" in refusal:
            raise _fault(cargo, refusal) from None
    if skip:
        try:
            _load(client, sent.count(_archive(hold, cargo, 0)))
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


def _archive(hold: Hold, cargo: Cargo, skip: int) -> Iterator[bytes]:
    """The archive without the lowest `skip` layers, compressed."""
    for name, content in _descriptions(hold, cargo):
        yield from _compressed(_entry(name, len(content), io.BytesIO(content)))
    lowest = set(cargo.layers[:skip])
    for layer in cargo.unique:
        if layer not in lowest:
            with hold.blob(layer).open("rb") as blob:
                while part := blob.read(PIECE):
                    yield part
    yield from _compressed(iter([bytes(2 * tarfile.BLOCKSIZE)]))


def _descriptions(hold: Hold, cargo: Cargo) -> list[tuple[str, bytes]]:
    """The small files of the layout: containerd's store reads the index, others `manifest.json`."""
    config = _part("config.v1+json", _digest(cargo.config), len(cargo.config))
    layers = [_part("layer.v1.tar", layer, hold.plain_size(layer)) for layer in cargo.layers]
    image = json.dumps({**_FORM, "mediaType": f"{_OCI}.manifest.v1+json", "config": config, "layers": layers})
    entry = _part("manifest.v1+json", _digest(image.encode()), len(image))
    place, _, tag = cargo.name.rpartition(":")
    first, slash, _ = place.partition("/")
    if not slash:
        place = f"docker.io/library/{place}"
    elif not {".", ":"} & set(first) and first != "localhost":
        place = f"docker.io/{place}"
    entry["annotations"] = {
        "io.containerd.image.name": f"{place}:{tag}",
        "org.opencontainers.image.ref.name": tag,
    }
    index = {**_FORM, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]}
    places = [_place(layer) for layer in cargo.layers]
    older = {"Config": _place(config["digest"]), "RepoTags": [cargo.name], "Layers": places}
    return [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
        (_place(entry["digest"]), image.encode()),
        (_place(config["digest"]), cargo.config),
        ("manifest.json", json.dumps([older]).encode()),
    ]


def _part(kind: str, digest: str, length: int) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": digest, "size": length}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _entry(name: str, length: int, content: IO[bytes]) -> Iterator[bytes]:
    """An entry of a tar: header, content, and zeros up to a whole block."""
    info = tarfile.TarInfo(name)
    info.size = length
    info.mode = 0o644
    yield info.tobuf(tarfile.USTAR_FORMAT if length < 8 << 30 else tarfile.GNU_FORMAT)
    while part := content.read(PIECE):
        yield part
    yield bytes(-length % tarfile.BLOCKSIZE)


def _compressed(parts: Iterator[bytes]) -> Iterator[bytes]:
    """One member of a gzip file."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    for part in parts:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()


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
