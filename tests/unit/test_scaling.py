"""Who goes first when a yard gets smaller."""

from taskyard.messages import WorkerStatus
from taskyard_ctl.interface import Member
from taskyard_ctl.scaling import idlest, status_of


def joined(
    name: str, state: str = "idle", leased: int = 0, joined: float = 0.0, **other: object
) -> WorkerStatus:
    values: dict[str, object] = {
        "id": name, "host": "h", "pid": 0, "container": "", "state": state, "slots": 1, "running": [],
        "leased": leased, "completed": 0, "failed": 0, "joined": joined, "seen": 0.0, "version": "",
        "python": "", "digest": "", "functions": [], "memory": 0,
    }  # fmt: skip
    return WorkerStatus(**{**values, **other})  # type: ignore[arg-type]


def chosen(workers: list[WorkerStatus], members: list[Member], count: int) -> list[str]:
    return [member.name for member, _ in idlest(members, workers, count)]


def test_a_member_is_known_by_its_pid_or_its_container() -> None:
    local, other = joined("a", pid=7), joined("b", pid=7, container="0123456789ab")
    assert status_of(Member("worker-1", "worker", "running", pid=7), [other, local]) is local
    container = Member("worker-1", "worker", "running", container="0123456789abcdef")
    assert status_of(container, [local, other]) is other
    assert status_of(Member("worker-1", "worker", "waiting", pid=0), [joined("c", pid=0)]) is None


def test_the_idlest_go_first() -> None:
    members = [Member(f"worker-{i}", "worker", "running", pid=i) for i in range(1, 8)]
    members.append(Member("master", "master", "running", pid=99))
    workers = [
        joined("1", "running", leased=5, pid=1),
        joined("2", "idle", pid=2, joined=10.0),
        joined("3", "missing", pid=3),
        joined("4", "running", leased=2, pid=4),
        joined("5", "drained", pid=5),
        joined("6", "idle", pid=6, joined=20.0),
    ]  # 7 has not joined
    order = ["worker-7", "worker-5", "worker-6", "worker-2", "worker-4", "worker-1", "worker-3"]
    for count in range(8):
        assert chosen(workers, members, count) == order[:count]
