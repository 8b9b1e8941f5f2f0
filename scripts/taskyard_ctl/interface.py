"""What every engine offers, so that the verbs need not know where the yard runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Say = Callable[[str], None]  # progress, one line each, to stderr


@dataclass(frozen=True, slots=True)
class Member:
    """One process or container of the yard: the master, or a worker."""

    name: str  # master, worker-1
    role: str  # master or worker
    state: str  # running, or in one word why not
    pid: int = 0  # as the master sees it; 0 = unknown
    container: str = ""  # full id
    restarts: int = 0  # since it is there; told by the local engine only


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a member printed."""

    stamp: str  # UTC, fixed width: sorts as text
    source: str  # name of the member
    container: str
    text: str
    host: str = ""  # "" = this one


class Engine(Protocol):
    """The verbs on one engine; nothing here waits for workers to join."""

    name: str
    containers: bool  # workers see only what is mounted into them

    def check(self) -> None:
        """Raise EngineError, with its cure, if this engine cannot be used on this machine."""
        ...

    def running(self) -> bool:
        """Is a yard of this folder up?"""
        ...

    def members(self) -> list[Member]: ...

    def up(self, workers: int, say: Say) -> None:
        """Start the master and so many workers; raises EngineError or UnreachableError, nothing left over."""
        ...

    def fault(self) -> str:
        """Why it will not get ready, in one line; empty as long as it may."""
        ...

    def grow(self, workers: int) -> None:
        """Start workers until there are so many; those that run are not touched."""
        ...

    def remove(self, member: Member, grace: float) -> None:
        """Stop exactly this worker, at the latest after `grace` seconds, and forget it."""
        ...

    def down(self, grace: float, say: Say) -> None:
        """Stop all workers, then the master; the journal stays."""
        ...

    def destroy(self, volumes: bool, say: Say) -> None:
        """Remove what `down` keeps, the journal only with `volumes`."""
        ...

    def restore(self, file: Path) -> str:
        """Put a backup in the journal's place while nothing runs; returns what was done."""
        ...

    def lines(self, since: str, follow: bool) -> Iterator[Line]:
        """What the members printed from the stamp `since` on, merged by time; endless with `follow`."""
        ...
