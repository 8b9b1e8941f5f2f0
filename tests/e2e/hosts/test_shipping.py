"""Images reach hosts without a registry, and only what a host lacks goes over the wire."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker as sdk  # type: ignore[import-untyped]
import pytest
from testhosts import CONTAINERD, Lab, TestHost

from taskyard.errors import EngineError, HostError
from taskyard_ctl.images import Images
from taskyard_ctl.inventory import Host
from taskyard_ctl.layout import Cargo
from taskyard_ctl.shipping import Hold, send, shared
from taskyard_ctl.ssh import Link

Docker = Callable[..., str]


def layers_of(link: Link) -> list[tuple[str, ...]]:
    return [tuple(image.attrs["RootFS"]["Layers"]) for image in link.docker.images.list()]


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Hold:
    return Hold(tmp_path_factory.mktemp("hold"))


@pytest.fixture(params=["overlay2", "containerd"])
def link(request: pytest.FixtureRequest, reach: Lab) -> Iterator[Link]:
    """A host of either image store, with no image of ours."""
    host = reach.host("one") if request.param == "overlay2" else reach.host("store", CONTAINERD)
    host.clean()
    host.docker("image prune -af")
    with Link(Host("one", f"root@{host.address}")) as made:
        yield made


def test_only_the_layers_that_are_missing(link: Link, hold: Hold, images: Images) -> None:
    """The worker's image stands on the master's lowest layers: it costs a few hundred kilobytes."""
    steps: list[int] = []
    master, worker = hold.load(sdk.from_env(), [images.master, images.worker])
    first = send(link.docker, hold, master, shared(master, layers_of(link)), steps.append)
    assert first == sum(steps) > 20_000_000
    known = shared(worker, layers_of(link))
    assert 0 < known < len(worker.layers)
    second = send(link.docker, hold, worker, known, steps.append)
    assert second < 2_000_000
    said = link.docker.containers.run(images.worker, ["-c", "print(6 * 7)"], entrypoint="python", remove=True)
    assert said == b"42\n"
    assert shared(worker, layers_of(link)) == len(worker.layers)


def test_a_host_that_refuses_gets_it_in_full(link: Link, hold: Hold, images: Images) -> None:
    """As when a layer is thought to be there and is not."""
    [worker] = hold.load(sdk.from_env(), [images.worker])
    assert send(link.docker, hold, worker, len(worker.layers), lambda count: None) > 20_000_000
    assert link.docker.images.get(images.worker)


def test_any_engine_is_a_source(
    link: Link, hold: Hold, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an engine of another version or store saves makes the same cargo."""
    [worker] = hold.load(sdk.from_env(), [images.worker])
    send(link.docker, hold, worker, 0, lambda count: None)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{link._socket}")
    [again] = Hold(tmp_path / "hold").load(link.docker, [images.worker])
    assert again == worker
    assert sorted(path.name for path in (tmp_path / "hold").glob("*.gz")) == sorted(
        hold.blob(layer).name for layer in worker.unique
    )


def test_an_image_that_is_gone(hold: Hold) -> None:
    """Is named, with what makes it."""
    with pytest.raises(EngineError, match="no-such-image:1 is not here"):
        hold.load(sdk.from_env(), ["no-such-image:1"])


def test_layers_that_a_host_has() -> None:
    """Only from the lowest on: a layer above another one is another one."""
    cargo = Cargo("x:1", b"", ("a", "b", "c"), "amd64")
    assert shared(cargo, []) == 0
    assert shared(cargo, [("a", "c"), ("a", "b", "x"), ("b", "c")]) == 2
    assert shared(cargo, [("a", "b", "c", "d")]) == 3


def test_a_full_disk(reach: Lab, hold: Hold, docker: Docker) -> None:
    """Says so, with the cure, and is not tried again."""
    host = reach.host("one")
    small = make_small(host)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 64 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    client = sdk.from_env()
    client.api.import_image_from_data(content.getvalue(), repository="taskyard-test-big", tag="1")
    try:
        [cargo] = hold.load(client, ["taskyard-test-big:1"])
        with Link(Host("one", f"root@{host.address}", docker_socket=small)) as link:
            with pytest.raises(HostError, match=r"no space left on device.*docker system prune"):
                send(link.docker, hold, cargo, 0, lambda count: None)
            assert not link.docker.images.list()
    finally:
        client.images.remove("taskyard-test-big:1")
        host.run("kill $(cat /run/small.pid)")


def make_small(host: TestHost) -> str:
    """A second engine there, with 32 MiB of disk; returns its socket."""
    host.run("mkdir -p /small && mount -t tmpfs -o size=32m tmpfs /small")
    host.run(
        "nohup dockerd --data-root /small --exec-root /run/small --pidfile /run/small.pid --bridge none"
        " --iptables=false --host unix:///run/small.sock --config-file /dev/null >/var/log/small.log 2>&1 &"
        " until docker -H unix:///run/small.sock version >/dev/null 2>&1; do sleep 0.1; done"
    )
    return "/run/small.sock"
