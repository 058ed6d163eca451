"""What blocks hold: each takes lines and gives rows as soon as they are final. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wcwidth import iter_graphemes

from llmctl.fences import CODE_INDENT, is_closing
from llmctl.terminal.markdown.blocks import HtmlStart, indent_of
from llmctl.terminal.markdown.highlight import Open, highlighted
from llmctl.terminal.markdown.inline import is_settled
from llmctl.terminal.markdown.table import Table
from llmctl.terminal.markdown.wrap import Wrap
from llmctl.terminal.spans import QUIET, Line, Span
from llmctl.terminal.width import cells

PIECE_ROWS = 4
"""Rows of a paragraph that may still change; it is cut behind them, where nothing is open."""

PIECE_CHARS = (160, 400)
"""Characters that are the fewest, and enough, however many rows they take."""

LONGEST_PIECE = 2000
"""Characters after which it is cut wherever it stands."""

SEAM = 64
"""Characters looked at to cut between two graphemes."""

TABLE_ROWS, TABLE_CHARS = 16, 4000
"""A table's size from which its layout stays as it is, and its rows are shown as they come."""

RULE_CELLS = 12

Inline = Callable[..., list[Span]]


def piece(width: int) -> int:
    """Return the characters after which a paragraph is cut first, in rows of so many cells."""
    fewest, enough = PIECE_CHARS
    return max(fewest, min(enough, PIECE_ROWS * width))


@dataclass(slots=True)
class Paragraph:
    """Text that is wrapped; also a heading, of which no second line comes.

    Attributes:
        wrap: fills its rows.
        text: what has not been parsed for good.
        style: of all its text.
        cut: something has been.
    """

    wrap: Wrap
    text: str = ""
    style: int = 0
    cut: bool = False

    def copy(self) -> Paragraph:
        """Return one that goes on by itself."""
        return Paragraph(self.wrap.copy(), self.text, self.style, self.cut)

    def settle(self, inline: Inline, *, begun: bool) -> list[Line]:
        """Return the rows that nothing can change any more, if there is much text.

        Args:
            inline: parses text.
            begun: the last line has only begun: it was too long to be waited for.
        """
        while (at := self._cut_at(begun)) is not None:
            self.wrap.feed(inline(self.text[:at], self.style))
            self.text = self.text[at:]
            self.cut = True
        return self.wrap.take()

    def finish(self, inline: Inline, *, growing: bool = False) -> list[Line]:
        """Return the rest of its rows."""
        self.wrap.feed(inline(self.text.rstrip(" "), self.style, growing=growing))
        self.wrap.finish()
        return self.wrap.take()

    def _cut_at(self, begun: bool) -> int | None:
        text = self.text
        first = piece(self.wrap.width)
        for limit in (first, 2 * first, 4 * first):
            if len(text) <= limit:
                return None
            at = _after_a_space(text, limit)
            if at and not _might_be_a_head(text, at, begun=begun) and is_settled(text[:at]):
                return at
        if len(text) <= LONGEST_PIECE:
            return None
        return _after_a_space(text, LONGEST_PIECE) or _between_graphemes(text, LONGEST_PIECE)


def _after_a_space(text: str, limit: int) -> int:
    return max(text.rfind(" ", 0, limit), text.rfind("\n", 0, limit)) + 1


def _might_be_a_head(text: str, at: int, *, begun: bool) -> bool:
    """Say whether a cut would go through a line that may be the head of a table.

    One that has only begun is none: how much of it has come must not decide.
    """
    begin = text.rfind("\n", 0, at) + 1
    if begun and "\n" not in text[at:]:
        return False
    return begin != at and "|" in text[begin:].partition("\n")[0][: LONGEST_PIECE - begin]


def _between_graphemes(text: str, limit: int) -> int:
    last = 0
    for cluster in iter_graphemes(text[limit - SEAM : limit]):
        last = len(cluster)
    return limit - last


@dataclass(slots=True)
class Fence:
    """Code between two fences.

    Attributes:
        fence: the characters that opened it.
        indent: spaces before them.
        language: what the fence says behind them.
        open_: what is open behind the last line.
    """

    fence: str
    indent: int
    language: str
    open_: Open = None

    def copy(self) -> Fence:
        """Return one that goes on by itself."""
        return Fence(self.fence, self.indent, self.language, self.open_)

    def closes(self, line: str) -> bool:
        """Say whether a line is the closing fence."""
        return indent_of(line) < CODE_INDENT and is_closing(self.fence, line)

    def code(self, line: str) -> Line:
        """Return a line of the code."""
        line = line[min(self.indent, indent_of(line)) :]
        spans, self.open_ = highlighted(self.language.lower(), line, self.open_)
        return spans

    def top(self) -> Line:
        """Return what stands above the code."""
        title = f" {self.language} " if self.language else ""
        return [(f"──{title}{'─' * max(2, RULE_CELLS - 2 - cells(title))}", QUIET)]

    def bottom(self) -> Line:
        """Return what stands below it."""
        return [("─" * RULE_CELLS, QUIET)]


@dataclass(slots=True)
class Indented:
    """Code that is told by its indent.

    Attributes:
        blanks: blank lines that belong to it if more code follows.
    """

    blanks: int = 0

    def copy(self) -> Indented:
        """Return one that goes on by itself."""
        return Indented(self.blanks)


@dataclass(slots=True)
class Html:
    """A block of HTML, shown as it is written."""

    start: HtmlStart

    def copy(self) -> Html:
        """Return itself: nothing about it changes."""
        return self


@dataclass(slots=True)
class Grid:
    """A table.

    Attributes:
        table: its rows.
    """

    table: Table

    def copy(self) -> Grid:
        """Return one that goes on by itself."""
        return Grid(self.table.copy())

    @property
    def large(self) -> bool:
        """Whether it is shown row by row from here on."""
        table = self.table
        return bool(table.layout) or len(table.body) >= TABLE_ROWS or table.chars >= TABLE_CHARS


Leaf = Paragraph | Fence | Indented | Html | Grid
