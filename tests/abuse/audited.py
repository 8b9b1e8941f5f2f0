"""`python -m audited`: a master as it is, with a hook that writes down what its process does while it serves.

`python -m audited stdlib` is the tutorial's own master under the same hook: the control.
Every event is written to AUDIT_LOG but those that a serving master has every reason for.
"""

import asyncio
import os
import sys
from typing import Any

import tutorial_master

from taskyard.settings import Settings
from taskyard_master import __main__ as master
from taskyard_master.server import Server

# Sockets that are accepted, arrays and identities: nothing that a payload gains anything by.
EXPECTED = {"sys._getframe", "sys._getframemodulename", "socket.__new__", "array.__new__", "builtins.id"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Writes events down once it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self._log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._room = os.environ.get("AUDIT_ROOM", "")  # where the journal is, and may be written
        sys.addaudithook(self._saw)

    def arm(self) -> None:
        os.write(self._log, b"armed\n")
        self.armed = True

    def _saw(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed or event in EXPECTED:
            return
        if event == "open" and self._harmless(*args):
            return
        if event == "object.__getattr__" and args[1] == "f_code":  # which line logs, asks logging
            return
        os.write(self._log, f"{event} {args!r}"[:500].replace("\n", " ").encode(errors="replace") + b"\n")

    def _harmless(self, path: Any, mode: Any, flags: Any) -> bool:
        """Reading, and writing in the journal's folder."""
        writes = flags & WRITES if isinstance(flags, int) else set(mode or "") & set("wax+")
        return not writes or (isinstance(path, str) and bool(self._room) and path.startswith(self._room))


def ours() -> int:
    watch = Watch()
    start = Server.start

    async def start_and_arm(self: Server) -> None:
        await start(self)
        asyncio.get_running_loop().call_later(0.2, watch.arm)  # once it has said that it listens

    Server.start = start_and_arm  # type: ignore[method-assign]
    Settings.from_env()
    return master.main()


if __name__ == "__main__":
    if sys.argv[1:] == ["stdlib"]:
        tutorial_master.serve(Watch().arm)
    else:
        sys.exit(ours())
