"""Settings: the environment, read once into one frozen object, every fault listed together.

`REGISTRY` is the only list of variables; the reference in docs and `.env.example`
are generated from it. A role accepts and ignores another role's variables, so one
`.env` serves all; a `TASKYARD_*` name that nobody knows is an error.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from taskyard.errors import SettingsError

PREFIX = "TASKYARD_"
KEY_MINIMUM = 16  # characters


def _text(raw: str) -> str:
    return raw


def _whole(raw: str) -> int:
    value = int(raw)
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _seconds(raw: str) -> float:
    value = float(raw)
    if not 0 <= value < float("inf"):
        raise ValueError("must be a number of seconds, 0 or more")
    return value


def _flag(raw: str) -> bool:
    if raw.lower() not in ("0", "1", "false", "true", "no", "yes"):
        raise ValueError("must be 1 or 0")
    return raw.lower() in ("1", "true", "yes")


def _address(raw: str) -> str:
    host, colon, port = raw.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError("must be host:port")
    return raw


def _web(raw: str) -> str:
    return _address(raw) if raw else ""


def _key(raw: str) -> bytes:
    if len(raw) < KEY_MINIMUM:
        raise ValueError(f"must have at least {KEY_MINIMUM} characters; `taskyard init` makes a good one")
    return raw.encode()


def _names(raw: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in raw.split(",") if name.strip())


def _size(raw: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[bkmg]?", raw, re.IGNORECASE):
        raise ValueError("must be a number of bytes, or one with k, m or g")
    return raw


def _slots(raw: str) -> int:
    if raw == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    value = int(raw)
    if value < 1:
        raise ValueError("must be 1 or more, or auto")
    return value


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return raw

    return parse


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: `default` is what an empty or missing one means, as text."""

    name: str  # without the prefix
    parse: Callable[[str], Any]
    default: str
    roles: str  # of master, worker, client, ctl
    unit: str
    text: str
    secret: bool = False  # also read from NAME_FILE, never printed

    @property
    def variable(self) -> str:
        return PREFIX + self.name


_ALL = "master worker client"
REGISTRY: tuple[Setting, ...] = (
    Setting("ADDRESS", _address, "127.0.0.1:5002", _ALL, "host:port",
            "Where the master listens, and where workers and clients dial."),
    Setting("AUTHKEY", _key, "", _ALL, "text",
            "The shared secret of master, workers and clients, as in multiprocessing.", secret=True),
    Setting("JOURNAL", _text, ".taskyard/journal.db", "master", "path",
            "The file that holds every accepted task and outcome."),
    Setting("TASKS_DIR", _text, "examples", "worker ctl", "path",
            "The folder of modules whose functions may run, with requirements.txt."),
    Setting("ENVIRONMENTS", _text, "", "worker", "path",
            "Where a worker installs requirements.txt; empty = its packages are there, as in an image."),
    Setting("DATA_DIR", _text, "", "ctl worker", "absolute path",
            "A folder mounted read-only at the same path in every worker, for tasks that are paths."),
    Setting("FUNCTION", _text, "", "worker", "module:function",
            "What plain tasks run."),
    Setting("WORKERS", _whole, "1", "ctl", "containers",
            "How many workers compose starts; `taskyard scale` keeps it."),
    Setting("MASTER_IMAGE", _text, "", "ctl", "image",
            "An image of your own for the master that compose starts; empty = the one that is built here."),
    Setting("WORKER_IMAGE", _text, "", "ctl", "image",
            "The same for workers; it has what the tasks require."),
    Setting("MEMORY", _size, "4g", "ctl", "bytes, or with k, m or g",
            "The most memory of a container that compose starts; beyond it, the kernel ends what it runs."),
    Setting("SLOTS", _slots, "1", "worker", "processes",
            "Processes in a worker that run tasks; auto = the CPUs it may use."),
    Setting("HOST", _text, "", "worker", "text",
            "The host's name as status and logs show it; empty = the machine's own."),
    Setting("DIALECT", _choice("yard", "plain"), "yard", "worker", "word",
            "plain: work for a stdlib multiprocessing.managers master."),
    Setting("LEASE", _seconds, "30", "master", "seconds",
            "How long a worker may be silent before its tasks go to others."),
    Setting("GRACE", _seconds, "5", "master", "seconds",
            "How long a worker whose connection dropped may take to come back."),
    Setting("DRAIN", _seconds, "50", "worker master", "seconds",
            "How long a stopping process waits for what runs; smaller than compose's stop_grace_period."),
    Setting("BATCH", _whole, "10000", "worker", "tasks",
            "A cap on tasks in one lease; below it the worker's pace decides."),
    Setting("RECYCLE", _whole, "0", "worker", "tasks",
            "Renew a slot's process after so many tasks; 0 = never."),
    Setting("PRINT", _whole, "65536", "worker", "bytes",
            "How much of what one task prints is kept."),
    Setting("ABANDON", _seconds, "3600", "master", "seconds",
            "Silence of a submitter after which its open job is closed as incomplete."),
    Setting("BACKLOG", _whole, "20000000", "master", "tasks",
            "Unfinished tasks of one job at which its submitter is held."),
    Setting("DISK", _whole, "0", "master", "bytes",
            "A cap on the journal's size, of which it takes 8 MiB from the start; 0 = what the disk has."),
    Setting("RESERVE", _whole, "67108864", "master", "bytes",
            "Disk kept free of new tasks, for outcomes, cancels and deletes."),
    Setting("HANDSHAKE", _seconds, "3", "master", "seconds",
            "How long a connection may take to prove the key and say what it wants."),
    Setting("FRAME", _whole, "16777216", _ALL, "bytes", "The largest frame that is accepted."),
    Setting("PAYLOAD", _whole, "1048576", _ALL, "bytes",
            "The largest value; put bigger data on shared storage and send its path."),
    Setting("CONNECTIONS", _whole, "10000", "master", "connections", "Connections in all."),
    Setting("CONNECTIONS_PER_ADDRESS", _whole, "5000", "master", "connections",
            "Connections from one address."),
    Setting("OUTPUT", _whole, "67108864", "master", "bytes",
            "Output waiting for a peer that does not read, before it is dropped."),
    Setting("ALLOW", _names, "", _ALL, "names",
            "More classes that values may be of, as module.Name, separated by commas."),
    Setting("ALLOW_MD5", _flag, "1", "master", "1 or 0",
            "Let stdlib peers up to Python 3.11 answer the handshake with MD5, which is all they can."),
    Setting("PLAIN_TASKS", _names, "get_task,get_task_queue,task_queue", "master worker", "names",
            "Names under which stdlib peers find the task queue."),
    Setting("PLAIN_RESULTS", _names, "get_result,get_result_queue,result_queue", "master worker", "names",
            "Names under which stdlib peers find the result queue."),
    Setting("PLAIN_MAXSIZE", _whole, "0", "master", "items",
            "Bound of the plain queues, as queue.Queue(maxsize); 0 = none."),
    Setting("PLAIN_ACK", _choice("put", "get"), "put", "master", "word",
            "When a plain task counts as done: at the next put on the result queue, or when delivered."),
    Setting("PLAIN_LEASE", _seconds, "0", "master", "seconds",
            "How long a plain peer may hold a task; 0 = as long as it is connected."),
    Setting("TLS_CA", _text, "", _ALL, "path", "The certificate authority that both sides trust."),
    Setting("TLS_CERT", _text, "", _ALL, "path", "This process's certificate."),
    Setting("TLS_KEY", _text, "", _ALL, "path", "The key of the certificate."),
    Setting("JOIN", _text, "", "worker", "text",
            "The ticket of 'taskyard join', by which this worker gets all that it needs, once.", secret=True),
    Setting("JOINED", _text, ".taskyard/joined", "worker", "path",
            "The folder in which a worker that joined by a ticket keeps its key and certificate."),
    Setting("WEB", _web, "", "master ctl", "host:port", "Where the dashboard listens; empty = off."),
    Setting("WEB_TOKEN", _text, "", "master ctl", "text", "What a browser must show once.", secret=True),
    Setting("WEB_HOSTS", _names, "", "master", "names",
            "More host names under which browsers may reach the dashboard."),
    Setting("LOG", _choice("text", "json"), "text", _ALL, "word", "How log lines look."),
    Setting("FAILPOINT", _text, "", "master worker", "name[:n][:error]",
            "For tests: the process ends, or gets an I/O error, at the n-th passing of this named point."),
)  # fmt: skip

