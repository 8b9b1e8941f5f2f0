"""A ledger whose commits come at once, for the tests of its rules."""

from collections.abc import Iterable
from typing import Any

from taskyard import batch
from taskyard import messages as m
from taskyard_master.ledger import Granted, Ledger, Plan

OFFSET = 1_700_000_000.0
LEASE = 30.0
CAN = frozenset(["t:f", "t:g"])


def block_of(count: int, text: str = "v") -> bytes:
    return batch.pack([f"{text}{at}".encode() for at in range(count)])


def failures(count: int) -> bytes:
    return batch.pack([m.encode(m.Failure("raised", "ValueError", f"bad {at}")) for at in range(count)])


class Yard:
    """A ledger whose commits come at once, and its log."""

    def __init__(self, boot: int = 1, **settings: float) -> None:
        self.now = 1000.0
        self.ledger = Ledger(boot, offset=OFFSET, lease=LEASE, **settings)
        self.log: list[tuple[m.Record, bytes]] = []

    @property
    def wall(self) -> float:
        return self.now + OFFSET

    def do(self, plan: Plan) -> Plan:
        for ticket in self.hold(plan):
            self.ledger.commit(ticket, self.now)
        self.log += plan.records
        return plan

    def hold(self, plan: Plan) -> list[int]:
        return [self.ledger.hold(record) for record, _ in plan.records]

    def open(self, job: str = "j", function: str = "t:f", submitter: str = "me", **options: Any) -> Plan:
        request = m.Open(0, job, f"name of {job}", function, m.Options(**options), submitter)
        return self.do(self.ledger.open(request, self.wall))

    def chunk(self, first: int, count: int, job: str = "j", text: str = "v", limit: int = 0) -> Plan:
        return self.ledger.chunk(chunk_of(first, count, job, text), self.now, limit)

    def submit(self, count: int, job: str = "j") -> None:
        self.do(self.chunk(self.ledger.next_index(job), count, job))

    def close(self, total: int, job: str = "j", reason: str = "") -> Plan:
        return self.do(self.ledger.close(m.Close(0, job, total, reason), self.wall))

    def hello(self, boot: str, held: Iterable[m.Held] = ()) -> Plan:
        return self.do(self.ledger.hello(boot, f"worker {boot}", held, self.now))

    def grant(
        self, boot: str = "w", want: int = 10, functions: Iterable[str] = CAN, **more: Any
    ) -> list[Granted]:
        """Grants as one worker with all the slots would get them, unless `share` says otherwise."""
        wants, share = more.pop("wants", {}), more.pop("share", 1)
        grants = self.ledger.grant(
            boot, f"worker {boot}", list(functions), want, wants, share, self.now, **more
        )
        self.log += [(grant.record(), b"") for grant in grants]
        return grants

    def outcome(self, grant: Granted, kind: str = "completed", first: int = -1, count: int = 0) -> m.Outcome:
        first = grant.first if first < 0 else first
        count = count or grant.first + grant.count - first
        block = b"" if kind in ("released", "suspect") else failures(count)
        block = block_of(count, "result") if kind == "completed" else block
        return m.Outcome(grant.lease, grant.job, first, count, kind, self.wall, float(count), block)  # type: ignore[arg-type]

    def judge(self, *outcomes: m.Outcome, boot: str = "w", draw: float = 0.0) -> Plan:
        return self.ledger.settle(boot, f"worker {boot}", "host", list(outcomes), self.now, self.wall, draw)

    def settle(self, *outcomes: m.Outcome, boot: str = "w", draw: float = 0.0) -> Plan:
        return self.do(self.judge(*outcomes, boot=boot, draw=draw))

    def tick(self, seconds: float = 0.0) -> Plan:
        self.now += seconds
        return self.do(self.ledger.tick(self.now, self.wall))

    def lose(self, boot: str = "w") -> Plan:
        return self.do(self.ledger.lost(boot, self.now))

    def counts(self, job: str = "j") -> dict[str, int]:
        status = self.ledger.status(job)
        names = ("ready", "leased", "delayed", "suspect", "completed", "dead", "cancelled")
        return {name: getattr(status, name) for name in names if getattr(status, name)}

    def restarted(self, boot: int = 2) -> "Yard":
        """What a new start makes of the log."""
        fresh = Yard(boot)
        fresh.now = self.now
        for record, _ in self.log:
            fresh.ledger.replay(record, fresh.now)
        return fresh


def chunk_of(first: int, count: int, job: str = "j", text: str = "v") -> m.Chunk:
    block = block_of(count, text)
    return m.Chunk(0, job, first, count, batch.digest(block), block)


def spans(grants: list[Granted]) -> list[tuple[int, int]]:
    return [(grant.first, grant.count) for grant in grants]


def two_jobs(first: int = 0, second: int = 0) -> Yard:
    """Jobs a (t:f) and b (t:g) of these priorities, with a thousand tasks each."""
    yard = Yard()
    yard.open("a", "t:f", priority=first)
    yard.open("b", "t:g", priority=second)
    yard.submit(1000, "a")
    yard.submit(1000, "b")
    return yard
