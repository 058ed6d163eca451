"""Tables: columns as wide as their cells need, narrower where the screen is. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from llmctl.terminal.markdown.wrap import wrapped
from llmctl.terminal.spans import QUIET, STRONG, Line, Span, width_of

_DELIMITER = re.compile(r" {0,3}\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *")
_BAR = re.compile(r"(?<!\\)\|")
NARROWEST = 3
"""Cells of a column below which a table is shown as it was written."""

_BETWEEN: Span = (" │ ", QUIET)
_LEFT, _CENTER, _RIGHT = "left", "center", "right"

Inline = Callable[[str, int], list[Span]]


def is_delimiter(line: str) -> bool:
    """Say whether a line may stand between a table's head and its body."""
    return "|" in line and "-" in line and _DELIMITER.fullmatch(line) is not None


def cells_of(line: str) -> list[str]:
    """Return the cells of a row, as they were written."""
    inner = line.strip()
    parts = _BAR.split(inner)
    if inner.startswith("|"):
        parts = parts[1:]
    if parts and not parts[-1].strip() and inner.endswith("|"):
        parts = parts[:-1]
    return [part.strip().replace("\\|", "|") for part in parts]


@dataclass(slots=True)
class Table:
    """A table that grows by rows.

    Attributes:
        head: its first row, as it was written.
        delimiter: the row below that.
        body: the rows that have not been laid out, as they were written.
        chars: how many characters the body has.
        layout: how wide its columns are, once that is settled.
        begun: its head has been drawn.
    """

    head: str
    delimiter: str
    body: list[str] = field(default_factory=list)
    chars: int = 0
    layout: Layout | None = None
    begun: bool = False

    def copy(self) -> Table:
        """Return one that grows by itself."""
        return Table(
            self.head, self.delimiter, list(self.body), self.chars, self.layout, self.begun
        )

    def add(self, row: str) -> None:
        """Take a row."""
        self.body.append(row)
        self.chars += len(row)

    def raw(self) -> list[str]:
        """Return what has not been laid out, as it was written."""
        return self.body if self.begun else [self.head, self.delimiter, *self.body]

    def rows(self, width: int, inline: Inline) -> list[Line]:
        """Lay out, once, what has not been: rows of at most ``width`` cells."""
        columns = len(cells_of(self.delimiter))
        body = [_filled([inline(c, 0) for c in cells_of(row)], columns) for row in self.body]
        head = _filled([inline(c, STRONG) for c in cells_of(self.head)], columns)
        if self.layout is None or self.layout.width != width:
            self.layout = Layout.of([head, *body], cells_of(self.delimiter), width)
        raw, begun = self.raw(), self.begun
        self.body, self.begun = [], True
        if self.layout is None:
            return [[(line, 0)] for line in raw]
        return self.layout.draw(None if begun else head, body)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is drawn.

    Attributes:
        widths: the cells of each column.
        sides: where each column's text stands.
        width: the cells there were.
        ruled: rows are told apart by rules, since some take several lines.
    """

    widths: tuple[int, ...]
    sides: tuple[str, ...]
    width: int
    ruled: bool

    @classmethod
    def of(cls, rows: Sequence[Sequence[Line]], delimiters: list[str], width: int) -> Layout | None:
        """Return the layout for these rows; None if there is no room for it."""
        natural = [
            max(1, *(width_of(row[column]) for row in rows)) for column in range(len(delimiters))
        ]
        room = width - len(_BETWEEN[0]) * (len(natural) - 1)
        widths = _fitted(natural, room)
        if widths is None:
            return None
        return cls(tuple(widths), tuple(map(_side, delimiters)), width, ruled=widths != natural)

    def draw(self, head: Sequence[Line] | None, body: Sequence[Sequence[Line]]) -> list[Line]:
        """Return the lines of rows that follow others, or a head."""
        drawn = [] if head is None else [*self.row(head), self.rule("═" if self.ruled else "─")]
        for index, row in enumerate(body):
            if self.ruled and (index or head is None):
                drawn.append(self.rule("─"))
            drawn += self.row(row)
        return drawn

    def row(self, cells: Sequence[Line]) -> list[Line]:
        """Return the lines of one row."""
        columns = [wrapped(cell, width) for cell, width in zip(cells, self.widths, strict=True)]
        return [self._line(parts) for parts in zip_longest(*columns, fillvalue=[])]

    def rule(self, sign: str) -> Line:
        """Return a line between two rows."""
        cross = "╪" if sign == "═" else "┼"
        return [(f"{sign}{cross}{sign}".join(sign * width for width in self.widths), QUIET)]

    def _line(self, parts: Sequence[Line]) -> Line:
        line: Line = []
        for column, part in enumerate(parts):
            if column:
                line.append(_BETWEEN)
            left, right = _padding(self.sides[column], self.widths[column] - width_of(part))
            line += [(" " * left, 0), *part, (" " * right, 0)]
        while line and not line[-1][0].strip():  # nothing is padded at its end
            line.pop()
        return line or [("", 0)]


def _filled(cells: list[Line], columns: int) -> list[Line]:
    return (cells + [[] for _ in range(columns)])[:columns]


def _side(delimiter: str) -> str:
    if delimiter.endswith(":"):
        return _CENTER if delimiter.startswith(":") else _RIGHT
    return _LEFT


def _padding(side: str, room: int) -> tuple[int, int]:
    if side == _RIGHT:
        return room, 0
    return (room // 2, room - room // 2) if side == _CENTER else (0, room)


def _fitted(natural: list[int], room: int) -> list[int] | None:
    """Return widths that fit; the widest columns give way first."""
    if sum(natural) <= room:
        return natural
    if room < NARROWEST * len(natural):
        return None
    low, high = NARROWEST, max(natural)
    while low < high:
        middle = (low + high + 1) // 2
        if sum([min(width, middle) for width in natural]) <= room:
            low = middle
        else:
            high = middle - 1
    widths = [min(width, low) for width in natural]
    spare = room - sum(widths)
    for column, width in enumerate(natural):
        more = 1 if spare and widths[column] < width else 0
        widths[column] += more
        spare -= more
    return widths
