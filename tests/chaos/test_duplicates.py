"""A worker that says everything twice, some of it three times, before and after a restart of the master."""

import os
from pathlib import Path

from rig import Rig, note
from support import eventually

from taskyard import Yard, batch
from taskyard import messages as m
from taskyard.connection import Connection
from taskyard.errors import StorageError
from taskyard.pending import Pending
from taskyard.values import dumps, parse_block
from taskyard_ctl.chaos.oracle import Report

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
            report = Report(accepted=TASKS, completed=TASKS)
            report.faults = {"results said again": duplicates, "master killed": 1}
            note(report)
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


def recorded(pending: Pending) -> bool:
    """Whether the master says that it has it, be it as a duplicate."""
    try:
        return isinstance(pending.wait(), m.Settled)
    except StorageError:
        return False


def test_a_duplicate_is_answered_no_sooner_than_what_it_repeats(tmp_path: Path) -> None:
    """The commit of the first fails: nobody may have been told that it is on record."""
    rig = Rig(tmp_path, lease="30")
    rig.start_master()
    rig.keep()
    key = rig.environ["TASKYARD_AUTHKEY"].encode()
    connection = Connection(rig.address, key, lambda: hello("boot"))
    connection.start()
    try:
        with rig.yard() as yard:
            job = yard.submit("work:probe", [(n, n * n) for n in range(400)])
            errors, known = 0, set[int]()
            for n in range(1, 9):
                rig.replace_master(failpoint=f"commit.before:{n}:error")
                for _ in range(6):
                    leased = connection.ask(m.Lease(0, 5), m.Leased)
                    outcomes = [outcome(grant) for grant in leased.grants]
                    answered = False
                    while not answered:
                        both = [connection.send(m.Settle(0, outcomes)) for _ in range(2)]
                        done = [recorded(pending) for pending in both]
                        errors += done.count(False)
                        answered = any(done)
                    known |= {index for one in outcomes for index in range(one.first, one.first + one.count)}
                found = {o.index for o in job.results()}
                assert known <= found, f"answered for, and not on record: {sorted(known - found)}"
            rig.replace_master()
            while job.status().completed < 400:
                leased = connection.ask(m.Lease(0, 50), m.Leased, 5.0)
                connection.ask(m.Settle(0, [outcome(grant) for grant in leased.grants]), m.Settled)
            assert errors > 0, "commits failed"
            assert {o.index: o.value for o in job.results()} == {n: n * n for n in range(400)}
    finally:
        connection.close()
        rig.stop()


def test_a_failure_under_a_lease_that_ran_out_counts_for_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lease="1")
    rig.start_master()
    key = rig.environ["TASKYARD_AUTHKEY"].encode()
    first = Connection(rig.address, key, lambda: hello("first"))
    second = Connection(rig.address, key, lambda: hello("second"))
    try:
        first.start()
        second.start()
        with rig.yard() as yard:
            job = yard.submit("work:probe", [(0, 0)], max_attempts=1)
            (old,) = first.ask(m.Lease(0, 1), m.Leased).grants
            (new,) = second.ask(m.Lease(0, 1), m.Leased, 20.0).grants  # once the first one has run out
            failure = m.encode(m.Failure("raised", "ValueError", "late"))
            late = m.Outcome(old.lease, old.job, 0, 1, "failed", 0.0, 0.0, batch.pack([failure]))
            reply = first.ask(m.Settle(0, [late]), m.Settled)
            assert (reply.accepted, reply.duplicates) == (0, 1)
            assert second.ask(m.Settle(0, [outcome(new)]), m.Settled).accepted == 1
            (done,) = job.results(follow=True)
            assert (done.state, done.attempts) == ("completed", 1)
    finally:
        first.close()
        second.close()
        rig.stop()
