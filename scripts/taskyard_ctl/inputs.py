"""From the options of `submit` to its inputs: one item a task, read only as fast as it is submitted.

A line is a string without its newline. As JSON, a list is positional arguments, an object
is keywords, and anything else is the one argument: such items are calls, (args, kwargs).
A path has to lie where workers see it.
"""

import fnmatch
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from taskyard.errors import UsageError

_MAGIC = re.compile(r"[*?[]")
Call = tuple[tuple[Any, ...], dict[str, Any]]
Check = Callable[[str], None]  # of a path; raises UsageError


def of_range(text: str) -> range:
    """A:B as in Python: from A up to, not including, B."""
    match = re.fullmatch(r"(-?\d[\d_]*)?:(-?\d[\d_]*)", text)
    if match is None:
        raise UsageError(f"--range {text}: write A:B, two whole numbers, for instance 0:10")
    return range(int(match[1] or 0), int(match[2]))


def of_arguments(texts: Iterable[str]) -> list[Call]:
    """One call for each --arg."""
    return [_json(text, f"--arg {text}") for text in texts]


def of_lines(name: str, check: Check) -> Iterator[str]:
    """One task a line of a file, or of stdin for "-"."""
    return _lines(_opened(name), name, check)


def of_json_lines(name: str) -> Iterator[Call]:
    """One call a line of JSON; empty lines are skipped."""
    return _json_lines(_opened(name), name)


def _opened(name: str) -> IO[bytes]:
    """Opened before there is a job: a file that is missing makes none."""
    try:
        return sys.stdin.buffer if name == "-" else open(name, "rb")
    except OSError as fault:
        raise UsageError(f"--input {name}: {fault.strerror}") from None


def _lines(file: IO[bytes], name: str, check: Check) -> Iterator[str]:
    with file:
        for number, line in enumerate(file, start=1):
            text = _text(line, f"{name}, line {number}")
            if text.startswith("/") and os.path.isfile(text):  # noqa: PTH113 - once a line
                check(text)
            yield text


def _json_lines(file: IO[bytes], name: str) -> Iterator[Call]:
    with file:
        for number, line in enumerate(file, start=1):
            where = f"{name}, line {number}"
            if text := _text(line, where).strip():
                yield _json(text, where)


def of_glob(pattern: str, check: Check) -> Iterator[str]:
    """The absolute paths of the files that match, folder by folder in order; `**` is any depth."""
    full = Path(os.path.abspath(Path(pattern).expanduser()))  # noqa: PTH100 - does not follow links
    fixed = next((i for i, part in enumerate(full.parts) if _MAGIC.search(part)), len(full.parts))
    base, parts = Path(*full.parts[:fixed]), full.parts[fixed:]
    if parts and not base.is_dir():
        raise UsageError(f"--glob {pattern}: there is no folder {base}")
    check(str(base))
    return _matching(str(base), parts)


def _matching(base: str, parts: Sequence[str]) -> Iterator[str]:
    if not parts:
        if os.path.isfile(base):  # noqa: PTH113 - once a file, as text
            yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matching(base, rest or ["*"])
    elif not _MAGIC.search(part):
        yield from _matching(f"{base.rstrip(os.sep)}{os.sep}{part}", rest)
        return
    for entry in _entries(base, hidden=part.startswith(".")):
        if part == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _matching(entry.path, parts)
        elif fnmatch.fnmatchcase(entry.name, part):
            yield from _matching(entry.path, rest)


def _entries(folder: str, hidden: bool) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if hidden or not entry.name.startswith(".")]
    except OSError:
        return []  # not a folder, or not for us
    return sorted(entries, key=lambda entry: entry.name)


def seen_by_workers(data_dir: str, containers: Callable[[], bool]) -> Check:
    """A check that a path is one that every worker sees under the same name."""

    inside: list[bool] = []  # asked once, and only if there is a path

    def check(path: str) -> None:
        if not inside:
            inside.append(containers())
        if not inside[0]:
            return
        if not data_dir:
            raise UsageError(
                f"{path}: workers in containers see no files: name a folder in TASKYARD_DATA_DIR"
            )
        if not Path(os.path.normpath(path)).is_relative_to(data_dir):
            raise UsageError(
                f"{path}: is not inside TASKYARD_DATA_DIR ({data_dir}), all that workers can read"
            )

    return check


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode().rstrip("\n").removesuffix("\r")
    except UnicodeDecodeError as fault:
        raise UsageError(f"{where}: is not UTF-8 ({fault.reason} at byte {fault.start})") from None


def _json(text: str, where: str) -> Call:
    try:
        value = json.loads(text)
    except ValueError as fault:
        hint = """; a string needs quotes: '"..."'""" if re.fullmatch(r"[\w./ -]+", text) else ""
        raise UsageError(f"{where}: is not JSON ({fault}){hint}") from None
    if isinstance(value, list):
        return tuple(value), {}
    return ((), value) if isinstance(value, dict) else ((value,), {})
