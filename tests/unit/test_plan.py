"""The plan of a deploy, as the sentences that `--dry-run` prints."""

from dataclasses import replace

import pytest

from taskyard_ctl.inventory import Inventory, of_targets, parse
from taskyard_ctl.plan import (
    HostNow,
    Role,
    Running,
    Shape,
    Stage,
    Version,
    Wanted,
    plan,
    refusals,
    strangers,
    with_architectures,
)

V1, V2 = Version("v1", "master:1", "worker:1"), Version("v2", "master:2", "worker:2")
V0 = Version("v0", "master:0", "worker:0")


def yard(*workers: int, master: int = 0) -> Inventory:
    """A master, and a host each with so many workers."""
    text = f'[hosts.m]\nssh = "m"\nrole = "master"\nworkers = {master}\n'
    for name, many in zip("abcdef", workers, strict=False):
        text += f'[hosts.{name}]\nssh = "{name}"\nworkers = {many}\n'
    return parse(text, "yard")


def want(version: Version, *kept: Version, keys: str = "k") -> Wanted:
    shapes: dict[tuple[str, Role], Shape] = {}
    for name in "mabcdef":
        for role in ("master", "worker"):
            shapes[name, role] = Shape(f"{role}-{version.id}-{keys}", f"{role}-{keys}")
    return Wanted(version, shapes, (version, *kept))


def box(role: Role, number: int, version: Version = V1, state: str = "running", keys: str = "k") -> Running:
    name = f"{role}-{number}-{version.id}"
    return Running(name, role, number, f"{role}-{version.id}-{keys}", version.id, state)


def host(*boxes: Running, version: Version = V1, master: bool = False, **more: object) -> HostNow:
    """A host on which a version was deployed."""
    roles: set[Role] = {"master"} if master else {"worker"}
    roles |= {box.role for box in boxes}
    now = HostNow(1, "amd64", frozenset(version.image(role) for role in roles), boxes, True,
                  frozenset(f"{role}-k" for role in roles))  # fmt: skip
    return replace(now, **more)  # type: ignore[arg-type]


def said(inventory: Inventory, now: dict[str, HostNow], wanted: Wanted) -> list[str]:
    return [str(action) for action in plan(inventory, now, wanted)]


MASTER = host(box("master", 0), master=True)


def test_the_first_deploy() -> None:
    """Prepared everywhere, then the master, then one worker, then all others."""
    assert said(yard(2, 1), {"m": HostNow(), "a": HostNow(), "b": HostNow()}, want(V1)) == [
        "m: send image master:1",
        "m: make the yard's network",
        "m: put the master's key and certificates",
        "a: send image worker:1",
        "a: make the yard's network",
        "a: put the worker's key and certificates",
        "b: send image worker:1",
        "b: make the yard's network",
        "b: put the worker's key and certificates",
        "m: start the master (v1)",
        "a: start 1 worker first (v1)",
        "a: start 1 worker (v1)",
        "b: start 1 worker (v1)",
    ]


def test_one_worker_only_is_the_first() -> None:
    """Wherever it is."""
    now = {name: host(version=V2, master=name == "m") for name in "mab"}
    assert [str(action) for action in plan(yard(1, 1), now, want(V1)) if action.kind == "start"] == [
        "m: start the master (v1)",
        "a: start 1 worker first (v1)",
        "b: start 1 worker (v1)",
    ]


def test_the_same_again_is_nothing() -> None:
    """Also with a worker on the master's host, and with older versions kept."""
    older = replace(MASTER, images=frozenset({"master:1", "master:0", "worker:0"}))
    now = {"m": older, "a": host(box("worker", 1), box("worker", 2))}
    assert said(yard(2), now, want(V1, V0)) == []
    both = host(box("master", 0), box("worker", 1), master=True)
    assert said(yard(master=1), {"m": both}, want(V1)) == []


