"""The latest lines of the master's log and of what tasks print, kept for the dashboard."""

import logging
import time
from collections import deque
from typing import Any

from taskyard.messages import SAID, SAID_LENGTH
from taskyard_master.web.history import EVENTS


class LogRing(logging.Handler):
    """Keeps the master's last lines, and those that tasks print, each with a number that grows.

    Two rings, so that tasks which print much do not push out what the master says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.prints: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.last = 0  # the number of the latest line

    def emit(self, record: logging.LogRecord) -> None:
        self.last += 1
        self.lines.append(
            {
                "n": self.last,
                "at": round(record.created, 3),
                "level": record.levelname.lower(),
                "event": getattr(record, "event", ""),
                "text": record.getMessage(),
                **{
                    name: str(value)
                    for name, value in getattr(record, "fields", {}).items()
                    if name in ("worker", "job", "host")
                },
            }
        )

    def said(self, worker: str, lines: list[tuple[str, str]]) -> None:
        """Take what tasks of a worker printed: (job/index, text)."""
        now = round(time.time(), 3)
        for tag, text in lines[-SAID:]:
            self.last += 1
            self.prints.append(
                {
                    "n": self.last, "at": now, "level": "print", "event": "", "text": text[:SAID_LENGTH],
                    "worker": worker, "job": tag.rpartition("/")[0], "task": tag[:SAID_LENGTH],
                }
            )  # fmt: skip

    def after(self, number: int, *, worker: str = "", job: str = "", most: int = 200) -> list[dict[str, Any]]:
        """Up to `most` of the newest lines after a number, about a worker or a job if given."""
        found = [
            line
            for ring in (self.lines, self.prints)
            for line in ring
            if line["n"] > number
            and (not worker or worker in (line.get("worker"), *line["text"].split()))
            and (not job or job in (line.get("job"), *line["text"].split()))
        ]
        return sorted(found, key=lambda line: int(line["n"]))[-most:]
