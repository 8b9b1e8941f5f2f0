"""Lists what a tasks folder offers: every module is imported in a process of its own.

Importing runs the code of users: it may fail, exit, hang or print, and all of that
costs one line of the listing.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskyard import functions
from taskyard.errors import FunctionError

IMPORT_SECONDS = 60.0  # how long one module may take to import


@dataclass(frozen=True, slots=True)
class Listing:
    """What a tasks folder offers."""

    functions: Mapping[str, float] = field(default_factory=dict)  # name -> its own timeout; 0 = none
    faults: Mapping[str, str] = field(default_factory=dict)  # module -> why it cannot be imported
    digest: str = ""


def scan(folder: Path, stopped: Callable[[], bool] = lambda: False, python: str = sys.executable) -> Listing:
    """Import every module in a process of its own and list what may run; raises FunctionError.

    Blocks, for IMPORT_SECONDS a module at most; `stopped` is asked now and then, to give up early.
    `python` is the interpreter that has what the modules need.
    """
    folder = folder.resolve()
    waiting = list(functions.modules(folder))
    digest = functions.digest(folder)
    found: dict[str, float] = {}
    faults: dict[str, str] = {}
    while waiting and not stopped():
        at = 0
        for at, answer in enumerate(_ask(python, folder, waiting, stopped), start=1):
            found.update(answer.get("functions", {}))
            if "fault" in answer:
                faults[waiting[at - 1]] = answer["fault"]
        waiting = waiting[max(at, 1) :]
    return Listing(found, faults, digest)


def _ask(
    python: str, folder: Path, names: list[str], stopped: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """One answer a module from one process, up to and with the first module that ends or hangs it."""
    command = [python, "-P", "-m", "taskyard.scan", str(folder), *names]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        data, said = b"", b""
        last, ends = time.monotonic(), {out, err}
        try:
            while out in ends:
                ready, _, _ = select.select(list(ends), [], [], 0.2)
                for fd in ready:
                    part = os.read(fd, 1 << 16)
                    ends -= set() if part else {fd}
                    data, said = (data + part, said) if fd == out else (data, (said + part)[-4096:])
                *lines, data = data.split(b"\n")
                for line in lines:
                    last = time.monotonic()
                    yield json.loads(line)
                    names = names[1:]
                if stopped():
                    return
                if time.monotonic() - last > IMPORT_SECONDS:
                    yield {"fault": f"importing it takes more than {IMPORT_SECONDS:.0f} seconds"}
                    return
            if names:
                code = process.wait()
                how = f"exit code {code}" if code >= 0 else f"signal {-code}"
                words = said.decode(errors="replace").strip().rpartition("\n")[2]
                yield {"fault": f"importing it ended the process ({how})" + (f": {words}" if words else "")}
        finally:
            process.kill()


def _main(root: str, names: list[str]) -> None:
    """The process that imports: one line of JSON a module, in order, on what was stdout."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what modules print is not an answer
        folder = Path(root)
        functions.open_folder(folder)
        for name in names:
            try:
                public = functions.public(functions.load(folder, name))
                answer: dict[str, Any] = {
                    "functions": {f"{name}:{key}": functions.timeout(f) for key, f in public.items()}
                }
            except FunctionError as error:
                answer = {"fault": str(error).partition(" cannot be imported: ")[2] or str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)  # threads that a module started must not keep this process
