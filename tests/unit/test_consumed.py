"""What is dropped of a job whose results are consumed: nothing before its time, nothing unfinished."""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard import batch, failpoints
from taskyard import messages as m
from taskyard.errors import StorageError
from taskyard_master import consumed as module
from taskyard_master import schema
from taskyard_master.__main__ import load
from taskyard_master.commits import Commits
from taskyard_master.consumed import Consumed
from taskyard_master.journal import Journal
from taskyard_master.ledger import Ledger
from taskyard_master.plans import Plan
from taskyard_master.results import Results

SHORT = 0.001  # seconds
LONG = 3600.0
OWNER = "boot of the submitter"
PATIENCE = 20.0
SETTINGS: Any = SimpleNamespace(lease=30.0, abandon=3600.0)


class House:
    """Ledger, journal and what drops its rows, without anybody around them."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.journal = Journal(path, self.loop.call_soon_threadsafe)
        self.ledger: Ledger = load(self.journal, SETTINGS)
        self.journal.start()
        self.commits = Commits(self.ledger, self.journal, self.loop, lambda jobs: None)
        self.results = Results(self.commits, self.loop)
        self.consumed = Consumed(self.commits, self.results, self.loop)

    async def open(self, job: str = "j", **options: Any) -> None:
        options = {"consume": True, "retention": SHORT, "max_attempts": 1, **options}
        opening = m.Open(0, job, job, "t:f", m.Options(**options), OWNER)
        await self.commits.run(lambda: self.ledger.open(opening, time.time()))

    async def submit(self, count: int, job: str = "j") -> None:
        block = batch.pack([b"task"] * count)
        chunk = m.Chunk(0, job, self.ledger.next_index(job), count, batch.digest(block), block)
        await self.commits.run(lambda: self.ledger.chunk(chunk, time.monotonic(), 0))

    async def work(self, want: int, kind: str = "completed") -> None:
        """Have a worker do so many tasks, in one commit."""
        outcomes: list[m.Outcome] = []
        while want > 0:
            grants = self.ledger.grant("w", "w", ["t:f"], want, {}, 1, time.monotonic())
            assert grants, "there is nothing more to do"
            for grant in grants:
                value = b"value" if kind == "completed" else m.encode(m.Failure("raised", "E", "bad"))
                block = batch.pack([value] * grant.count)
                outcomes.append(
                    m.Outcome(grant.lease, grant.job, grant.first, grant.count, kind, 1.0, 0.0, block)  # type: ignore[arg-type]
                )
                want -= grant.count
        await self.commits.run(
            lambda: self.ledger.settle("w", "w", "host", outcomes, time.monotonic(), time.time(), 0.0)
        )

    async def do(self, count: int, job: str = "j", kind: str = "completed") -> None:
        await self.submit(count, job)
        await self.work(count, kind)

    async def read(self, boot: str = OWNER, job: str = "j", **request: Any) -> m.Rows:
        peer: Any = SimpleNamespace(hello=SimpleNamespace(boot=boot))
        reply = await self.results.read(peer, m.Results(0, job, **request))
        assert isinstance(reply, m.Rows)
        return reply

    async def take(self, boot: str = OWNER, job: str = "j") -> int:
        """Read all there is, and ask for more, as executors do."""
        cursor, count = 0, 0
        while True:
            rows = await self.read(boot, job, cursor=cursor)
            if not rows.rows:
                return count
            cursor, count = rows.cursor, count + sum(row.count for row in rows.rows)

    def rows(self) -> Counter[str]:
        """How many rows there are of each kind."""
        names = {number: name for name, number in schema.KINDS.items()} | {14: "void"}
        found = self.journal.read.execute("SELECT kind, count(*) FROM log GROUP BY kind")
        return Counter({names[kind]: count for kind, count in found.fetchall()})

    def kept(self) -> tuple[int, int]:
        """How many rows there are of tasks and of outcomes."""
        rows = self.rows()
        return rows["Chunked"], rows["Ending"]

    async def until(self, *kept: int) -> None:
        """Look until so many rows are left, and then twice more: no more than that goes."""
        end = time.monotonic() + PATIENCE
        while self.kept() != kept:
            assert time.monotonic() < end, f"{self.kept()} rows are left, not {kept}"
            await self.consumed.look()
        await self.looks()
        assert self.kept() == kept

    async def looks(self) -> None:
        """Enough looks for whatever may go to be gone."""
        for _ in range(5):
            self.consumed._save_due = 0.0
            await self.consumed.look()

    async def close(self) -> None:
        await asyncio.to_thread(self.journal.close)


Story = Callable[[House], Awaitable[None]]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    """Run a story in a house; another one goes on where it was left."""

    def told(story: Story) -> None:
        async def run() -> None:
            house = House(tmp_path / "journal.db")
            try:
                await story(house)
            finally:
                await house.close()

        asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE))

    return told


def test_what_was_taken_goes_and_what_was_not_stays(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        for _ in range(3):
            await house.do(10)
        await house.looks()
        await house.until(0, 3)  # what the tasks needed is of no use to anybody
        assert await house.take() == 30
        await house.until(0, 0)
        status = house.ledger.status("j")
        assert (status.total, status.completed) == (30, 30)
        await house.do(5)
        assert await house.take() == 5, "what came later is all that is left"

    tell(story)


def test_who_else_reads_takes_nothing(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        assert await house.take("somebody else") == 10
        await house.read(cursor=1 << 62, failed=True)  # as `Job.wait` does
        await house.read(cursor=10, ordered=True)
        await house.until(0, 1)

    tell(story)


def test_a_cursor_beyond_what_there_is_takes_what_there_is(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.read(cursor=1 << 62)
        await house.do(10)
        await house.until(0, 1)

    tell(story)


@pytest.mark.parametrize("options", [{"retention": LONG}, {"retention": 0.0}, {"consume": False}])
def test_nothing_goes_before_its_time(tell: Callable[[Story], None], options: dict[str, Any]) -> None:
    async def story(house: House) -> None:
        await house.open(**options)
        await house.open("short")
        await house.do(10)
        await house.do(10, "short")
        assert await house.take() == await house.take(job="short") == 10
        await house.until(1, 1)
        assert await house.take() == 10

    tell(story)


def test_plain_peers_take_by_taking(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        for _ in range(3):
            await house.do(10)
        row = (await house.read("somebody else")).rows[1]
        await house.commits.run(lambda: house.ledger.take("j", row.at, 4, 14))
        await house.until(0, 2)
        assert (await house.read("somebody else")).rows[0].at == row.at, "it is taken in part"

    tell(story)


def test_dead_and_unfinished_tasks_keep_what_they_need(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.do(10, kind="failed")
        await house.submit(10)
        await house.take()
        await house.until(2, 1)
        (row,) = (await house.read("somebody else", failed=True)).rows
        assert (row.first, row.count) == (10, 10), "with the reason"
        await house.work(10)
        await house.commits.run(lambda: house.ledger.requeue("j"))
        await house.work(10)
        await house.take()
        await house.until(0, 0)
        assert house.ledger.status("j").completed == 30

    tell(story)


def test_cancelled_tasks_need_nothing(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.submit(10)
        await house.commits.run(lambda: house.ledger.cancel("j", time.time()))
        await house.take()
        await house.until(0, 0)

    tell(story)


def test_a_start_reads_what_is_left(tell: Callable[[Story], None]) -> None:
    seen: list[Any] = []

    async def before(house: House) -> None:
        await house.open()
        await house.do(20)
        await house.do(20, kind="failed")
        await house.take()
        await house.until(1, 1)
        await house.do(5)
        await house.submit(5)
        seen.append(house.ledger.status("j"))

    async def after(house: House) -> None:
        assert house.ledger.status("j") == seen[0]
        assert house.commits.applied == house.journal.last > 0
        await house.take()
        await house.until(2, 1)  # what is dead, and what is still to be done
        await house.work(5)
        assert batch.unpack(house.journal.read.payloads("j", 20, 5), 5) == [b"task"] * 5

    tell(before)
    tell(after)


def test_ages_are_known_after_a_start(tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)

    async def before(house: House) -> None:
        await house.open(retention=LONG)
        await house.do(10)
        await house.looks()
        await house.until(1, 1)

    async def after(house: House) -> None:
        await house.take()
        await house.until(1, 1)
        clock.time = lambda: time.time() + LONG
        await house.until(0, 0)

    tell(before)
    tell(after)


def test_a_clock_that_was_ahead_for_a_while_keeps_nothing_for_ever(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + 10 * LONG, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)

    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.consumed.look()
        await house.looks()
        clock.time = time.time
        await house.do(10)
        await house.take()
        await house.until(0, 0)

    tell(story)


def test_marks_stay_few(tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MARKS", 8)

    async def story(house: House) -> None:
        await house.open(retention=LONG)
        for _ in range(20):
            await house.do(1)
            await house.looks()
        marks = house.consumed._marks
        assert 4 <= len(marks) <= 8
        assert marks == sorted(marks)
        again = Consumed(house.commits, house.results, house.loop)
        assert again._marks == marks

    tell(story)


def test_dropping_that_fails_is_logged_and_done_later(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("TICK", "RARELY"):
        monkeypatch.setattr(module, name, SHORT)

    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.take()
        failpoints.arm("drop.before:1:error")
        running = asyncio.create_task(house.consumed.run())
        try:
            while house.kept() != (0, 0):
                assert not running.done()
                await asyncio.sleep(SHORT)
        finally:
            running.cancel()
            failpoints.arm("")

    with caplog.at_level(logging.WARNING):
        tell(story)
    assert "what was taken long ago stays in the journal for now: [Errno 5]" in caplog.text


def test_a_snapshot_that_could_not_be_written_is_taken_again(tell: Callable[[Story], None]) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.take()
        failpoints.arm("snapshot.before:1:error")
        try:
            await house.until(0, 0)
        finally:
            failpoints.arm("")
        assert house.journal.trouble == ""

    tell(story)


def test_a_job_that_is_deleted_meanwhile_disturbs_nothing(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(house: House) -> None:
        await house.open()
        await house.do(10)
        await house.take()
        await house.commits.run(lambda: house.ledger.close(m.Close(0, "j", 10), time.time()))
        aside = house.consumed._aside

        async def late(work: Any) -> Any:
            found = await aside(work)
            if isinstance(found, list) and found and "j" in house.ledger.jobs():
                await house.commits.run(lambda: house.ledger.delete("j", time.time()))
            return found

        monkeypatch.setattr(house.consumed, "_aside", late)
        while "j" in house.ledger.jobs():
            await house.looks()
        await house.looks()
        assert house.kept() == (1, 1), "these are for the purge of the job"

    tell(story)


def test_every_step_leaves_a_journal_that_says_the_same(
    tell: Callable[[Story], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill between two steps would leave it."""
    monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(module, "_ENDINGS", module._ENDINGS.replace("LIMIT 200", "LIMIT 4"))
    monkeypatch.setattr(module, "_CHUNKS", module._CHUNKS.replace("LIMIT 200", "LIMIT 4"))
    copies: list[tuple[Path, tuple[int, int]]] = []

    async def story(house: House) -> None:
        await house.open()
        for n in range(20):
            await house.do(3, kind="failed" if n % 5 == 0 else "completed")
        await house.take()
        aside = house.consumed._aside

        async def copied(work: Any) -> Any:
            found = await aside(work)
            path = tmp_path / f"copy-{len(copies)}.db"
            house.journal.backup(path)
            copies.append((path, house.kept()))
            return found

        monkeypatch.setattr(house.consumed, "_aside", copied)
        await house.until(4, 4)
        expected = house.ledger.status("j")
        assert len({kept for _, kept in copies}) > 5, "it was more than one step"
        for path, kept in copies:
            journal = Journal(path, lambda call: None)
            try:
                ledger = load(journal, SETTINGS)
                assert ledger.status("j") == expected, kept
                assert ledger.requeue("j").accepted == 12
                for first in range(0, 60, 15):
                    assert batch.unpack(journal.read.payloads("j", first, 3), 3) == [b"task"] * 3
                with pytest.raises(StorageError):
                    journal.read.payloads("j", 60, 1)
            finally:
                journal.close()

    tell(story)


