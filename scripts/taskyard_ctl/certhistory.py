"""What became of every certificate of a yard: made and revoked, one JSON object a line, only ever longer.

Files alone do not know it: a certificate that was renewed is good until its end, and one for joining is
kept in no file; both have to be revoked with their host.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from taskyard.errors import SettingsError
from taskyard_ctl.certs import Pair, Revoked, Subject


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the history."""

    what: str  # issued or revoked
    at: int  # Unix seconds
    serial: str  # as a certificate shows it
    role: str
    host: str
    ends: int
    once: bool = False  # it has no file here

    @property
    def subject(self) -> Subject:
        return Subject(self.role, self.host)

    @property
    def revoked(self) -> Revoked:
        """The same for the list of revoked certificates."""
        at, ends = datetime.fromtimestamp(self.at, UTC), datetime.fromtimestamp(self.ends, UTC)
        return Revoked(int(self.serial, 16), self.role, self.host, at, ends)


class History:
    """The history in a file; whoever writes holds the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[Event]:
        """All of it, oldest first; an absent file is an empty history."""
        try:
            return [Event(**json.loads(line)) for line in self.path.read_text().splitlines() if line]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as fault:
            raise SettingsError(f"{self.path} cannot be read: {fault}") from None

    def issued(self, pair: Pair, subject: Subject, now: datetime, once: bool = False) -> None:
        ends = int(pair.cert.not_valid_after_utc.timestamp())
        serial = f"{pair.cert.serial_number:X}"
        self._add(
            Event("issued", int(now.timestamp()), serial, subject.role, subject.host, ends, once),
        )

    def revoke(self, event: Event, now: datetime) -> Event:
        """Note that what `event` issued is revoked."""
        done = Event(
            "revoked", int(now.timestamp()), event.serial, event.role, event.host, event.ends, event.once
        )
        self._add(done)
        return done

    def revoked(self) -> list[Event]:
        return [event for event in self.events() if event.what == "revoked"]

    def subjects(self) -> list[Subject]:
        """Everybody who ever had a pair of files, the authority aside."""
        mine = (event.subject for event in self.events() if not event.once and event.role != "authority")
        return list(dict.fromkeys(mine))

    def revocable(self, now: datetime) -> list[Event]:
        """Certificates that would be let in now; the authority's own is not one of them."""
        gone = {event.serial for event in self.revoked()}
        return [
            event
            for event in self.events()
            if event.what == "issued"
            and event.serial not in gone
            and event.ends > now.timestamp()
            and event.role != "authority"
        ]

    def barred(self, subject: Subject) -> bool:
        """Was the last that became of its certificates that they were revoked?"""
        mine = [event for event in self.events() if event.subject == subject.bare and not event.once]
        return bool(mine) and mine[-1].what == "revoked"

    def _add(self, event: Event) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")
