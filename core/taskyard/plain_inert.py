"""What stands for an object of a class in plain values: a note of how to make it, never made here.

A stdlib peer may put a date, a path or a Decimal on a queue. The master neither imports nor calls
anything for it: it keeps what the pickle says, as an `Inert`, and says the same to whoever gets
the value. Which names it passes on, and in which forms, is decided here. The forms matter to the
receiver, which does make the object: `bytearray(10**12)` or `Fraction("1e999999999")` is refused.
"""

import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taskyard.errors import PayloadError, ProtocolError

Name = tuple[str, str]  # module, qualified name


def malformed(what: str) -> ProtocolError:
    """Return the error for bytes that no Python sends."""
    return ProtocolError(
        f"what the peer sent is no pickle that Python makes ({what}): the connection is dropped"
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Inert:
    """A class by name (`args` is None), or an object as the call that makes it.

    args, kwargs  of the call; `new` calls `cls.__new__(cls, ...)` in place of the callable
    items         what is then appended to it
    pairs         what is then set in it: key, value, key, value, ...
    state         what is then given to its `__setstate__`; None: nothing

    Two are equal only if they are the same, so that comparing and hashing never look inside.
    """

    module: str
    name: str
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    new: bool = False
    items: list[Any] | None = None
    pairs: list[Any] | None = None
    state: Any = None

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, unopened>"

    def parts(self) -> Iterator[Any]:
        """Everything that it holds."""
        yield from self.args or ()
        for part in (self.kwargs, self.items, self.pairs, self.state):
            if part is not None:
                yield part


PRIMITIVES = frozenset((str, int, bytes, float, bool, type(None)))
_KEY_ARGS = 16  # an object of more parts is no key
_FRACTION = re.compile(r"-?[0-9]+(/[0-9]+)?", re.ASCII).fullmatch
_PUBLIC = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII).fullmatch
_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
# Old names of modules, as protocol 2 and Python 3.13 write them.
_MOVED = {"__builtin__": "builtins", "exceptions": "builtins", "pathlib._local": "pathlib"}

# Called by pickles to make something else; they never travel by themselves.
_ENCODE = ("_codecs", "encode")  # protocol 2 writes bytes as a call of it
_GETATTR = ("builtins", "getattr")  # enum members and time zones are an attribute of their class
_ZONE, _FROM_KEY = ("zoneinfo", "ZoneInfo"), ("zoneinfo", "ZoneInfo._unpickle")

# The argument types with which each name may be called. `...` as the last: any number of the one before.
_FORMS: dict[Name, tuple[tuple[Any, ...], ...]] = {
    ("builtins", "complex"): ((float, float),),
    ("builtins", "range"): ((int, int, int),),
    ("builtins", "slice"): ((object, object, object),),
    ("collections", "Counter"): ((), (dict,)),
    ("collections", "OrderedDict"): ((),),
    ("collections", "defaultdict"): ((), (Inert,)),
    ("collections", "deque"): ((), (tuple,), (tuple, int)),
    ("datetime", "date"): ((bytes,),),
    ("datetime", "datetime"): ((bytes,), (bytes, Inert)),
    ("datetime", "time"): ((bytes,), (bytes, Inert)),
    ("datetime", "timedelta"): ((int, int, int),),
    ("datetime", "timezone"): ((Inert,), (Inert, str)),
    ("decimal", "Decimal"): ((str,),),
    ("fractions", "Fraction"): ((int, int), (str,)),
    ("uuid", "UUID"): ((),),
    _FROM_KEY: ((str, int), (str, bool)),
    **{("pathlib", name): ((str, ...),) for name in _PATHS},
}
# Exceptions keep their arguments and do nothing else with them.
_EXCEPTIONS = frozenset(
    ("builtins", name)
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, Exception)
) | {
    ("_queue", "Empty"),
    ("concurrent.futures._base", "CancelledError"),
    ("concurrent.futures._base", "TimeoutError"),
    ("decimal", "DivisionByZero"),
    ("decimal", "InvalidOperation"),
    ("decimal", "Overflow"),
    ("json.decoder", "JSONDecodeError"),
    ("queue", "Empty"),
    ("queue", "Full"),
    ("struct", "error"),
    ("subprocess", "CalledProcessError"),
    ("subprocess", "TimeoutExpired"),
    ("zlib", "error"),
}
# Classes that are made into real data at once, and those that may stand in a defaultdict.
_NATIVE = frozenset(("builtins", name) for name in ("bytearray", "bytes", "frozenset", "set"))
HELPERS = frozenset((_ENCODE, _GETATTR))
_FACTORIES = _NATIVE | {
    ("builtins", name) for name in ("bool", "dict", "float", "int", "list", "str", "tuple")
}
_KNOWN = frozenset(_FORMS) | _EXCEPTIONS | _FACTORIES | {_ENCODE, _GETATTR, _ZONE}
# numpy pickles arrays by these; listing numpy.ndarray means them too.
_NUMPY = frozenset(
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
) | {"numpy.dtype", "numpy.ndarray"}


def _lists(allow: frozenset[str], name: Name) -> bool:
    """Whether the user listed the name: "module.Name" or "module.Outer.Inner".

    "module.*" says nothing here: it means the classes of a module, and what is a class, and not a
    function that the receiver would call, can be told only by importing it.
    """
    full = f"{name[0]}.{name[1]}"
    return full in allow or (full in _NUMPY and "numpy.ndarray" in allow)