def test_reading_in_order_does_not_search_what_is_gone(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(house: House) -> None:
        await house.open()
        for _ in range(10):
            await house.do(20_000)
        await house.take()
        await house.until(0, 0)
        await house.do(7)
        await house.submit(1)
        house.journal.read.queries = 0  # type: ignore[attr-defined]
        select = house.journal.read._select

        def counted(*args: Any) -> Any:
            house.journal.read.queries += 1  # type: ignore[attr-defined]
            return select(*args)

        monkeypatch.setattr(house.journal.read, "_select", counted)
        rows = await house.read(ordered=True)
        assert [(row.first, row.count) for row in rows.rows] == [(200_000, 7)]
        assert (rows.cursor, rows.done) == (200_007, False)
        assert house.journal.read.queries < 50  # type: ignore[attr-defined]

    tell(story)


def test_what_a_snapshot_makes_needless_goes_with_it(tell: Callable[[Story], None]) -> None:
    """Outcomes that gave no result, and attempts that were not the last: nobody reads them again."""

    async def story(house: House) -> None:
        await house.open(max_attempts=2)
        await house.do(1, kind="failed")
        void = m.Ending("j", 0, 1, "completed", 0, 2, "w", "h", 1.0, 0.0, 1.0, True)
        await house.commits.write(Plan([(void, b"")]))
        assert house.rows()["void"] == house.rows()["Retrying"] == 1
        house.commits.save()
        await house.do(1)
        assert house.rows()["void"] == house.rows()["Retrying"] == 0

    tell(story)


def test_pages_come_back(tell: Callable[[Story], None], tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.open()
        block = batch.pack([bytes(100_000)] * 2)
        for n in range(50):
            chunk = m.Chunk(0, "j", 2 * n, 2, batch.digest(block), block)
            await house.commits.run(lambda chunk=chunk: house.ledger.chunk(chunk, 1.0, 0))  # type: ignore[misc]
        await house.work(100)
        await house.take()
        before = pages(tmp_path)
        await house.until(0, 0)
        assert pages(tmp_path) < before / 4

    tell(story)


def pages(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        count: int = connection.execute("PRAGMA page_count").fetchone()[0]
        return count