def test_a_new_version_rolls() -> None:
    """One new worker first; old ones leave after the new ones have come."""
    now = {"m": MASTER, "a": host(box("worker", 1), box("worker", 2)), "b": host(box("worker", 1))}
    assert said(yard(2, 1), now, want(V2, V1)) == [
        "m: send image master:2",
        "a: send image worker:2",
        "b: send image worker:2",
        "m: replace the master (v1 by v2); workers keep what they hold",
        "a: start 1 worker first (v2)",
        "a: start 1 worker (v2)",
        "a: drain and remove 2 workers (v1)",
        "b: start 1 worker (v2)",
        "b: drain and remove 1 worker (v1)",
    ]
    [first] = [action for action in plan(yard(2, 1), now, want(V2, V1)) if action.stage is Stage.FIRST]
    assert first.numbers == (3,)


def test_a_list_of_the_revoked_that_the_master_does_not_have() -> None:
    """It gets it while it runs; one whose keys are new has it among them."""
    wanted = replace(want(V1), revoked="new")
    workers = {"a": host(box("worker", 1))}
    assert said(yard(1), {"m": replace(MASTER, revoked="old"), **workers}, wanted) == [
        "m: give the master the list of revoked certificates"
    ]
    assert said(yard(1), {"m": replace(MASTER, revoked="new"), **workers}, wanted) == []
    assert said(yard(1), {"m": replace(MASTER, revoked="new"), **workers}, want(V1)) == []
    assert not any("list" in line for line in said(yard(1), {"m": HostNow(), **workers}, wanted))


def test_changed_tasks_leave_the_master_alone() -> None:
    """Its image and its shape are as before."""
    tasks = replace(V2, master=V1.master)
    shapes = {**want(tasks).shapes, ("m", "master"): Shape("master-v1-k", "master-k")}
    now = {"m": MASTER, "a": host(box("worker", 1))}
    assert said(yard(1), now, Wanted(tasks, shapes, (tasks, V1))) == [
        "a: send image worker:2",
        "a: start 1 worker first (v2)",
        "a: drain and remove 1 worker (v1)",
    ]


def test_a_deploy_that_was_interrupted_goes_on() -> None:
    """What is there already stays, and the gate has been passed."""
    half = host(box("worker", 3, V2), box("worker", 1), box("worker", 2), version=V2)
    new = host(box("master", 0, V2), box("master", 0, V1, "exited"), version=V2, master=True)
    assert said(yard(2), {"m": new, "a": half}, want(V2, V1)) == [
        "a: start 1 worker (v2)",
        "a: drain and remove 2 workers (v1)",
        "m: remove the master of before",
    ]


@pytest.mark.parametrize(
    ("many", "boxes", "expected"),
    [
        (3, [1], ["a: start 2 workers (v1)"]),
        (1, [1, 2, 3], ["a: drain and remove 2 workers (v1)"]),
        (0, [1], ["a: drain and remove 1 worker (v1)", "a: remove old keys and certificates"]),
    ],
)
def test_another_number(many: int, boxes: list[int], expected: list[str]) -> None:
    """Grows and shrinks without touching the others."""
    now = {"m": MASTER, "a": host(*(box("worker", number) for number in boxes))}
    assert said(yard(many), now, want(V1)) == expected


def test_what_stopped_is_replaced() -> None:
    """A master is started again, for its journal; a worker is made anew."""
    stopped = host(box("master", 0, state="exited"), master=True)
    now = {"m": stopped, "a": host(box("worker", 1, state="exited"))}
    assert said(yard(1), now, want(V1)) == [
        "m: start the master again",
        "a: start 1 worker first (v1)",
        "a: remove 1 worker that stopped",
    ]


def test_old_images_go() -> None:
    """Three versions stay."""
    images = frozenset({"worker:1", "worker:2", "worker:0", "worker:ancient"})
    now = {"m": host(box("master", 0, V2), version=V2, master=True),
           "a": host(box("worker", 1, V2), version=V2, images=images)}  # fmt: skip
    assert said(yard(1), now, want(V2, V1, V0)) == ["a: remove 1 old image"]


def test_new_certificates_restart() -> None:
    """They are in a volume of their own, so the old one works until the end."""
    now = {"m": MASTER, "a": host(box("worker", 1))}
    assert said(yard(1), now, want(V1, keys="n")) == [
        "m: put the master's key and certificates",
        "a: put the worker's key and certificates",
        "m: replace the master (v1 by v1); workers keep what they hold",
        "a: start 1 worker first (v1)",
        "a: drain and remove 1 worker (v1)",
        "m: remove old keys and certificates",
        "a: remove old keys and certificates",
    ]


