"""Tables that fit into any terminal: columns that leave when there is no room, long names folded, long texts cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from rich.cells import cell_len, chop_cells
from rich.text import Text

from galaxy_trio._printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP: Final = 2
"""Spaces between two columns."""
_FOLDED: Final = 24
"""Cells of the first column that other columns give way to."""
_NARROWEST: Final = 8
"""Cells of the first column in the narrowest terminal."""
_FILL: Final = 16
"""Cells of the last column, if that takes what is left, that other columns give way to."""
_INDENT: Final = "  "


@attrs.frozen
class Column:
    """A column of a table. The first one folds its texts; the others cut them.

    Attributes:
        title: Its header.
        right: Whether its texts are aligned to the right.
        optional: Whether it is left out in a narrow terminal; the last one goes first.
        widest: The largest number of cells.
        fill: Whether it takes what the others leave. Only for the last column.
    """

    title: str
    right: bool = False
    optional: bool = False
    widest: int = 1_000
    fill: bool = False


def cell(text: str, style: str = "") -> Text:
    """Return a printable text in one line."""
    return Text(one_line(text), style)


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> tuple[Text, list[list[Text]]]:
    """Return a table's header, and the lines of each row, none of which is wider than the terminal.

    Args:
        columns: The columns.
        rows: A cell for each column.
        width: The terminal's width.
    """
    natural = [
        min(column.widest, max([cell_len(column.title), *(row[number].cell_len for row in rows)]))
        for number, column in enumerate(columns)
    ]
    widths = _fit(columns, natural, width)
    header = _line(columns, widths, [Text(column.title, "dim") for column in columns])
    return header, [_lines(columns, widths, row) for row in rows]


def _fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """Return the width of each column that has room, by its number."""
    shown = list(range(len(columns)))

    def needed() -> int:
        least = [min(natural[number], _least(number, columns[number])) for number in shown]
        return sum(least) + _GAP * (len(shown) - 1)

    while needed() > width and any(columns[number].optional for number in shown):
        shown.remove(next(number for number in reversed(shown) if columns[number].optional))
    widths = {number: natural[number] for number in shown}
    excess = sum(widths.values()) + _GAP * (len(shown) - 1) - width
    for number in (number for number in reversed(shown) if columns[number].fill or number == 0):
        least = _FILL if number else _NARROWEST
        shrunk = max(min(widths[number], least), widths[number] - max(excess, 0))
        excess -= widths[number] - shrunk
        widths[number] = shrunk
    return widths


def _least(number: int, column: Column) -> int:
    return _FOLDED if number == 0 else _FILL if column.fill else column.widest


def _lines(columns: Sequence[Column], widths: dict[int, int], row: Sequence[Text]) -> list[Text]:
    first, *others = row
    pieces = chop_cells(first.plain, widths[0]) or [""]
    lines = [_line(columns, widths, [Text(pieces[0], first.style), *others])]
    return lines + [Text(piece, first.style) for piece in pieces[1:]]


def _line(columns: Sequence[Column], widths: dict[int, int], row: Sequence[Text]) -> Text:
    line = Text()
    for number, width in widths.items():
        text = row[number].copy()
        text.truncate(width, overflow="ellipsis")
        room = Text(" " * (width - text.cell_len))
        line.append_text(Text(" " * _GAP if number else ""))
        for part in (room, text) if columns[number].right else (text, room):
            line.append_text(part)
    line.rstrip()
    return line


def note(text: str, width: int) -> list[Text]:
    """Return a text as lines of its own below a row, indented and wrapped at words."""
    lines: list[Text] = []
    line = ""
    room = max(width - len(_INDENT), 1)
    for word in one_line(text).split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= room:
            line = longer
            continue
        *whole, line = [*([line] if line else []), *chop_cells(word, room)]
        lines += [Text(_INDENT + piece, "dim") for piece in whole]
    return [*lines, Text(_INDENT + line, "dim")]
