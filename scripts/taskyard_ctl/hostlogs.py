"""Logs of all hosts, merged by time; a host that goes away is attached to again when it is back."""

import heapq
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from taskyard.errors import RefusedError, TaskyardError
from taskyard_ctl.cli import say
from taskyard_ctl.compose_logs import GATHER_S, ContainerLogs
from taskyard_ctl.engine import FAULTS, HostEngine
from taskyard_ctl.interface import Line, Member
from taskyard_ctl.inventory import Host
from taskyard_ctl.plan import Running
from taskyard_ctl.ssh import Link

AGAIN_S = 3.0


class HostLogs:
    """What the containers of a yard printed on its hosts."""

    def __init__(self, engines: Mapping[str, HostEngine], hosts: Mapping[str, Host], yard: str) -> None:
        self._engines = engines
        self._hosts = hosts
        self._yard = yard

    def history(self, since: str) -> Iterator[Line]:
        streams = [_of(engine).history(since) for engine in self._engines.values()]
        named = [map(_Named(name), stream) for name, stream in zip(self._engines, streams, strict=True)]
        return heapq.merge(*named, key=lambda line: line.stamp)

    def follow(self, since: str) -> Iterator[Line]:
        """Endless: the history first, in order, then what comes."""
        last: dict[str, str] = {}
        begin: dict[str, str] = {}
        for line in self.history(since):
            last[line.container] = line.stamp
            yield line
            begin[line.host] = line.stamp
        lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        for name, host in self._hosts.items():
            arguments = (host, self._engines.get(name), begin.get(name, since), lines)
            threading.Thread(target=self._pump, args=arguments, daemon=True).start()
        while True:
            for line in sorted(_gather(lines), key=lambda line: line.stamp):
                if line.stamp > last.get(line.container, ""):
                    last[line.container] = line.stamp
                    yield line

    def _pump(
        self, host: Host, engine: HostEngine | None, since: str, lines: "queue.SimpleQueue[Line]"
    ) -> None:
        """Follow one host, through as many connections as it takes."""
        name, told = _Named(host.name), engine is None
        logs: ContainerLogs | None = None
        while True:
            try:
                if engine is None:
                    engine = HostEngine(Link(host).wait(), self._yard)
                    if told:
                        say(f"{host.name} is back")
                logs = _of(engine)
                for line in logs.follow(since):
                    since = max(since, line.stamp)
                    lines.put(name(line))
            except RefusedError as fault:
                say(f"taskyard: {fault}")  # nobody tries a refused login again
                return
            except (TaskyardError, *FAULTS):
                pass
            if not told:
                say(f"{host.name} does not answer; its lines come when it is back")
                told = True
            if logs is not None:
                logs.close()
            if engine is not None:
                engine.link.close()
                engine = None
            time.sleep(AGAIN_S)


class _Named:
    """Writes the host into lines."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __call__(self, line: Line) -> Line:
        return replace(line, host=self._host)


def _of(engine: HostEngine) -> ContainerLogs:
    def members() -> list[Member]:
        return [Member(_source(one), one.role, one.state, container=one.id) for one in engine.containers()]

    return ContainerLogs(engine.client, members)


def _source(one: Running) -> str:
    return "master" if one.role == "master" else f"worker-{one.number}"


def _gather(lines: "queue.SimpleQueue[Line]") -> Iterator[Line]:
    end = time.monotonic() + GATHER_S
    while (left := end - time.monotonic()) > 0:
        try:
            yield lines.get(timeout=left)
        except queue.Empty:
            return
