"""Every error the project raises on purpose: one root, and a message for people.

A message says what went wrong, where, and what to do next, on one line. The
class decides the exit code of the command line, so that scripts can tell the
cases apart without reading the text. Every error takes exactly the arguments
that it stores, so it survives pickling.
"""

EXIT_DONE = 0
EXIT_TASKS = 1  # some tasks did not complete
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3  # master or engine
EXIT_REFUSED = 4  # not let in
EXIT_HOST = 5  # a host failed
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class TaskyardError(Exception):
    """Root of all errors raised on purpose; `str()` of it is the line for people."""

    exit_code = EXIT_INTERNAL


class UsageError(TaskyardError):
    """The caller asked for something that cannot be: fix the call and try again."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """One or more settings are wrong; the message lists every fault."""


class FunctionError(UsageError):
    """A function cannot be found or may not run; the message says why."""


class RequirementsError(UsageError):
    """The tasks' requirements.txt cannot be installed; the message names the line that failed."""


class UnknownJobError(UsageError):
    """No job has this id or name."""


class GapError(UsageError):
    """A chunk does not start at its job's next index; submit from `expected` on."""

    def __init__(self, message: str, expected: int = 0) -> None:
        super().__init__(message, expected)
        self.expected = expected

    def __str__(self) -> str:
        return str(self.args[0])


class ConflictError(UsageError):
    """The request contradicts what was accepted before, for instance another digest."""


class PayloadError(UsageError):
    """A value is too large or of a kind that does not travel."""


class BacklogFullError(TaskyardError):
    """The job's backlog or the disk budget is full; wait for tasks to finish."""

    exit_code = EXIT_TASKS


class TaskFailed(TaskyardError):
    """A task did not complete; carries the remote error as text."""

    exit_code = EXIT_TASKS


class UnreachableError(TaskyardError):
    """Nothing answers at the address, or what answers is no yard: check it and try again."""

    exit_code = EXIT_UNREACHABLE


class EngineError(TaskyardError):
    """The container engine is missing or failed; the message carries its own words."""

    exit_code = EXIT_UNREACHABLE


class RefusedError(TaskyardError):
    """The peer answered but did not let us in: key, dialect, TLS or version."""

    exit_code = EXIT_REFUSED


class ProtocolError(TaskyardError):
    """The peer sent bytes that are not of the protocol; its connection is dropped."""

    exit_code = EXIT_UNREACHABLE


class StorageError(TaskyardError):
    """The journal could not be read or written; nothing of the request was accepted."""

    exit_code = EXIT_UNREACHABLE


class HostError(TaskyardError):
    """A host of the inventory failed."""

    exit_code = EXIT_HOST
