"""Count and summarise log files on a shared volume: a task is only the path of one file.

    taskyard submit logs:summarise --glob '/usr/share/doc/**/changelog*.gz' --wait | python examples/logs.py

Works on any folder of text or gzip files. The second half of the pipe is the script part of
this module: it reads the JSON lines of `taskyard results` and prints one summary.
"""

import gzip
import json
import re
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any, NoReturn, cast

Summary = dict[str, Any]  # plain data only, so that it travels and prints as JSON

KEPT = 40  # words kept of each file; so the counts of a merge are a close lower bound
HEAD = 8192  # bytes looked at to tell text from binary
PIECE = 1 << 16  # a line is read in pieces of this size, so that none fills the memory

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "|".join(MONTHS)
# Dates where logs and changelogs carry them, not those that a text mentions in passing.
_YEAR = r"(?P<y>19[7-9]\d|20\d\d)"
_DATES = (
    re.compile(rf"\W{{0,2}}{_YEAR}-(?P<m>\d\d)-(?P<d>\d\d)(?!\d)"),  # 2025-06-18 12:00:01 INFO ...
    re.compile(rf" -- .*\w{{3}}, +(?P<d>\d{{1,2}}) (?P<m>{_MONTH}) {_YEAR}"),  # Debian changelog
    re.compile(  # ctime, also in a version control log
        rf"(?:Date: +|\[)?\w{{3}} (?P<m>{_MONTH}) +(?P<d>\d{{1,2}}) [^\]]{{0,30}}?{_YEAR}\b"
    ),
)
_WEB_DATE = re.compile(rf"\[(?P<d>\d\d)/(?P<m>{_MONTH})/{_YEAR}:")  # web server, after the address
_LEVEL = re.compile(
    r"\b(DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
    r"|(?:\[|level=)(debug|info|notice|warn|warning|error|critical|fatal)\b"
    r"|;.*\b(urgency=\w+)"
)
_VERSION = re.compile(r"^[a-z0-9][a-z0-9+.-]* \((?P<version>[^()\s]+)\) [^;]+;")  # Debian changelog
_WORD = re.compile(r"[^\W\d_]{4,}")
_COMMON = """
    also been from have into more only some than that their them then there these they this
    were what when where which will with your
"""
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))


def summarise(path: str) -> Summary:
    """Lines, bytes, dates, versions, levels and most frequent words of one text or gzip file."""
    lines = size = 0
    dates: list[date] = []
    versions: list[str] = []
    levels: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for piece, ends in _pieces(Path(path)):
        lines += ends
        size += len(piece)
        text = _text(piece)
        if found := _date(text):
            dates = [min([*dates, found]), max([*dates, found])]
        if version := _VERSION.match(text):
            versions.append(version["version"])
        if level := _LEVEL.search(text):
            name = next(filter(None, level.groups()))
            levels["WARNING" if name.upper() == "WARN" else name if "=" in name else name.upper()] += 1
        words.update(_WORD.findall(text.lower()))
    for word in _COMMON.split():
        del words[word]
    return {
        "path": str(path),
        "files": 1,
        "lines": lines,
        "bytes": size,
        "first": dates[0].isoformat() if dates else None,
        "last": dates[-1].isoformat() if dates else None,
        "versions": len(versions),
        "newest": versions[0] if versions else None,
        "levels": _ranked(levels),
        "words": _ranked(words, KEPT),
    }


def merge(summaries: Iterable[Summary]) -> Summary:
    """One summary of many; merging in stages or at once gives the same."""
    total: Summary = {"files": 0, "lines": 0, "bytes": 0, "first": None, "last": None, "versions": 0}
    levels: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for each in summaries:
        for key in ("files", "lines", "bytes", "versions"):
            total[key] += each[key]
        total["first"] = min(filter(None, (total["first"], each["first"])), default=None)
        total["last"] = max(filter(None, (total["last"], each["last"])), default=None)
        levels.update(each["levels"])
        words.update(each["words"])
    return {**total, "levels": _ranked(levels), "words": _ranked(words)}


def _pieces(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The file's lines, unpacked; a long one in pieces, of which the last says that the line ends."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: not a regular file; give the paths of text or gzip files")
    try:
        with _opened(path) as file:
            piece = file.readline(PIECE)
            while piece:
                following = file.readline(PIECE)
                yield piece, piece.endswith(b"\n") or not following
                piece = following
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); try `gzip -t` on it") from error


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"  # the content decides, not the name
    file = cast(IO[bytes], (gzip.open if packed else open)(path, "rb"))
    try:
        head = file.read(HEAD)
        if len(head) - len(head.translate(None, _CONTROL)) > len(head) // 50:
            raise ValueError(f"{path}: a binary file; narrow the pattern to text or gzip files")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("latin-1")  # older files; never fails


def _date(line: str) -> date | None:
    matches = [pattern.match(line) for pattern in _DATES]
    if "[" in line:
        matches.append(_WEB_DATE.search(line))
    for found in matches:
        if found:
            month = found["m"]
            try:
                number = MONTHS.index(month) + 1 if month in MONTHS else int(month)
                return date(int(found["y"]), number, int(found["d"]))
            except ValueError:  # the 30th of February: no date
                continue
    return None


def _ranked(counts: Counter[str], most: int | None = None) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])


# ---------------------------------------------------------------- the script


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"logs: {message}\n")
    raise SystemExit(2)


def _read(lines: Iterable[bytes]) -> tuple[list[Summary], list[str]]:
    """The summaries and the failures among the JSON lines of `taskyard results`."""
    done, failed = [], []
    for number, line in enumerate(lines, start=1):
        try:
            outcome = json.loads(line)
            if outcome["state"] == "completed":
                merge([outcome["value"]])  # has everything that a summary has
                done.append(outcome["value"])
            else:
                error = outcome.get("error") or {}
                failed.append(f"task {outcome['index']} {outcome['state']}: {error.get('message', '')}")
        except (ValueError, KeyError, TypeError, AttributeError):
            _stop(
                f"line {number} of the input is no result of logs:summarise; "
                "pipe `taskyard results JOB` of such a job in"
            )
    return done, failed


def _table(done: list[Summary]) -> Iterator[str]:
    total = merge(done)

    def top(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:8]) or "none"

    yield f"{'files':<10}{total['files']:,}"
    yield f"{'lines':<10}{total['lines']:,}"
    yield f"{'bytes':<10}{total['bytes']:,}"
    yield f"{'dates':<10}{total['first']} to {total['last']}" if total["first"] else f"{'dates':<10}none"
    yield f"{'versions':<10}{total['versions']:,}"
    yield f"{'levels':<10}{top(total['levels'])}"
    yield f"{'words':<10}{top(total['words'])}"
    yield ""
    yield f"{'lines':>10}  {'bytes':>12}  {'first':<10}  {'last':<10}  longest files"
    for each in sorted(done, key=lambda one: (-one["lines"], one["path"]))[:10]:
        first, last = each["first"] or "", each["last"] or ""
        yield f"{each['lines']:>10,}  {each['bytes']:>12,}  {first:<10}  {last:<10}  {each['path']}"


def _main() -> int:
    if sys.stdin.isatty():
        _stop("nothing to read; pipe `taskyard results JOB` in")
    done, failed = _read(line for line in sys.stdin.buffer if line.strip())
    if done:
        text = "\n".join(_table(done)) + "\n"
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    for line in failed[:10]:
        sys.stderr.write(f"logs: {line}\n")
    if len(failed) > 10:
        sys.stderr.write(f"logs: and {len(failed) - 10} more\n")
    if not done and not failed:
        _stop("no results in the input; did the job find any file?")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
