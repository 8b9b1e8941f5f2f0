"""Which job is meant: people give an id, a name or the start of an id."""

import difflib
from itertools import islice

from taskyard.errors import UnknownJobError, UsageError
from taskyard_master.jobs import Job

SHOWN = 5  # candidates in an error
COMPARED = 1000  # jobs that a misspelt name is compared with, the newest


def find(jobs: dict[str, Job], name: str) -> str:
    """The id of the job; UnknownJobError, with what is near, if there is none, UsageError if several are."""
    if name in jobs:
        return name
    called = [job.id for job in jobs.values() if job.name == name]
    found = called or [key for key in jobs if name and key.startswith(name)]
    if not found:
        raise UnknownJobError(f"there is no job {name!r}{_near(jobs, name)}")
    if len(found) == 1:
        return found[0]
    found.reverse()  # the newest first
    shown = [key if called or not jobs[key].name else f"{key} ({jobs[key].name})" for key in found[:SHOWN]]
    more = ", ..." if len(found) > SHOWN else ""
    what = "are called" if called else "have an id that begins with"
    raise UsageError(f"{len(found)} jobs {what} {name!r}: give the id, one of {', '.join(shown)}{more}")


def _near(jobs: dict[str, Job], name: str) -> str:
    newest = [jobs[key] for key in islice(reversed(jobs), COMPARED)]
    words = dict.fromkeys(word for job in newest for word in (job.name, job.id) if word)
    near = difflib.get_close_matches(name, words, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ": see 'taskyard status'"
