"""An image as an archive that engines load: an OCI layout, from which layers may be left out.

Engines with graph drivers read `manifest.json`, those with containerd's store the index, and
both look only for layers that they do not have. Each entry is a gzip member of its own.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LEVEL = 3  # of compression: the next megabyte less costs twice the time
PIECE = 1 << 20
_OCI = "application/vnd.oci.image"
_FORM = {"schemaVersion": 2}

Blob = Callable[[str], Path]  # where the compressed entry of a layer is kept


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


def archive(cargo: Cargo, skip: int, blob: Blob, plain_size: Callable[[str], int]) -> Iterator[bytes]:
    """The archive without the lowest `skip` layers, compressed."""
    for name, content in _descriptions(cargo, plain_size):
        yield from compressed(entry(name, len(content), io.BytesIO(content)))
    lowest = set(cargo.layers[:skip])
    for layer in cargo.unique:
        if layer not in lowest:
            with blob(layer).open("rb") as file:
                while part := file.read(PIECE):
                    yield part
    yield from compressed(iter([bytes(2 * tarfile.BLOCKSIZE)]))


def _descriptions(cargo: Cargo, plain_size: Callable[[str], int]) -> list[tuple[str, bytes]]:
    """The small files of the layout: containerd's store reads the index, others `manifest.json`."""
    config = _part("config.v1+json", _digest(cargo.config), len(cargo.config))
    layers = [_part("layer.v1.tar", layer, plain_size(layer)) for layer in cargo.layers]
    image = json.dumps({**_FORM, "mediaType": f"{_OCI}.manifest.v1+json", "config": config, "layers": layers})
    listed = _part("manifest.v1+json", _digest(image.encode()), len(image))
    where, _, tag = cargo.name.rpartition(":")
    first, slash, _ = where.partition("/")
    if not slash:
        where = f"docker.io/library/{where}"
    elif not {".", ":"} & set(first) and first != "localhost":
        where = f"docker.io/{where}"
    listed["annotations"] = {
        "io.containerd.image.name": f"{where}:{tag}",
        "org.opencontainers.image.ref.name": tag,
    }
    index = {**_FORM, "mediaType": f"{_OCI}.index.v1+json", "manifests": [listed]}
    places = [place(layer) for layer in cargo.layers]
    older = {"Config": place(config["digest"]), "RepoTags": [cargo.name], "Layers": places}
    return [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
        (place(listed["digest"]), image.encode()),
        (place(config["digest"]), cargo.config),
        ("manifest.json", json.dumps([older]).encode()),
    ]


def _part(kind: str, digest: str, length: int) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": digest, "size": length}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def entry(name: str, length: int, content: IO[bytes]) -> Iterator[bytes]:
    """An entry of a tar: header, content, and zeros up to a whole block."""
    info = tarfile.TarInfo(name)
    info.size = length
    info.mode = 0o644
    yield info.tobuf(tarfile.USTAR_FORMAT if length < 8 << 30 else tarfile.GNU_FORMAT)
    while part := content.read(PIECE):
        yield part
    yield bytes(-length % tarfile.BLOCKSIZE)


def compressed(parts: Iterator[bytes]) -> Iterator[bytes]:
    """One member of a gzip file."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    for part in parts:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()
