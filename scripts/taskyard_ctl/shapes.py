"""The JSON shapes that programs read: status, and results a line each."""

import json
from typing import TYPE_CHECKING, Any

import msgspec

from taskyard.jsonable import to_json

if TYPE_CHECKING:
    from taskyard.job import Outcome
    from taskyard.messages import StatusReply


def status(reply: "StatusReply", address: str, web: str = "") -> dict[str, Any]:
    """{"master": {...}, "jobs": [...], "workers": [...]}; addresses are as seen from here."""
    return {
        "master": {**_plain(reply.master), "address": address, "web": web if reply.master.web else ""},
        "jobs": [_plain(job) for job in reply.jobs],
        "workers": [_plain(worker) for worker in reply.workers],
    }


def result(job: str, outcome: "Outcome") -> dict[str, Any]:
    """One task's end; `error` is null where there is a value."""
    failure = outcome.error
    error = None
    if failure is not None:
        error = {
            "reason": failure.reason,
            "type": failure.type,
            "message": failure.message,
            "traceback": failure.traceback,
        }
    return {
        "job": job,
        "index": outcome.index,
        "state": outcome.state,
        "value": to_json(outcome.result),
        "error": error,
        "attempts": outcome.attempts,
        "worker": outcome.worker,
        "host": outcome.host,
        "started": outcome.started,
        "seconds": outcome.seconds,
    }


_encode = msgspec.json.Encoder().encode


def line(content: dict[str, Any]) -> str:
    """One line of JSON."""
    try:
        return _encode(content).decode() + "\n"
    except (
        UnicodeEncodeError,
        OverflowError,
    ):  # half a surrogate pair, an enormous number: slower, and exact
        return json.dumps(content, separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    """A struct of the wire as names and values; on the wire it is an array."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(item) for item in value] if isinstance(value, list) else value
