"""The master's latest log lines, kept for the dashboard."""

import logging
from collections import deque
from typing import Any

from taskyard_master.web.history import EVENTS


class LogRing(logging.Handler):
    """Keeps the last lines, each with a number that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[dict[str, Any]] = deque(maxlen=EVENTS)
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

    def after(self, number: int, *, worker: str = "", job: str = "", most: int = 200) -> list[dict[str, Any]]:
        """Up to `most` of the newest lines after a number, about a worker or a job if given."""
        found = [
            line
            for line in self.lines
            if line["n"] > number
            and (not worker or worker in (line.get("worker"), *line["text"].split()))
            and (not job or job in (line.get("job"), *line["text"].split()))
        ]
        return found[-most:]
