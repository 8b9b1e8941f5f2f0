"""The `.env` of a yard: lines that a shell can source and compose can read, changed one at a time."""

import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from taskyard.errors import SettingsError

NAME = ".env"
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PIECE = r"'[^']*'|\"(?:\\.|[^\"\\])*\"|(?:\\.|[^\s'\"\\])+"  # in single quotes, in double ones, or plain
_VALUE = re.compile(rf"((?:{_PIECE})*)(?:\s+#.*|\s*)")
_SPECIAL = re.compile(r"\\(.)|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


def read(path: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the file, none if there is no file; raises SettingsError with the line's number.

    `$NAME` means what it means to a shell, unless the value stands in single quotes.
    """
    environ = os.environ if environ is None else environ
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as fault:
        raise SettingsError(f"{path} cannot be read: {fault}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SettingsError(f"{path}, line {number}: write NAME=value, or # before a comment")
        name, raw = match.groups()
        value = _VALUE.fullmatch(raw)
        if value is None:
            raise SettingsError(
                f"{path}, line {number}: {name}: put a value with spaces in quotes, with none before them"
            )
        values[name] = _plain(value[1], {**environ, **values})
    return values


def _plain(raw: str, variables: Mapping[str, str]) -> str:
    """A value as a shell understands it."""

    def special(match: re.Match[str]) -> str:
        escaped, *names = match.groups()
        if escaped is None:
            return variables.get(names[0] or names[1], "")
        return escaped if not quoted or escaped in '$`"\\' else match[0]

    parts = []
    for piece in re.findall(_PIECE, raw):
        quoted = piece.startswith('"')
        if piece.startswith("'"):
            parts.append(piece[1:-1])
        else:
            parts.append(_SPECIAL.sub(special, piece[1:-1] if quoted else piece))
    return "".join(parts)


def put(path: Path, name: str, value: str) -> None:
    """Change the one line that sets `name`, or add it; everything else stays as it is."""
    lines = path.read_text().splitlines()
    places = [i for i, line in enumerate(lines) if (m := _LINE.fullmatch(line)) and m[1] == name]
    line = f"{name}={shlex.quote(value)}"
    if not places:
        lines.append(line)
    elif lines[places[-1]] == line:
        return
    else:
        lines[places[-1]] = line  # the last one is what counts
    write(path, "\n".join(lines) + "\n", path.stat().st_mode & 0o777)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a whole file at once: a reader sees the old one or the new one, and nobody else the key."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, mode)
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
