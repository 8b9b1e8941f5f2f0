"""From the name of an error on the wire to the error."""

from taskyard import errors
from taskyard.errors import GapError, TaskyardError
from taskyard.messages import Fail


def error_of(fail: Fail) -> TaskyardError:
    """Return the error that the master named; a name that is not known here becomes a TaskyardError."""
    kind = getattr(errors, fail.error, None)
    if kind is GapError:
        return GapError(fail.message, fail.expected)
    if isinstance(kind, type) and issubclass(kind, TaskyardError):
        return kind(fail.message)
    return TaskyardError(f"{fail.message} ({fail.error})" if fail.error else fail.message)
