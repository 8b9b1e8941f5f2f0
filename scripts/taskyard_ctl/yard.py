"""A yard is a folder: its `.env`, what `.taskyard/` records, and which engine runs it.

A value comes from an option, else the environment, else `.env`, else the default;
an empty one counts as not set. Paths are relative to the yard's folder.
"""

import json
import os
import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskyard.errors import EngineError, SettingsError, UsageError
from taskyard.settings import PREFIX, REGISTRY, Settings, split_address
from taskyard_ctl import envfile
from taskyard_ctl.interface import Engine

if TYPE_CHECKING:
    from taskyard.client import Yard
    from taskyard.scan import Listing
    from taskyard_ctl.hosts import HostsEngine

STATE = ".taskyard"
RECORD = "yard.json"
PATIENCE_S = 2.0  # more than a master that restarts takes
FAR_PATIENCE_S = 10.0  # the same through ssh, whose hosts may be far away and busy
_OURS = (PREFIX, "COMPOSE_")
_PATHS = ("JOURNAL", "TASKS_DIR", "ENVIRONMENTS", "TLS_CA", "TLS_CERT", "TLS_KEY")


class YardFolder:
    """One yard, seen from its folder; reads nothing before it is asked."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UsageError(f"yard {path}: there is no such folder")
        self.path = path.resolve()
        self.state = self.path / STATE
        self.env_file = self.path / envfile.NAME

    # ------------------------------------------------------------ settings

    @cached_property
    def environ(self) -> dict[str, str]:
        """All TASKYARD_ and COMPOSE_ variables that are set: the environment's, and `.env`'s below them."""
        here = {name: value for name, value in os.environ.items() if name.startswith(_OURS) and value}
        file = envfile.read(self.env_file)
        below = {name: value for name, value in file.items() if name.startswith(_OURS) and value}
        for setting in REGISTRY:  # a secret and its file are one thing
            if setting.secret and {setting.variable, setting.variable + "_FILE"} & set(here):
                below.pop(setting.variable, None)
                below.pop(setting.variable + "_FILE", None)
        return {**below, **here}

    @cached_property
    def settings(self) -> Settings:
        """The settings, typed; raises SettingsError that lists every fault, the key's absence included."""
        above = next((folder for folder in self.path.parents if (folder / STATE / RECORD).exists()), None)
        if above is not None and not self.has_key:
            raise SettingsError(f"no yard is in {self.path}, but one in {above}: go there, or --yard {above}")
        return Settings.from_env(self._absolute())

    @cached_property
    def basics(self) -> Settings:
        """The same, also without a key: enough to stop and to look at what runs."""
        return Settings.from_env(self._absolute(), need_key=False)

    def reread(self) -> None:
        """Forget what was read: `.env` has changed."""
        for name in ("environ", "settings", "basics"):
            vars(self).pop(name, None)

    @property
    def has_key(self) -> bool:
        return bool({PREFIX + "AUTHKEY", PREFIX + "AUTHKEY_FILE"} & set(self.environ))

    def _absolute(self) -> dict[str, str]:
        """`environ` with all paths absolute, so that it means the same in any folder."""
        values = dict(self.environ)
        names = [PREFIX + name for name in _PATHS] + [s.variable + "_FILE" for s in REGISTRY if s.secret]
        for name in names:
            if values.get(name):
                values[name] = str(self.path / Path(values[name]).expanduser())
        for name in ("JOURNAL", "TASKS_DIR"):
            default = next(s.default for s in REGISTRY if s.name == name)
            values.setdefault(PREFIX + name, str(self.path / default))
        data = values.get(PREFIX + "DATA_DIR", "")
        if data and not Path(data).is_absolute():
            raise SettingsError(f"TASKYARD_DATA_DIR: must be an absolute path (is {data!r})")
        return values

    def child_environ(self) -> dict[str, str]:
        """The environment for processes of this yard: the caller's, and this yard's settings."""
        own = self._absolute()
        rest = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return {**rest, **own}

    @property
    def environments(self) -> Path:
        """Where requirements.txt is installed for workers that are processes."""
        return Path(self.basics.environments or self.state / "environments")

    @property
    def tasks_python(self) -> str:
        """The interpreter that has what the tasks need, as far as that is installed here."""
        from taskyard import environment

        return environment.there(Path(self.basics.tasks_dir), self.environments)

    def listing(self) -> "Listing":
        """What the tasks folder offers here; imports all of it, and raises FunctionError."""
        from taskyard.scan import scan

        return scan(Path(self.basics.tasks_dir), python=self.tasks_python)

    @property
    def dashboard(self) -> str:
        """Where a browser on this machine finds the dashboard of a yard here; "" if it is off.

        That of several hosts is found only while 'taskyard dashboard' holds a connection open.
        """
        if not self.basics.web or self.record().get("engine") == "hosts":
            return ""
        host, port = split_address(self.basics.web)
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    # ------------------------------------------------------------ the record

    def record(self) -> dict[str, Any]:
        """What `up` wrote down; empty if no yard was started here."""
        try:
            content = json.loads((self.state / RECORD).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as fault:
            raise EngineError(f"{self.state / RECORD} cannot be read ({fault}): remove it") from None
        return content if isinstance(content, dict) else {}

    def write_record(self, **content: Any) -> None:
        self.make_state()
        envfile.write(self.state / RECORD, json.dumps(content, indent=2) + "\n")

    def drop_record(self) -> None:
        (self.state / RECORD).unlink(missing_ok=True)

    def make_state(self) -> None:
        """The folder of everything that a yard keeps here; git does not see it."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        ignore = self.state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    # ------------------------------------------------------------ the engine

    def local(self) -> Engine:
        from taskyard_ctl.local import LocalEngine

        return LocalEngine(self)

    def compose(self) -> Engine:
        from taskyard_ctl.compose import ComposeEngine

        return ComposeEngine(self)

    @cached_property
    def hosts(self) -> "HostsEngine":
        """The hosts that `deploy` wrote down; one object, as all share its connections."""
        from taskyard_ctl.hosts import HostsEngine
        from taskyard_ctl.site import Site
        from taskyard_ctl.swarmengine import SwarmEngine

        site = Site.recorded(self)
        return SwarmEngine(site) if site.swarm else HostsEngine(site)

    def found(self) -> Engine | None:
        """The engine in which this yard runs, else the one that `up` recorded; None if there was none."""
        recorded = self.record().get("engine")
        if recorded == "hosts":
            return self.hosts
        makers = {"local": self.local, "compose": self.compose}
        for name in sorted(makers, key=lambda name: name != recorded):
            try:
                engine = makers[name]()
                if engine.running():
                    return engine
            except EngineError:
                if name == recorded:
                    raise
        return makers[recorded]() if recorded in makers else None

    def in_containers(self) -> bool:
        """Whether workers see only what is mounted into them."""
        recorded = self.record().get("engine")
        if recorded:
            return bool(recorded != "local")
        engine = self.found()
        return engine is not None and engine.containers

    def engine(self) -> Engine:
        """The engine that runs this yard; raises EngineError if none does."""
        engine = self.found()
        if engine is None or not engine.running():
            raise EngineError(f"no yard runs in {self.path}: start one with 'taskyard up'")
        return engine

    def on(self, host: str) -> Engine:
        """The engine that runs this yard, seen as one of its hosts; "" means all of them."""
        if host and self.record().get("engine") == "hosts":
            return self.hosts.only(host)
        here = socket.gethostname()
        if host not in ("", here, "localhost"):
            raise UsageError(f"--host {host}: this yard has only this host, {here}")
        return self.engine()

    # ------------------------------------------------------------ the master

    def connect(self, patience: float = 0.0, persistent: bool = False) -> "Yard":
        """A connection to the master, which has to answer within `patience` seconds; 0 = what is usual.

        A lost connection may stay lost as long; a persistent one waits for the master for ever.
        """
        from taskyard.client import Yard

        far = self.record().get("engine") == "hosts"
        patience = patience or (FAR_PATIENCE_S if far else PATIENCE_S)
        reconnect = None if persistent else patience
        if far:
            return self.hosts.connect(patience, reconnect)
        return Yard.from_settings(self.settings, label="taskyard", patience=patience, reconnect=reconnect)
