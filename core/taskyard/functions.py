"""Which functions may run: those defined in the modules of the tasks folder, and no others.

A function is named "module:function". Modules are the files of the folder, and those
of its packages as "package.module:function"; names that begin with "_" are private. A
function that a module only imports does not count: that a module imports `os` must
not let anybody run `os:system`. What a decorator made of a local function counts.

Importing runs the code of users, so an agent or a command never does it: see scan.py.
This module is part of what a slot waits for when it starts, so it imports little.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from taskyard.errors import FunctionError

Stamp = tuple[tuple[str, int, int], ...]  # of each folder and file: path, modification time in ns, size
_COROUTINE = 0x80 | 0x200  # code flags of `async def`, with and without yield

# ---------------------------------------------------------------- the folder


def modules(folder: Path) -> dict[str, Path]:
    """The importable modules of a folder, by their dotted names; raises FunctionError if there is none."""
    found = {}
    for path in _files(folder):
        parts = list(path.relative_to(folder).with_suffix("").parts)
        packages = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts) - 1)]
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        public = all(part.isidentifier() and not part.startswith("_") for part in parts)
        if path.suffix == ".py" and public and all((p / "__init__.py").exists() for p in packages):
            found[".".join(parts)] = path
    return found


def digest(folder: Path) -> str:
    """16 hex digits that name the content of all modules and requirements.txt of a folder."""
    result = blake2b(digest_size=8)
    for path in _files(folder):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        result.update(b"%d %s %d\n" % (len(name), os.fsencode(name), len(content)) + content)
    return result.hexdigest()


def fingerprint(folder: Path) -> Stamp:
    """What changes whenever `digest` does, and is cheap enough to look at every second."""
    stats = []
    for path, _ in _walk(folder):
        stat = path.stat()
        stats.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(stats)


def unchanged(stamp: Stamp) -> bool:
    """Whether the same files and folders are as they were, a few microseconds each; () never is."""
    try:
        for path, changed, size in stamp:
            stat = os.stat(path)  # noqa: PTH116 - twice as quick as that of a Path
            if stat.st_mtime_ns != changed or stat.st_size != size:
                return False
    except OSError:
        return False
    return bool(stamp)


def _files(folder: Path) -> Iterator[Path]:
    """Modules and requirements.txt, sorted; without hidden folders, caches and virtual environments."""
    return (path for path, is_file in _walk(folder) if is_file)


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The same with the folders that they are in; whether it is a file."""
    if not folder.is_dir():
        raise FunctionError(
            f"there is no tasks folder {folder}: set TASKYARD_TASKS_DIR, or run 'taskyard init' for a new one"
        )
    for root, folders, names in os.walk(folder):
        here = Path(root)
        hidden = {n for n in folders if n.startswith((".", "__")) or (here / n / "pyvenv.cfg").exists()}
        folders[:] = sorted(set(folders) - hidden)
        yield here, False
        for name in sorted(names):
            if name.endswith(".py") or (name == "requirements.txt" and here == folder):
                yield here / name, True


# ---------------------------------------------------------------- in the process that imports


class _Loader(SourceFileLoader):
    """Compiles from source each time: a cached compilation of a file edited in the same second is stale."""

    def path_stats(self, path: Any) -> Any:
        raise OSError

    def set_data(self, path: Any, data: Any, *, _mode: int = 0o666) -> None:
        """Write no cache into the user's folder."""


def open_folder(folder: Path) -> None:
    """Let this process import the folder's modules, before all others of the same names."""
    root = str(folder)
    finder = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, [".py"]))

    def hook(path: str) -> FileFinder:
        if path != root and not path.startswith(root + os.sep):
            raise ImportError
        return finder(path)  # type: ignore[return-value]

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, root)


def resolve(folder: Path, name: str) -> Callable[..., Any]:
    """The function of this name; raises FunctionError that says why there is none, and what is near.

    Where the module does not import, the error's cause is what it raised.
    """
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise FunctionError(f"{name!r} names no function: write module:function")
    known = modules(folder)
    if module not in known:
        raise FunctionError(f"{name}: {folder} has no module {module}" + _near(module, known))
    functions = public(load(folder, module))
    if function in functions:
        return functions[function]
    if hasattr(sys.modules[module], function):
        raise FunctionError(
            f"{name}: {function} is not a function defined in {known[module].name}; only those may run:"
            " define one there that calls it"
        )
    full = {f"{module}:{known}" for known in functions}
    raise FunctionError(f"{name}: {known[module].name} has no function {function}" + _near(name, full))


def load(folder: Path, module: str) -> ModuleType:
    """Import a module of the folder; raises FunctionError, with what the module raised as its cause."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise FunctionError(f"module {module} of {folder} has the name of one of Python's: rename the file")
    try:
        loaded = importlib.import_module(module)
    except BaseException as error:  # sys.exit() in a module included: no reason to end the process
        raise FunctionError(f"module {module} of {folder} cannot be imported: {_words(error)}") from error
    file = getattr(loaded, "__file__", None) or "built into Python"
    if not Path(file).is_relative_to(folder):
        raise FunctionError(f"module {module} of {folder} has the name of another ({file}): rename the file")
    return loaded


def public(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions defined in a module, and wrappers of them, by their names."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and _is_local(value, module.__name__)
    }


def timeout(function: Callable[..., Any]) -> float:
    """The seconds that a function asks for (`square.timeout = 5`); 0 = no limit of its own."""
    value = getattr(function, "timeout", 0)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def _is_local(value: Any, module: str) -> bool:
    for _ in range(100):  # of wrappers around wrappers
        if not hasattr(value, "__wrapped__"):
            break
        value = value.__wrapped__
    if not isinstance(value, FunctionType) or value.__code__.co_flags & _COROUTINE:
        return False
    return value.__module__ == module


def _near(name: str, names: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    listed = ", ".join(sorted(names)[:10])
    return f"; it has {listed}" if listed else ""


def _words(error: BaseException) -> str:
    """An exception of an import in one line, with the place and the cure where they are known."""
    text = str(error).partition("\n")[0]
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None and not isinstance(error, SyntaxError) and "<frozen" not in str(frame.tb_frame):
        words += f" ({Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno})"
    if isinstance(error, ModuleNotFoundError):
        words += "; add its package to requirements.txt"
    return words
