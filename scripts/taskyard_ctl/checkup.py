"""Looks at everything that keeps a yard of this machine from working, and names the cure of what does.

One line a check, as of `doctor` for hosts; it changes nothing.
"""

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import taskyard
from taskyard import Yard
from taskyard.errors import TaskyardError
from taskyard.messages import StatusReply
from taskyard.settings import Settings
from taskyard.tls_faults import utc
from taskyard.tls_files import Files
from taskyard.tls_identity import own_identity
from taskyard_ctl.doctor import HERE, Finding
from taskyard_ctl.yard import YardFolder

PATIENCE_S = 3.0
RENEW_S = 30 * 86400.0
SINCE = 1_735_689_600.0  # 2025: a clock before that was never set
LOOPBACK = ("127.", "localhost", "::1")


def examine(folder: YardFolder) -> list[Finding]:
    return list(_checks(folder))


def _checks(folder: YardFolder) -> Iterator[Finding]:
    try:
        settings = folder.settings
    except TaskyardError as fault:
        yield Finding(HERE, "settings", "wrong", " ".join(str(fault).split()))
        return
    yield Finding(HERE, "key", f"{len(settings.authkey)} characters")
    yield _tls(settings)
    yield Finding(HERE, "clock", utc(time.time()), "" if time.time() > SINCE else "set the clock")
    yield _disk(folder, settings)
    yield _engine(folder)
    reached = _port(settings)
    yield reached
    if reached.ok:
        yield from _master(settings)


def _tls(settings: Settings) -> Finding:
    files = Files.of(settings)
    if files is None:
        loopback = settings.endpoint[0].startswith(LOOPBACK)
        cure = "" if loopback else "'taskyard certs' makes what TASKYARD_TLS_* need: others can listen here"
        return Finding(HERE, "TLS", "off" + (", on loopback only" if loopback else ""), cure)
    try:
        identity = own_identity(files, server=False)
    except TaskyardError as fault:
        return Finding(HERE, "TLS", "on, and of no use", str(fault))
    cure = "" if identity.ends > time.time() + RENEW_S else "'taskyard certs' renews it"
    return Finding(HERE, "TLS", f"on, {identity} until {utc(identity.ends)}", cure)


def _disk(folder: YardFolder, settings: Settings) -> Finding:
    place = Path(settings.journal).parent
    free = shutil.disk_usage(place if place.is_dir() else folder.path).free
    cure = "" if free > 2 * settings.reserve else "make room: below TASKYARD_RESERVE nothing is accepted"
    return Finding(HERE, "disk", f"{free / (1 << 30):.1f} GiB free", cure)


def _engine(folder: YardFolder) -> Finding:
    engine = folder.found()
    if engine is None:
        return Finding(HERE, "engine", "no yard was started here", "'taskyard up' starts one")
    try:
        engine.check()
        fault = engine.fault()
    except TaskyardError as error:
        return Finding(HERE, "engine", engine.name, str(error))
    running = [member for member in engine.members() if member.state == "running"]
    return Finding(HERE, "engine", f"{engine.name}, {len(running)} running", fault)


def _port(settings: Settings) -> Finding:
    try:
        with contextlib.closing(socket.create_connection(settings.endpoint, PATIENCE_S)):
            return Finding(HERE, "port", f"{settings.address} answers")
    except OSError as fault:
        what = f"nothing answers at {settings.address} ({fault.strerror or fault})"
        return Finding(HERE, "port", what, "'taskyard up' starts a master, or correct TASKYARD_ADDRESS")


def _master(settings: Settings) -> Iterator[Finding]:
    try:
        with Yard.from_settings(settings, label="doctor", patience=PATIENCE_S) as yard:
            status = yard.status()
    except TaskyardError as fault:
        yield Finding(HERE, "master", "does not let us in", str(fault))
        return
    yield Finding(HERE, "master", f"taskyard {status.master.version}", _skew(status.master.version))
    yield _workers(status)


def _workers(status: StatusReply) -> Finding:
    odd = sorted({worker.version for worker in status.workers} - {taskyard.__version__})
    if not status.workers:
        return Finding(HERE, "workers", "none", "'taskyard scale 2' starts two")
    return Finding(HERE, "workers", f"{len(status.workers)} joined", _skew(odd[0]) if odd else "")


def _skew(version: str) -> str:
    if version == taskyard.__version__:
        return ""
    return f"this command is taskyard {taskyard.__version__}: 'taskyard up' brings both to one version"
