"""What containers printed, merged by time, across restarts and new containers.

The end of a stream says nothing: a follow ends when its container restarts, and
also when the engine feels like it. So it is attached again, a little before the
last stamp seen, and what was seen is skipped.
"""

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import docker.errors  # type: ignore[import-untyped]
import requests

from taskyard_ctl.interface import Line, Member

LOOK_S = 0.5  # how often new containers are looked for, and stopped ones asked again
GATHER_S = 0.1  # lines that come within it are put in order
_GONE = (docker.errors.APIError, requests.RequestException)  # or about to come back
_RUNS = ("running", "restarting", "paused")


class ContainerLogs:
    """Reads the logs of the containers that `members` names."""

    def __init__(self, client: Any, members: Callable[[], list[Member]]) -> None:
        self._client = client
        self._members = members
        self._closed = False

    def close(self) -> None:
        """Have those end who follow in the background: the engine is gone for good."""
        self._closed = True

    def history(self, since: str) -> Iterator[Line]:
        streams = [self._lines(member, since, follow=False) for member in self._members()]
        return heapq.merge(*streams, key=lambda line: line.stamp)

    def follow(self, since: str) -> Iterator[Line]:
        """Endless: the history first, in order, then what comes."""
        last: dict[str, str] = {}
        for line in self.history(since):
            last[line.container] = line.stamp
            yield line
        lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        followed: set[str] = set()
        look_at = 0.0
        while True:
            if time.monotonic() >= look_at:
                for member in self._members():
                    if member.container not in followed:
                        followed.add(member.container)
                        begin = last.get(member.container, since)
                        threading.Thread(target=self._pump, args=(member, begin, lines), daemon=True).start()
                look_at = time.monotonic() + LOOK_S
            yield from sorted(_gather(lines), key=lambda line: line.stamp)

    def _pump(self, member: Member, last: str, lines: "queue.SimpleQueue[Line]") -> None:
        """Follow one container until it is gone."""
        while not self._closed:
            for line in self._lines(member, last, follow=True):
                if line.stamp > last:
                    last = line.stamp
                    lines.put(line)
            time.sleep(GATHER_S)  # a stream may end at once, again and again
            try:
                while self._client.containers.get(member.container).status not in _RUNS:
                    time.sleep(LOOK_S)
            except docker.errors.NotFound:
                return
            except _GONE:
                time.sleep(LOOK_S)  # the engine restarts, perhaps

    def _lines(self, member: Member, since: str, follow: bool) -> Iterator[Line]:
        try:
            stream = self._client.containers.get(member.container).logs(
                stream=True, follow=follow, timestamps=True, since=_second(since)
            )
            rest = b""
            for part in stream:
                *whole, rest = (rest + part).split(b"\n")
                for raw in whole:
                    stamp, _, text = raw.decode(errors="replace").partition(" ")
                    if stamp >= since:
                        yield Line(stamp, member.name, member.container, text.rstrip("\r"))
        except _GONE:
            return  # gone in between, or the stream broke; whoever follows looks again


def _gather(lines: "queue.SimpleQueue[Line]") -> Iterator[Line]:
    """The lines of the next moment."""
    end = time.monotonic() + GATHER_S
    while (left := end - time.monotonic()) > 0:
        try:
            yield lines.get(timeout=left)
        except queue.Empty:
            return


def _second(stamp: str) -> int | None:
    """The whole second of a stamp in Unix time, which is all that engines agree upon."""
    return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp()) if stamp else None
