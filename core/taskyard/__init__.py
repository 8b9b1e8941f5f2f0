"""Run a Python function over a long list of inputs on many machines."""

from importlib import import_module

__version__ = "0.1.0"

inside_task = False  # a slot sets it: what is submitted from inside a task is refused rather than held

_HOMES = {
    "Job": "job",
    "Outcome": "job",
    "Submitter": "submitter",
    "TaskFailed": "errors",
    "TaskyardError": "errors",
    "Yard": "client",
    "YardExecutor": "executor",
}
__all__ = [
    "Job", "Outcome", "Submitter", "TaskFailed", "TaskyardError", "Yard", "YardExecutor", "inside_task",
]  # fmt: skip

TYPE_CHECKING = False  # type checkers take this name for true, and typing takes milliseconds to import
if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard.errors import TaskFailed, TaskyardError
    from taskyard.executor import YardExecutor
    from taskyard.job import Job, Outcome
    from taskyard.submitter import Submitter


def __getattr__(name: str) -> object:
    """Import what is asked for, and nothing before: the command line and workers start with little."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
