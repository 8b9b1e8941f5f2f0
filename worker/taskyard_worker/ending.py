"""The end of a slot's process: which task answers for it, and what becomes of the others."""

import signal
import time
from dataclasses import dataclass

from taskyard.messages import Failure, Outcome
from taskyard_worker import memory
from taskyard_worker.pieces import Batch, Piece


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended."""

    code: int  # as of subprocess: negative for a signal
    words: str  # the same for people
    ours: bool  # whether this worker ended it
    late: tuple[int, int] | None  # (batch, task) that ran too long, if that is why
    beside: bool  # whether other slots ran something at that moment

    def account(self, batch: Batch) -> tuple[list[Outcome], Piece | None]:
        """What a batch of it has come to, the running task included, and the tasks to run elsewhere."""
        done = batch.done
        outcomes = batch.outcomes(done) if done > batch.taken else []
        if batch.dropped:
            return outcomes, None
        charge = self._charge(batch)
        if charge is not None:
            outcomes.append(charge)
            done += 1
        return outcomes, batch.piece.cut(done, batch.limit) if done < batch.limit else None

    def _charge(self, batch: Batch) -> Outcome | None:
        """The outcome of the task that ran; None if none did, or if it is not to blame."""
        piece, index, loading = batch.piece, batch.done, batch.phase == memory.LOADING
        if batch.running is None and not loading:
            return None
        started = time.monotonic() if loading else batch.since(index)
        if self.late == (batch.seq, index):
            what = "importing its module took too long" if loading else f"ran longer than {piece.timeout:g} s"
            failure = Failure("timed out", "", f"{what} and was killed")
            return piece.outcome("timeout", index, started, failure)
        if self.ours:
            return None
        if self.code == -signal.SIGKILL and self.beside:
            return piece.outcome("suspect", index, started)
        where = " while its module was imported" if loading else ""
        return piece.outcome("killed", index, started, Failure("killed", "", self.words + where))
