"""Logging to stderr: one line an event, as text for people or as JSON for machines.

Every record names a stable event, `log.event(logger, "worker-joined", "...", worker=...)`,
so that a collector can match on it however the sentence changes.
"""

import json
import logging
import sys
import time
from typing import Any

# What peers call themselves is in these lines: no control character of theirs begins a line, or paints.
_HARMLESS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_HARMLESS |= {ord("\n"): "\\n", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage()
        if not message.isprintable():
            message = message.translate(_HARMLESS)
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower():7} {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def setup(style: str = "text", level: int = logging.INFO) -> None:
    """Send the log of this process to stderr; `style` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def event(logger: logging.Logger, name: str, message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event: a stable name, a sentence, and fields that JSON shows apart."""
    logger.log(level, message, extra={"event": name, "fields": fields})
