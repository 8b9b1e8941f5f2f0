"""Ctrl-C while somebody waits for a job: the first says what the next does, and the job goes on."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """In a terminal the second Ctrl-C leaves; elsewhere, where nobody reads a question, the first does."""

    def __init__(self, job: str, tell: Callable[[str], None], submitting: bool = False) -> None:
        self._job = job
        self._tell = tell
        self._before: Any = None
        self._asked = False
        self.submitting = submitting  # leaving now would leave inputs out

    def __enter__(self) -> "Interrupts":
        if sys.stderr.isatty() and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; job {self._job} {self._fate}: taskyard results {self._job} --follow"
            ) from None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._tell(
            f"Ctrl-C again leaves, and job {self._job} {self._fate}; 'taskyard cancel {self._job}' ends it"
        )

    @property
    def _fate(self) -> str:
        return "goes on without the inputs that are still to come" if self.submitting else "goes on"