def named(module: Any, name: Any, allow: frozenset[str]) -> Inert:
    """Return what stands for a name in a pickle; raises PayloadError if it is not to be passed on."""
    if type(module) is not str or type(name) is not str:
        raise malformed("a name that is no text")
    module = _MOVED.get(module, module)
    if (module, name) in _KNOWN or _lists(allow, (module, name)):
        return Inert(module, name)
    raise PayloadError(
        f"a value of type {_shown(module)}.{_shown(name)} is not taken from the network: send plain data"
        " (numbers, text, bytes, lists, tuples, dicts, sets, dates, Decimal, UUID, paths), or add it to"
        " TASKYARD_ALLOW by its full name (module.Name, separated by commas)"
    )


def _shown(name: str) -> str:
    """A peer's text, harmless in a log: short, on one line, printable."""
    return ascii(name[:80])[1:-1]


def called(function: Any, args: Any, kwargs: Any, new: bool, allow: frozenset[str]) -> Any:
    """Return what stands for a call: an Inert, or the data itself where that is plain."""
    if type(function) is not Inert or type(args) is not tuple:
        raise malformed("a call of what is no class")
    name = (function.module, function.name)
    simple = not new and kwargs is None
    if function.args is not None:
        if name != _GETATTR or function.args[1] != "_unpickle" or not simple:
            raise malformed("a call of what is no class")
        name = _FROM_KEY  # getattr lets no other `_unpickle` through
    if name in _NATIVE or name == _ENCODE:
        if simple:
            return _native(name, args)
    elif name in _KNOWN:
        if (simple or (kwargs is None and name != _GETATTR)) and _fits(name, args, allow):
            return Inert(*name, args, None, new)
    elif _lists(allow, name):
        return Inert(*name, args, kwargs, new)
    raise _form(name)


def _form(name: Name) -> PayloadError:
    return PayloadError(
        f"a value of type {name[0]}.{name[1]} is in a form that does not travel: send plain data"
    )


def _fits(name: Name, args: tuple[Any, ...], allow: frozenset[str]) -> bool:
    if name in _EXCEPTIONS:
        return True
    if name == _GETATTR:
        return _is_attribute(args, allow)
    kinds = tuple(map(type, args))
    for form in _FORMS.get(name, ()):
        if form[-1:] == (...,):
            if all(kind is form[0] for kind in kinds):
                return True
        elif len(form) == len(kinds) and all(
            want in (kind, object) for want, kind in zip(form, kinds, strict=True)
        ):
            break
    else:
        return False
    if name[1] == "Fraction":
        return kinds != (str,) or _FRACTION(args[0]) is not None
    if name[1] == "deque":
        return args[:1] in ((), ((),))
    if name[1] == "defaultdict" and args:
        factory = (args[0].module, args[0].name)
        return args[0].args is None and (factory in _FACTORIES or _lists(allow, factory))
    if name[1] == "slice":
        return all(kind in PRIMITIVES for kind in kinds)
    return True


def _is_attribute(args: tuple[Any, ...], allow: frozenset[str]) -> bool:
    """Whether it is an attribute of a class that the user listed, or what time zones are made by."""
    if len(args) != 2 or type(args[0]) is not Inert or args[0].args is not None or type(args[1]) is not str:
        return False
    owner = (args[0].module, args[0].name)
    return (owner, args[1]) == (_ZONE, "_unpickle") or (_lists(allow, owner) and _PUBLIC(args[1]) is not None)


def _native(name: Name, args: tuple[Any, ...]) -> Any:
    """Make bytes, bytearrays and sets as older protocols write them; the caller checks a set's members."""
    kinds = tuple(map(type, args))
    if name == _ENCODE and kinds == (str, str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin-1")
    if name[1] == "bytes" and not args:
        return b""
    if name[1] == "bytearray" and kinds in ((), (bytes,)):
        return bytearray(*args)
    if name[1] == "bytearray" and kinds == (str, str) and args[1] in ("latin1", "latin-1"):
        return bytearray(args[0].encode("latin-1"))
    if name[1] in ("set", "frozenset") and kinds in ((), (list,)):
        return Members(args[0] if args else [], name[1] == "frozenset")
    raise _form(name)


@dataclass(frozen=True, slots=True)
class Members:
    """A set that is still to be checked and made."""

    items: list[Any]
    frozen: bool


def takes(target: Inert, what: str, allow: frozenset[str]) -> None:
    """Check that `target` may be given "items", "pairs" or a "state"; raises PayloadError."""
    name = (target.module, target.name)
    if target.args is None or (what == "state" and target.state is not None):
        raise malformed("a change to what is no object")
    if _lists(allow, name) and name not in _KNOWN:
        return
    if what == "items" and name == ("collections", "deque"):
        return
    if what == "pairs" and name in (("collections", "OrderedDict"), ("collections", "defaultdict")):
        return
    if what == "state" and (name == ("uuid", "UUID") or name in _EXCEPTIONS):
        return
    raise _form(name)


def is_key(node: Inert) -> bool:
    """Whether it may be a key of a dict or a member of a set: small, and of primitive parts."""
    for _ in range(3):  # a datetime has a timezone has a timedelta, and no known type goes deeper
        args, state = node.args or (), node.state or {}
        if node.items is not None or node.pairs is not None or node.kwargs is not None:
            return False
        if type(state) is not dict or len(args) > _KEY_ARGS or len(state) > _KEY_ARGS:
            return False
        inner = [part for part in (*args, *state.values()) if type(part) not in PRIMITIVES]
        if not inner:
            return True
        if len(inner) > 1 or type(inner[0]) is not Inert:
            return False
        node = inner[0]
    return False
