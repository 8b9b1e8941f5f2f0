"""When tasks may begin, as an edit of their folder is noticed."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from taskyard.scan import Listing, scan
from taskyard_worker import watcher
from taskyard_worker.watcher import Watcher


def folder_of(tmp_path: Path) -> Path:
    (tmp_path / "one.py").write_text("def work(n): return 1")
    os.utime(tmp_path / "one.py", (1, 1))  # long ago
    os.utime(tmp_path, (1, 1))
    return tmp_path


def test_nothing_has_changed(tmp_path: Path) -> None:
    async def main() -> None:
        watched = Watcher(folder_of(tmp_path))
        await watched.list()
        watched.check()
        assert watched.sure

    asyncio.run(main())


def test_an_edit_waits_until_it_was_read(tmp_path: Path) -> None:
    async def main() -> None:
        watched = Watcher(folder_of(tmp_path))
        await watched.list()
        (tmp_path / "two.py").write_text("def more(n): return 2")
        assert watched.sure, "nobody has looked"
        watched.check()
        assert not watched.sure
        assert await watched.change()
        assert watched.sure
        assert set(watched.listing.functions) == {"one:work", "two:more"}

    asyncio.run(main())


def test_tasks_that_come_while_an_edit_is_read_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as while requirements are installed, which takes long."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Listing:
        reading.set()
        go_on.wait(20)
        return scan(*arguments)

    async def main() -> None:
        watched = Watcher(folder_of(tmp_path))
        await watched.list()
        monkeypatch.setattr(watcher, "scan", slow)
        (tmp_path / "one.py").write_text("def other(n): return 2")
        changing = asyncio.ensure_future(watched.change())  # by the look of each second
        await asyncio.get_running_loop().run_in_executor(None, reading.wait, 20)
        watched.check()
        assert not watched.sure
        go_on.set()
        assert await changing
        while not watched.sure:  # the doubt came after that look: one more
            assert not await watched.change()
        assert set(watched.listing.functions) == {"one:other"}

    asyncio.run(main())


def test_an_edit_of_this_moment_may_be_followed_by_one_of_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks of files are coarse: what was changed just now is read again, and not trusted."""

    async def main() -> None:
        folder = folder_of(tmp_path)
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 0.01)
        os.utime(folder / "one.py", (now, now))
        watched = Watcher(folder)
        await watched.list()
        (folder / "one.py").write_text("def wirk(n): return 2")
        os.utime(folder / "one.py", (now, now))
        watched.check()
        assert not watched.sure

    asyncio.run(main())


def test_a_folder_that_is_gone_for_a_moment_holds_nobody_up(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "tasks"
        folder.mkdir()
        watched = Watcher(folder_of(folder))
        await watched.list()
        folder.rename(tmp_path / "away")
        watched.check()
        assert not await watched.change()
        assert watched.sure
        assert set(watched.listing.functions) == {"one:work"}

    asyncio.run(main())
