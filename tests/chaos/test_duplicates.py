"""A worker that says everything twice, some of it three times, before and after a restart of the master."""

import os
from pathlib import Path

from rig import Rig
from support import eventually

from taskyard import Yard, batch
from taskyard import messages as m
from taskyard.connection import Connection
from taskyard.values import dumps, parse_block

TASKS = 3000


def hello(boot: str) -> m.Hello:
    return m.Hello(
        0, "worker", "twice", "here", os.getpid(), boot, "0", "3", slots=1, functions=["work:probe"], held=[]
    )


def outcome(grant: m.Grant) -> m.Outcome:
    results = [dumps(args[0][1]) for _, args, _ in parse_block(grant.block, grant.count)]
    return m.Outcome(
        grant.lease, grant.job, grant.first, grant.count, "completed", 0.0, 0.0, batch.pack(results)
    )


def test_each_is_recorded_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lease="30")
    rig.start_master()
    key = rig.environ["TASKYARD_AUTHKEY"].encode()
    connection = Connection(rig.address, key, lambda: hello("boot"))
    connection.start()
    try:
        with rig.yard() as yard:
            job = yard.submit("work:probe", [(n, n * n) for n in range(TASKS)])
            said: list[m.Outcome] = []
            accepted = duplicates = 0
            while accepted < TASKS:
                leased = connection.ask(m.Lease(0, 37), m.Leased)
                outcomes = [outcome(grant) for grant in leased.grants]
                again = said[:: max(1, len(said) // 3)][:3]  # some that were said long ago
                first = connection.send(m.Settle(0, outcomes))
                second = connection.send(m.Settle(0, [*outcomes, *again]))
                for pending in (first, second):
                    reply = pending.wait()
                    assert isinstance(reply, m.Settled)
                    accepted += reply.accepted
                    duplicates += reply.duplicates
                if not said:
                    rig.kill_master()
                    rig.start_master()
                said += outcomes
            assert accepted == TASKS
            assert duplicates >= TASKS
            check(yard, job.id)
    finally:
        connection.close()
        rig.stop()


def check(yard: Yard, name: str) -> None:
    job = yard.job(name)
    status = eventually(lambda: s if (s := job.status()).ended else None, "the job has ended")
    assert status is not None
    assert status.completed == TASKS
    outcomes = [(o.index, o.value) for o in job.results()]
    assert len(outcomes) == TASKS
    assert dict(outcomes) == {n: n * n for n in range(TASKS)}
