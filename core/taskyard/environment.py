"""What the tasks need beyond the standard library: `requirements.txt`, installed once for local workers.

An environment is a venv in a folder named by the content of requirements.txt and this
Python, so the same content never needs a network again. It sees the packages of the
Python that runs taskyard, behind its own; those that taskyard works with stay at the
versions that run here, as in an image.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from taskyard.errors import RequirementsError

NAME = "requirements.txt"
KEEP = 3  # environments beside each other: that of an edit, and those before it
_COMPLETE = "complete"  # a file that is written last
_ERROR = re.compile(r"(?:.*: )?error: (.*)", re.IGNORECASE)
_STEP = re.compile(r"(?:#\d+ )?(?:\d+\.\d+ )?")  # BuildKit puts step and second before a line
_MANY = re.compile(r"\(from versions: (?:[^,()]+, )+(?=(?:[^,()]+, ){2}[^,()]+\))")  # but the last three
_COLOUR = re.compile(r"\x1b\[[\d;]*m")

Say = Callable[[str], None]


def requirements(tasks: Path) -> str:
    """The file's text, if it asks for anything: comments alone ask for nothing. Raises RequirementsError."""
    try:
        text = (tasks / NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as fault:
        raise RequirementsError(f"{tasks / NAME} cannot be read: {fault}") from None
    return text if any(asked for _, asked in _asked(text)) else ""


def python_for(tasks: Path, home: Path, say: Say = lambda line: None) -> str:
    """The interpreter for the tasks: this one, or one in `home` that has their requirements.

    Installs what is not there yet, in this process alone if several want it at once; blocks as
    long as that takes. Raises RequirementsError that names the line that failed.
    """
    text = requirements(tasks)
    if not text:
        return sys.executable
    folder = home / _name(text)
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home):
        if not (folder / _COMPLETE).exists():
            say(f"installing {tasks / NAME}")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _install(tasks, text, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        (folder / _COMPLETE).touch()  # used lately
    return str(folder / "bin" / "python")


def there(tasks: Path, home: Path) -> str:
    """The interpreter that `python_for` would give, as far as it is installed: it waits for nothing."""
    with contextlib.suppress(RequirementsError):
        text = requirements(tasks)
        folder = home / _name(text)
        if text and (folder / _COMPLETE).exists():
            return str(folder / "bin" / "python")
    return sys.executable


def prune(home: Path) -> None:
    """Remove all but the environments used last; only while no worker runs."""
    used = sorted(home.glob(f"*/{_COMPLETE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in used[KEEP:]:
        shutil.rmtree(path.parent, ignore_errors=True)


def _name(text: str) -> str:
    return blake2b(f"{sys.version}\0{sys.prefix}\0{text}".encode(), digest_size=8).hexdigest()


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold a lock that ends with this process."""
    lock = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _install(tasks: Path, text: str, folder: Path) -> None:
    bare = ["--without-pip"] if find_spec("pip") else []  # ours is seen from inside
    _run([sys.executable, "-m", "venv", *bare, str(folder)], tasks, text)
    python = str(folder / "bin" / "python")
    place = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
    Path(place, "taskyard-behind.pth").write_text("".join(f"{path}\n" for path in _ours()))
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in _locked()))
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    wanted = ["--constraint", str(constraints), "--requirement", str(tasks / NAME)]
    _run([python, "-m", "pip", "install", *options, *wanted], tasks, text)


def _run(command: list[str], tasks: Path, text: str) -> None:
    environ = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    done = subprocess.run(
        command, cwd=tasks, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RequirementsError(explain(str(tasks / NAME), text, done.stdout))


def _ours() -> list[str]:
    """Where this Python finds packages, its standard library left out: that is the venv's, too."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    own |= {str(Path(path, "lib-dynload")) for path in own if path}
    paths = (
        sys.path if sys.flags.safe_path else sys.path[1:]
    )  # the first is the script's, or the current folder
    return [path for path in paths if path and path not in own and Path(path).is_dir()]


def _locked() -> Iterator[tuple[str, str]]:
    """Name and version of what a worker itself is made of."""
    from importlib import metadata  # takes long, and only the first of all workers needs it

    with contextlib.suppress(metadata.PackageNotFoundError):
        for asked in metadata.requires("taskyard") or []:
            name = re.split(r"[^\w.-]", asked, maxsplit=1)[0]
            with contextlib.suppress(metadata.PackageNotFoundError):
                if "extra ==" not in asked:
                    yield name, metadata.version(name)


# ---------------------------------------------------------------- errors


def explain(path: str, text: str, output: str) -> str:
    """One line: which line of requirements.txt failed, as far as pip's output tells, and why."""
    number, asked, words = failure(text, output)
    where = f"{path}, line {number} ({asked})," if number else path
    return f"{where} cannot be installed: {words}"


def failure(text: str, output: str) -> tuple[int, str, str]:
    """(line number, that line, what pip said) of what failed; the number is 0 where nothing tells it."""
    lines = [_STEP.sub("", line, count=1).rstrip() for line in _COLOUR.sub("", output).splitlines()]
    errors = [(at, found[1]) for at, line in enumerate(lines) if (found := _ERROR.fullmatch(line.strip()))]
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    at, words = errors[0] if errors else (len(lines), said)
    if words.startswith("subprocess-exited-with-error"):
        words = _inner(lines[at:]) or words
    before = [line for line in lines[:at] if line.startswith(("Collecting ", "Processing ", "Obtaining "))]
    number = _line(text, [words, *(error for _, error in errors)], before[-1:])
    return number, dict(_asked(text)).get(number, ""), _MANY.sub("(from versions: ..., ", words).strip()


def _asked(text: str) -> Iterator[tuple[int, str]]:
    """(line number, what it says without its comment), for each line; "" where it asks for nothing."""
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, re.sub(r"(^|\s)#.*", "", line).strip()


def _line(text: str, errors: list[str], before: list[str]) -> int:
    """Which line the errors are about, else the last thing done before them; 0 = nobody knows."""
    for error in errors:
        if found := re.search(r"line (\d+) of ", error):
            return int(found[1])
    for told in (errors, before):
        for number, asked in _asked(text):
            name = (
                asked.split()[-1]
                if asked[:1] in ("-", ".", "/")
                else re.split(r"[^\w.-]", asked, maxsplit=1)[0]
            )
            word = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", re.IGNORECASE)
            if name and any(word.search(line) for line in told):
                return number
    found = re.search(r"\(line (\d+)\)", before[-1]) if before else None
    return int(found[1]) if found else 0


def _inner(lines: list[str]) -> str:
    """The last words of a program that pip ran."""
    end = next((at for at, line in enumerate(lines) if "[end of output]" in line), 0)
    return lines[end - 1].strip(" │") if end else ""
