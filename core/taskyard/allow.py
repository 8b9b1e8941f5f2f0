"""Which classes a value from the network may be of, and what an unpickler gets for their names.

A pickle says by name what to call; everything that it can do begins with a name. `Allow.find`
answers a name only if what it stands for is harmless to call with any arguments: it builds data,
and neither imports, opens, starts nor looks up anything that the pickle chooses. On the list are

- plain data of the standard library: dates, numbers, paths, collections, UUID;
- exceptions, so that the error of a task comes back as what it was;
- what `TASKYARD_ALLOW` or the caller adds: "module.Name", "module.Outer.Inner", or "module.*" for
  every class that the module itself defines. "numpy.ndarray" brings what arrays need; numpy reads
  the state of its types without much suspicion, so list it only where the peers are trusted.

A hostile peer can still waste memory and time of the process that reads its values (a set of a
long range, say), as it could by answering nothing at all; it cannot run code there.
"""

from collections.abc import Iterable
from enum import EnumMeta
from importlib import import_module
from types import ModuleType
from typing import Any

from taskyard.errors import PayloadError

_DATA = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "uuid": "UUID",
    "zoneinfo": "ZoneInfo",
}
# What functions often raise, besides the exceptions of two modules as a whole; constructors that
# only keep their arguments.
_EXCEPTIONS = {
    "_queue": "Empty",
    "concurrent.futures._base": "CancelledError TimeoutError",
    "decimal": "DivisionByZero InvalidOperation Overflow",
    "json.decoder": "JSONDecodeError",
    "queue": "Empty Full",
    "struct": "error",
    "subprocess": "CalledProcessError TimeoutExpired",
    "zlib": "error",
}
_EXCEPTION_MODULES = ("builtins", "taskyard.errors")
_STANDARD = frozenset(
    (module, name)
    for table in (_DATA, _EXCEPTIONS)
    for module, names in table.items()
    for name in names.split()
)
_MOVED = {"__builtin__": "builtins", "exceptions": "builtins", "pathlib._local": "pathlib"}
# Arrays are rebuilt by functions, under other module names before numpy 2.
_NUMPY = frozenset(
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
) | {"numpy.dtype", "numpy.ndarray"}
_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


class Allow:
    """A list of allowed names; make one and keep it, it remembers what it found.

    `names` holds text as in TASKYARD_ALLOW, or the classes themselves.
    """

    def __init__(self, names: Iterable[str | type] = ()) -> None:
        listed = [n if isinstance(n, str) else f"{n.__module__}.{n.__qualname__}" for n in names]
        self._modules = frozenset(name[:-2] for name in listed if name.endswith(".*"))
        self._names = frozenset(listed)
        self._functions = _NUMPY if "numpy.ndarray" in self._names else frozenset()
        self._found: dict[tuple[str, str], tuple[Any, bool]] = {}

    def plus(self, kind: type) -> "Allow":
        """The same list and one class more."""
        return Allow((*self._names, kind))

    def find(self, module: str, name: str) -> tuple[Any, bool]:
        """Return what the name stands for, and whether it is steady; raises PayloadError.

        Steady: no pickle can change it. BUILD, the opcode that sets the state of what lies on
        the stack, sets attributes of a class that was written in Python, too.
        """
        try:
            return self._found[module, name]
        except KeyError:
            found = self._look_up(_MOVED.get(module, module), name)
            self._found[module, name] = found, _steady(found)
            return self._found[module, name]

    def _look_up(self, module: str, name: str) -> Any:
        if module == "builtins" and name == "getattr":  # how pickle writes an attribute of a class
            return _Attribute(self)
        listed = (module, name) in _STANDARD
        if listed or module in _EXCEPTION_MODULES:
            known = getattr(import_module(module), name, None)
            if isinstance(known, type) and (listed or issubclass(known, Exception)):
                return known
        function = f"{module}.{name}" in self._functions
        if function or self._lists(module, name):
            found: Any = _load(module)
            for part in name.split("."):  # from class to nested class, never through anything else
                found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
                if isinstance(found, ModuleType):
                    found = None
            if found is not None and (function or self._admits(found, module, name)):
                return found
        entry = "numpy.ndarray" if module.startswith("numpy.") else f"{module}.{name}"
        raise PayloadError(
            f"a value of type {module}.{name} is not taken from the network: send plain data instead,"
            f" or add {entry} to TASKYARD_ALLOW"
        )

    def _lists(self, module: str, name: str) -> bool:
        return f"{module}.{name}" in self._names or module in self._modules

    def _admits(self, found: Any, module: str, name: str) -> bool:
        """A class, not one that makes classes, and of a whole module only what was defined there."""
        if not isinstance(found, type) or issubclass(found, type):
            return False
        return f"{module}.{name}" in self._names or found.__module__ == module


class _Attribute:
    """Stands in for `getattr` in pickles: nested classes that are allowed, enum members, time zones."""

    __slots__ = ("_allow",)

    def __init__(self, allow: Allow) -> None:
        self._allow = allow

    def __setstate__(self, state: object) -> None:
        raise PayloadError("a value tries to change what reads it: whoever sent it is not to be trusted")

    def __call__(self, owner: Any, name: str) -> Any:
        if isinstance(owner, type) and isinstance(name, str):
            module = owner.__module__
            if module == "zoneinfo" and owner.__qualname__ == "ZoneInfo" and name == "_unpickle":
                return owner._unpickle  # type: ignore[attr-defined]
            if isinstance(owner, EnumMeta) and name in owner.__members__:
                return owner[name]
            return self._allow.find(module, f"{owner.__qualname__}.{name}")[0]
        raise PayloadError("a value asks for an attribute of something that is no class: it is not read")


def _load(module: str) -> ModuleType:
    try:
        return import_module(module)
    except Exception as error:  # the module is the user's, and may raise anything
        raise PayloadError(
            f"a value needs the module {module}, which cannot be imported here: {error}"
        ) from error


def _steady(found: Any) -> bool:
    """Whether BUILD can change it: built-in classes can't be, and `__setstate__` is called instead."""
    if isinstance(found, type):
        return bool(found.__flags__ & _IMMUTABLE) or hasattr(found, "__setstate__")
    return isinstance(found, _Attribute)


STANDARD = Allow()
