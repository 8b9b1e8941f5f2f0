"""`python -m taskyard_master`: wires the rooms together, handles signals, ends with an exit code."""

import asyncio
import contextlib
import logging
import resource
import signal
import sys
import time
from pathlib import Path

from taskyard import failpoints
from taskyard import log as logs
from taskyard.errors import EXIT_DONE, EXIT_INTERNAL, EXIT_UNREACHABLE, TaskyardError
from taskyard.settings import Settings
from taskyard_master import heap
from taskyard_master.journal import Journal
from taskyard_master.ledger import Ledger
from taskyard_master.server import Server
from taskyard_master.service import Service
from taskyard_master.web.serve import dashboard

log = logging.getLogger("taskyard.master")


def load(journal: Journal, settings: Settings) -> Ledger:
    """The ledger as it was when the journal was last written."""
    now, records = time.monotonic(), 0
    ledger = Ledger(journal.boot, offset=time.time() - now, lease=settings.lease, abandon=settings.abandon)
    for _, entry in journal.replay():
        if isinstance(entry, bytes):
            ledger.restore(entry, now)
        else:
            ledger.replay(entry, now)
            records += 1
    if records:
        seconds = time.monotonic() - now
        logs.event(log, "replayed", f"replayed {records} records in {seconds:.1f} s", records=records)
    return ledger


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run a master until `stop` is set."""
    loop = asyncio.get_running_loop()
    journal = Journal(Path(settings.journal), loop.call_soon_threadsafe)
    try:
        ledger = load(journal, settings)
        failpoints.passing("replay.after")
        journal.start()
        ledger.rearm(time.monotonic())
        service = Service(settings, journal, ledger, loop)
        await service.plain.start()
        server = Server(service, settings)
        await server.start()
        service.connections = lambda: server.connections
        logs.event(
            log, "listening", f"master listens on {settings.address}, journal {settings.journal}",
            address=settings.address, boot=journal.boot,
        )  # fmt: skip
        keeping = asyncio.create_task(service.housekeeping())
        trimming = asyncio.create_task(heap.trim_now_and_then())
        waiting = asyncio.create_task(stop.wait())
        async with dashboard(service, settings):
            await asyncio.wait({keeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
        failpoints.passing("stop.before")
        service.stop()
        if keeping.done():
            keeping.result()  # housekeeping ends by itself only with an error
        keeping.cancel()
        trimming.cancel()
        await server.stop()
    finally:
        await asyncio.to_thread(journal.close)
    logs.event(log, "stopped", "master stopped, everything answered is in the journal")


def allow_files(connections: int) -> None:
    """Lift this process's own limit of open files toward what the connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256  # the journal, the dashboard, what libraries open
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def main() -> int:
    """Exit code of the process; every expected error is one line on stderr."""
    try:
        settings = Settings.from_env()
        failpoints.arm(settings.failpoint)
        logs.setup(settings.log)
        allow_files(settings.connections)
        runner = asyncio.run
        with contextlib.suppress(ImportError):  # uvloop is faster where it is installed
            import uvloop

            runner = uvloop.run
        runner(run(settings))
    except TaskyardError as error:
        sys.stderr.write(f"taskyard master: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"taskyard master: {error}\n")
        return EXIT_UNREACHABLE
    except Exception:
        log.exception("the master failed")
        return EXIT_INTERNAL
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
