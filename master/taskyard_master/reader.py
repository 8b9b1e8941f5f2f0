"""Reading the journal: payloads of tasks and recorded outcomes, checked against their sums."""

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskyard import batch, failpoints
from taskyard.errors import StorageError
from taskyard.messages import Ending, Row, decode_record
from taskyard_master import schema

CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """A stored run of tasks: `count` payloads from `first`."""

    first: int
    count: int
    block: bytes


class Reader:
    """A connection of its own for reading, and the blocks that were written lately."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = schema.connect(path)
        self._cache: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._cached = 0
        self._latest: dict[str, Block] = {}

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def close(self) -> None:
        self._connection.close()

    def remember(self, job: str, block: Block) -> None:
        self._cache[job, block.first] = block
        self._cached += len(block.block)
        while self._cached > CACHE_BYTES and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._cached -= len(old.block)

    def _find(self, job: str, index: int) -> Block:
        latest = self._latest.get(job)
        if latest is not None and latest.first <= index < latest.first + latest.count:
            return latest
        found = self._cache.get((job, index)) or self._read(job, index)
        self._latest[job] = found
        return found

    def _read(self, job: str, index: int) -> Block:
        row = self._select(schema.CHUNK_AT, (job, index))
        if not row or row[0][1] + row[0][2] <= index:
            raise StorageError(
                f"the journal {self._path} holds no task {index} of job {job}: restore a backup"
            )
        seq, first, count, crc, block = row[0]
        return Block(first, count, self._checked(seq, crc, block))

    def payloads(self, job: str, first: int, count: int) -> bytes:
        """One block with the payloads of tasks first .. first + count of a job."""
        parts = []
        index, end = first, first + count
        while index < end:
            found = self._find(job, index)
            stop = min(end, found.first + found.count)
            part = batch.cut(found.block, found.count, index - found.first, stop - found.first)
            parts.append((part, stop - index))
            index = stop
        return parts[0][0] if len(parts) == 1 else batch.join(parts)

    def forget_job(self, job: str) -> None:
        """Drop what is cached of a job."""
        self._latest.pop(job, None)
        for key in [key for key in self._cache if key[0] == job]:
            self._cached -= len(self._cache.pop(key).block)

    def results(self, job: str, after: int, space: int, *, failed: bool = False) -> list[Row]:
        """Recorded outcomes of a job in order of seq, from the first past `after`, about `space` bytes."""
        rows: list[Row] = []
        used = 0
        with closing(self._rows(schema.ENDINGS, (job, after))) as found:
            while used < space and (columns := next(found, None)) is not None:
                row = self._row(*columns)
                if failed and row.state != "dead":
                    continue
                rows.append(row)
                used += len(row.block) + 100
        return rows

    def result_at(self, job: str, index: int) -> Row | None:
        """The newest recorded outcome of one index, with the row that it is part of."""
        best: Row | None = None
        lowest = index - schema.WIDEST
        for seq, sum_, data, crc, block in self._select(schema.ENDINGS_AT, (job, index, lowest, index)):
            record = self._ending(seq, sum_, data)
            if best is None or (record.round, seq) > (best.round, best.at):
                best = self._row(seq, sum_, data, crc, block)
        return best

    def next_result(self, job: str, index: int) -> int | None:
        """Where the next row of outcomes past an index begins; None if there is none."""
        found: int | None = self._select(schema.NEXT_ENDING, (job, index))[0][0]
        return found

    def _ending(self, seq: int, crc: int, data: bytes) -> Ending:
        record = decode_record(data) if zlib.crc32(data) == crc else None
        if not isinstance(record, Ending):
            raise schema.damaged(self._path, f"record {seq}")
        return record

    def _row(self, seq: int, sum_: int, data: bytes, crc: int, block: bytes) -> Row:
        r = self._ending(seq, sum_, data)
        return Row(
            seq, r.first, r.count, r.state, r.round, r.attempts, r.worker, r.host, r.started, r.seconds,
            self._checked(seq, crc, block),
        )  # fmt: skip

    def _select(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        return list(self._rows(statement, values))

    def _rows(self, statement: str, values: tuple[Any, ...]) -> Generator[Any, None, None]:
        """Rows as they are asked for; close it, or an open statement holds up the checkpoints."""
        try:
            failpoints.passing("read.before")
            with closing(self._connection.execute(statement, values)) as cursor:
                yield from cursor
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"the journal {self._path} cannot be read ({error}): mend the disk, the master goes on itself"
            ) from error
        except sqlite3.Error as error:
            raise schema.damaged(self._path, str(error)) from error

    def _checked(self, seq: int, crc: int, block: bytes) -> bytes:
        if zlib.crc32(block) != crc:
            raise schema.damaged(self._path, f"block {seq}")
        return block
