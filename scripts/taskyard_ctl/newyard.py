"""What `taskyard init` makes: `.env` with a random key, a tasks folder, a data folder. Never overwrites."""

import secrets
from pathlib import Path

from taskyard.errors import UsageError
from taskyard.settings import REGISTRY
from taskyard_ctl import envfile
from taskyard_ctl.inventory import EXAMPLE
from taskyard_ctl.ports import first_free
from taskyard_ctl.yard import YardFolder

KEY_BYTES = 32
HOSTS = "hosts.toml"
PORTS = range(5002, 5100)
WEB_PORTS = range(8585, 8685)

_HEAD = """\
# This yard, as seen from this machine. A shell can source it, compose reads it, and all TASKYARD_ settings
# may stand here: docs/settings.md explains them. Key and token are secrets: keep them out of version control.
"""
_REQUIREMENTS = """\
# What the tasks need beyond Python's standard library, one package a line.
# It is installed once: into the image of workers in containers, into a venv for those that are processes.
"""
_EXAMPLE = '''\
"""Functions that the yard may run: those of this folder, by name, as module:function.

    taskyard run squares:square --range 0:10
"""


def square(n: int) -> int:
    """n times n."""
    return n * n
'''


def make(folder: YardFolder, tasks: str = "", data: str = "", hosts: bool = False) -> list[str]:
    """Make what is missing, with `hosts` also hosts.toml; returns a line a thing for people."""
    made = []
    if hosts and not (folder.path / HOSTS).exists():
        (folder.path / HOSTS).write_text(EXAMPLE.read_text())
        made.append(f"made {HOSTS}, an example for 'taskyard deploy' to several hosts")
    tasks_dir = tasks or folder.environ.get("TASKYARD_TASKS_DIR") or _tasks(folder.path)
    made += _make_tasks(folder.path / tasks_dir, tasks_dir)
    data_dir = Path(data or folder.environ.get("TASKYARD_DATA_DIR") or "data").expanduser()
    data_path = folder.path / data_dir
    if not data_path.exists():
        data_path.mkdir(parents=True)
        made.append(f"made {data_dir}/ for files that tasks read (TASKYARD_DATA_DIR)")
    values = {
        "TASKYARD_ADDRESS": f"127.0.0.1:{first_free('127.0.0.1', PORTS)}",
        "TASKYARD_AUTHKEY": secrets.token_hex(KEY_BYTES),
        "TASKYARD_TASKS_DIR": tasks_dir if Path(tasks_dir).is_absolute() else f"./{Path(tasks_dir)}",
        "TASKYARD_DATA_DIR": str(data_path),
        "TASKYARD_WORKERS": next(s.default for s in REGISTRY if s.name == "WORKERS"),
        "TASKYARD_WEB": f"127.0.0.1:{first_free('127.0.0.1', WEB_PORTS)}",
        "TASKYARD_WEB_TOKEN": secrets.token_urlsafe(24),
    }
    made.append(_make_env(folder, values))
    return made


def _make_env(folder: YardFolder, values: dict[str, str]) -> str:
    path = folder.env_file
    there = envfile.read(path)
    missing = {name: value for name, value in values.items() if name not in there}
    for secret in ("TASKYARD_AUTHKEY", "TASKYARD_WEB_TOKEN"):
        if secret + "_FILE" in there:
            missing.pop(secret, None)
    folder.reread()
    if not path.exists():
        envfile.write(path, _HEAD)
        for name, value in missing.items():
            envfile.put(path, name, value)
        return f"made {path.name} with a new key"
    if not missing:
        return f"kept {path.name}, which has everything"
    for name, value in missing.items():
        envfile.put(path, name, value)
    hint = "; others may read it: chmod 600 .env" if path.stat().st_mode & 0o077 else ""
    return f"kept {path.name}, and added {', '.join(missing)}{hint}"


def _tasks(folder: Path) -> str:
    """A folder that is there already, else a new one."""
    there = [name for name in ("tasks", "examples") if any((folder / name).glob("*.py"))]
    return there[0] if there else "tasks"


def _make_tasks(path: Path, shown: str) -> list[str]:
    if path.exists() and not path.is_dir():
        raise UsageError(f"tasks folder {path} is no folder: name another with --tasks")
    made = []
    if not path.exists():
        path.mkdir(parents=True)
        (path / "squares.py").write_text(_EXAMPLE)
        made.append(f"made {shown}/ with an example, squares.py")
    requirements = path / "requirements.txt"
    if not requirements.exists():
        requirements.write_text(_REQUIREMENTS)
        if not made:
            made.append(f"made {shown}/requirements.txt")
    return made
