"""Which functions may run, and what is said about those that may not."""

import os
from pathlib import Path

import pytest

from taskyard import functions, scan
from taskyard.errors import FunctionError
from taskyard.scan import Listing

SOURCE = """
import functools, math, os
from math import sqrt
from os.path import join

def square(n): return n * n
square.timeout = 5
def _private(n): return n
async def later(n): return n
class Thing: pass
halve = lambda n: n / 2
@functools.lru_cache
def cached(n): return n
def traced(function):
    @functools.wraps(function)
    def inner(n): return function(n)
    return inner
@traced
def wrapped(n): return n
traced_sqrt = traced(sqrt)
number = 3
"""


def folder_of(tmp_path: Path, **files: str) -> Path:
    for name, content in files.items():
        path = tmp_path / name.replace("__in__", "/")
        path = path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_functions_defined_in_the_folder_are_listed(tmp_path: Path) -> None:
    """Public ones, wrappers of local ones, of modules and packages; nothing imported, no class."""
    folder = folder_of(
        tmp_path, one=SOURCE, two="from one import square\ndef use(n): return square(n)",
        package__in____init__="def top(n): pass", package__in__inner="def deep(n): pass",
        plain__in__inner="def unseen(n): pass", _hidden="def unseen(n): pass",
    )  # fmt: skip
    listing = scan.scan(folder)
    assert listing.faults == {}
    assert set(listing.functions) == {
        "one:square", "one:halve", "one:cached", "one:traced", "one:wrapped", "two:use",
        "package:top", "package.inner:deep",
    }  # fmt: skip
    assert listing.functions["one:square"] == 5.0
    assert listing.functions["one:cached"] == 0.0
    assert listing.digest == functions.digest(folder)


FAULTS = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero (bad.py, line 1)"),
    "missing": (
        "import nosuch",
        "ModuleNotFoundError: No module named 'nosuch' (bad.py, line 1); add its package to requirements.txt",
    ),
    "syntax": ("def f(:", "SyntaxError: invalid syntax (bad.py, line 1)"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3 (bad.py, line 1)"),
    "ends": ("import os\nos._exit(4)", "importing it ended the process (exit code 4)"),
    "crashes": ("import os\nos.kill(os.getpid(), 9)", "importing it ended the process (signal 9)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_module_that_does_not_import_is_named_and_the_others_are_listed(tmp_path: Path, name: str) -> None:
    source, words = FAULTS[name]
    folder = folder_of(tmp_path, aaa="def f(n): pass", bad=source, zzz="print('noise')\ndef g(n): pass")
    listing = scan.scan(folder)
    assert listing.faults == {"bad": words}
    assert set(listing.functions) == {"aaa:f", "zzz:g"}


def test_a_module_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "IMPORT_SECONDS", 0.5)
    folder = folder_of(tmp_path, aaa="import time\ntime.sleep(1000)", bbb="def f(n): pass")
    listing = scan.scan(folder)
    assert list(listing.faults) == ["aaa"]
    assert set(listing.functions) == {"bbb:f"}


def test_a_scan_can_be_given_up(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, aaa="import time\ntime.sleep(1000)")
    assert scan.scan(folder, stopped=lambda: True) == Listing({}, {}, functions.digest(folder))


def test_a_module_that_is_named_like_another_one_says_so(tmp_path: Path) -> None:
    """Of the standard library, or of a package that is there before the folder is."""
    listing = scan.scan(folder_of(tmp_path, struct="def f(n): pass", taskyard="def f(n): pass"))
    assert "rename the file" in listing.faults["struct"]
    assert "rename the file" in listing.faults["taskyard"]


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FunctionError, match="TASKYARD_TASKS_DIR"):
        scan.scan(tmp_path / "none")


def test_an_edit_within_the_same_second_is_seen(tmp_path: Path) -> None:
    """Same size, same time: a cached compilation would be taken for current."""
    folder = folder_of(tmp_path, one="def aaa(n): pass")
    stat = (folder / "one.py").stat()
    assert set(scan.scan(folder).functions) == {"one:aaa"}
    (folder / "one.py").write_text("def bbb(n): pass")
    os.utime(folder / "one.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert set(scan.scan(folder).functions) == {"one:bbb"}
    assert [path.name for path in folder.iterdir()] == ["one.py"], "nothing is written into the user's folder"


def test_the_digest_names_the_content(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, one="a = 1", sub__in__two="b = 2")
    first, stamp = functions.digest(folder), functions.fingerprint(folder)
    assert len(first) == 16
    for ignored in ("notes.txt", ".hidden.d/x.py", "__pycache__/one.py", "env/pyvenv.cfg", "env/x.py"):
        (folder / ignored).parent.mkdir(exist_ok=True)
        (folder / ignored).write_text("new")
    assert functions.digest(folder) == first
    (folder / "requirements.txt").write_text("numpy")
    second = functions.digest(folder)
    assert second != first
    assert functions.fingerprint(folder) != stamp
    assert not functions.unchanged(stamp)
    assert functions.unchanged(functions.fingerprint(folder))
    (folder / "sub/two.py").rename(folder / "sub/three.py")
    assert functions.digest(folder) not in (first, second)


NAMES = {
    "one": "write module:function",
    "one:": "write module:function",
    "onne:square": "has no module onne; did you mean one?",
    "one:sqare": "one.py has no function sqare; did you mean one:square?",
    "one:sqrt": "sqrt is not a function defined in one.py",
    "one:Thing": "is not a function defined in one.py",
    "one:later": "is not a function defined in one.py",
    "one:os": "is not a function defined in one.py",
    "os:system": "has no module os; it has one",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_do_not_resolve_say_why(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, one=SOURCE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(functions.sys.modules, "one", raising=False)
    with pytest.raises(FunctionError) as caught:
        functions.resolve(folder, name)
    assert NAMES[name] in str(caught.value)
    assert functions.resolve(folder, "one:square")(7) == 49