def test_a_host_that_is_not_in_the_inventory_any_more() -> None:
    """Its workers finish, then everything of the yard goes; a second time there is nothing."""
    inventory = yard(1)
    leaving = replace(inventory.host("a"), name="b", workers=0, leaving=True)
    inventory = replace(inventory, hosts=(*inventory.hosts, leaving))
    now = {"m": MASTER, "a": host(box("worker", 1)), "b": host(box("worker", 1), box("worker", 2))}
    assert said(inventory, now, want(V1)) == [
        "b: drain and remove 2 workers (v1)",
        "b: remove everything but a journal: it is not in hosts.toml any more",
    ]
    assert said(inventory, {**now, "b": HostNow()}, want(V1)) == []


def test_another_master() -> None:
    """The old one stops, or both would hand out the same work."""
    now = {"m": HostNow(), "a": host(box("master", 0), box("worker", 1), master=True)}
    assert [str(action) for action in plan(yard(1), now, want(V1)) if action.stage is Stage.MASTER] == [
        "m: start the master (v1)",
        "a: stop the master that was here; its journal stays",
    ]


def test_auto_is_one_a_cpu_and_a_lone_host_works_too() -> None:
    """`taskyard deploy user@host`."""
    inventory = of_targets(["m"], "yard")
    assert said(inventory, {"m": replace(MASTER, cpus=4, network=True)}, want(V1)) == [
        "m: send image worker:1",
        "m: put the worker's key and certificates",
        "m: start 1 worker first (v1)",
        "m: start 3 workers (v1)",
    ]


def test_a_host_that_cannot_be_reached_is_left_out() -> None:
    """The others are deployed."""
    assert said(yard(1, 1), {"m": MASTER, "b": host(box("worker", 1))}, want(V1)) == []


def test_other_cpus_are_refused() -> None:
    """By name, with what can be done."""
    now = {"m": MASTER, "a": HostNow(architecture="arm64"), "b": HostNow(architecture="riscv64")}
    assert refusals(now, ["amd64"]) == [
        f"{name}: its CPU is {cpu}, and there are images for amd64: name some for it in hosts.toml"
        f" (images = {{{cpu} = ...}}), or take the host out"
        for name, cpu in (("a", "arm64"), ("b", "riscv64"))
    ]
    assert [line[0] for line in refusals(now, ["amd64", "arm64"])] == ["b"]


def test_each_host_gets_images_for_its_cpu() -> None:
    """Where there are some for several."""
    both = replace(V1, others=(("arm64", "master:arm", "worker:arm"),))
    now = {"m": HostNow(), "a": HostNow(architecture="arm64"), "b": HostNow()}
    lines = said(yard(1, 1), now, want(both))
    assert [line for line in lines if "image" in line] == [
        "m: send image master:1", "a: send image worker:arm", "b: send image worker:1",
    ]  # fmt: skip
    inventory = with_architectures(yard(1, 1), now)
    assert [host.architecture for host in inventory.hosts] == ["amd64", "arm64", "amd64"]
    kept = host(box("worker", 1), architecture="arm64", images=frozenset(both.images))
    assert said(yard(1, 1), {"m": MASTER, "a": kept, "b": host(box("worker", 1))}, want(both)) == []


def test_images_by_way_of_a_registry() -> None:
    """The sentence says from where."""
    wanted = replace(want(V1), registry="registry.example/team")
    assert said(yard(), {"m": HostNow()}, wanted)[0] == "m: pull image master:1 from registry.example/team"


def test_another_yard_of_the_same_name_is_not_touched() -> None:
    """It has other certificates."""
    theirs = replace(box("worker", 1), authority="theirs")
    now = {"m": MASTER, "a": host(theirs), "b": host(replace(theirs, authority="ours"))}
    [refusal] = strangers(now, "ours")
    assert refusal.startswith("a: a yard of this name is there already")
