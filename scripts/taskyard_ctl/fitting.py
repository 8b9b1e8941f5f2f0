"""Tables that fit: numbers are never cut; text is, and then whole columns go, the least important first."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

SHORTEST = 12  # columns, to which text is cut before a column goes
GAP = 2

Row = dict[str, str | Text]


def table(*columns: Column | str, header: bool = True) -> Table:
    return Table(
        *columns, box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0), show_header=header
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """Rows by column name, laid out once the width is known.

    names   the columns in order, written "<name" for text that may be cut, ">name" for a number
    always  columns that are shown though empty or 0 in every row; others are not
    drop    columns that go where it is too narrow, the first one first
    below   a text column that, where it is too narrow, is told beneath, in a line that begins with the other
    """

    names: str
    rows: Sequence[Row]
    always: frozenset[str] = field(default_factory=frozenset)
    drop: tuple[str, ...] = ()
    below: tuple[str, str] = ("", "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kinds = {word.lstrip("<>"): word[0] for word in self.names.split()}
        shown = [
            name for name in kinds if name in self.always or any(self._says(row, name) for row in self.rows)
        ]
        widths = {name: max(len(name), *(cell_len(str(row[name])) for row in self.rows)) for name in shown}
        note, label = self.below
        gone = [note] if note in widths and _total(widths) > options.max_width else []
        going = [name for name in self.drop if name in widths and name != note]
        while True:
            kept = {name: width for name, width in widths.items() if name not in gone}
            over = _total(kept) - options.max_width
            texts = [name for name in kept if kinds[name] == "<"]
            for name in sorted(texts, key=lambda name: -kept[name]):
                cut = max(0, min(over, kept[name] - SHORTEST))
                kept[name], over = kept[name] - cut, over - cut
            if over <= 0 or not going:
                break
            gone.append(going.pop(0))
        yield _line({name: Text(name, "bold") for name in kept}, kept, kinds)
        for row in self.rows:
            yield _line({name: _text(row[name]) for name in kept}, kept, kinds)
        for row in self.rows if note in gone else ():
            if str(row[note]):
                said = " ".join(f"{row[label]}: {row[note]}".split("\n"))
                yield Text(said, no_wrap=True, overflow="ellipsis")

    def _says(self, row: Row, name: str) -> bool:
        return str(row[name]) not in ("", "0")


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * max(0, len(widths) - 1)


def _line(cells: dict[str, Text], widths: dict[str, int], kinds: dict[str, str]) -> Text:
    """One row: numbers to the right, nothing but the text at its end."""
    line = Text(no_wrap=True)
    for name, width in widths.items():
        cell = cells[name]
        cell.truncate(width, overflow="ellipsis")
        room = width - cell.cell_len
        line.append_text(Text(" " * room) + cell if kinds[name] == ">" else cell + Text(" " * room))
        line.append(" " * GAP)
    line.rstrip()
    return line


def _text(cell: str | Text) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(" ".join(cell.split("\n")))


@dataclass(frozen=True, slots=True)
class Flowing:
    """Short texts one after the other, broken into lines only between them."""

    parts: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for part in self.parts:
            longer = f"{line}  {part}" if line else part
            if line and len(longer) > options.max_width:
                yield Text(line)
                longer = part
            line = longer
        yield Text(line)
