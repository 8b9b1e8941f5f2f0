"""Time for waiting: one deadline a wait, on the monotonic clock."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock; several waits share what is left of it."""

    at: float

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """`None` never passes."""
        return cls(float("inf") if seconds is None else time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left, never negative; infinite for a deadline that never passes."""
        return max(0.0, self.at - time.monotonic())

    def timeout(self) -> float | None:
        """The same for calls that take None as "for ever"."""
        return None if self.at == float("inf") else self.left()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at