_BY_VARIABLE = {setting.variable: setting for setting in REGISTRY}


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """All settings of a process, typed; attribute names are the lower-case variable names."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"no setting is named {name}") from None

    def __repr__(self) -> str:
        shown = {
            setting.name.lower(): "***" if setting.secret else self.values[setting.name.lower()]
            for setting in REGISTRY
        }
        return f"Settings({shown})"

    @property
    def endpoint(self) -> tuple[str, int]:
        """ADDRESS as (host, port), IPv6 without its brackets."""
        return split_address(self.values["address"])

    @property
    def tls(self) -> bool:
        return bool(self.values["tls_ca"])

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, need_key: bool = True) -> Self:
        """Read the environment; raises SettingsError that lists every fault, one a line."""
        environ = os.environ if environ is None else environ
        faults = [*_unknown(environ)]
        values: dict[str, Any] = {}
        for setting in REGISTRY:
            try:
                raw = _raw(setting, environ) or setting.default
                empty_key = setting.name == "AUTHKEY" and not raw
                values[setting.name.lower()] = b"" if empty_key else setting.parse(raw)
            except (ValueError, OSError) as fault:
                shown = "" if setting.secret else f" (is {environ.get(setting.variable, '')!r})"
                faults.append(f"{setting.variable}: {fault}{shown}")
        if need_key and not values.get("authkey", b"-"):
            programs = environ is os.environ and Path(".env").exists()
            cure = "'set -a; . ./.env; set +a' in the shell" if programs else "run 'taskyard init' first"
            faults.append(f"TASKYARD_AUTHKEY: is not set; {cure}, or set it or its _FILE")
        tls = [name for name in ("tls_ca", "tls_cert", "tls_key") if values.get(name)]
        if 0 < len(tls) < 3:
            faults.append("TASKYARD_TLS_CA, _CERT and _KEY: set all three, or none")
        if faults:
            raise SettingsError("\n".join(faults))
        return cls(values)


def _raw(setting: Setting, environ: Mapping[str, str]) -> str:
    raw = environ.get(setting.variable, "")
    path = environ.get(setting.variable + "_FILE", "") if setting.secret else ""
    if raw and path:
        raise ValueError(f"is set, and {setting.variable}_FILE too: keep one")
    return Path(path).read_text().strip() if path else raw


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = set(_BY_VARIABLE) | {s.variable + "_FILE" for s in REGISTRY if s.secret}
    faults = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            faults.append(f"{name}: there is no such setting{hint}")
    return faults


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port" as (host, port); raises SettingsError."""
    try:
        host, _, port = _address(address).rpartition(":")
    except ValueError as fault:
        raise SettingsError(f"address {address!r}: {fault}") from None
    return host.strip("[]"), int(port)
