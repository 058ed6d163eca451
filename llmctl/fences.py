"""Where Markdown has code between fences: CommonMark 0.31.2, sections 2.2, 4.5, 5.1 and 5.2. Pure.

A fence is a line of three or more backticks (without a backtick behind them) or tildes, in
quotes and items of lists too. The code ends with a line of at least as many of the same and
nothing else, indented by less than four columns; or with its quote or item; or with the text.
What the containers and the fence are indented by is not the code's.

`CodeReader` follows the containers, as the chat does when it shows a reply. `opening` looks at
one line alone, for who must not act in what may be code (`llmctl.markers`). Blocks of HTML are
not looked for: a fence in them is a fence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CODE_INDENT = 4
"""Columns that make code, and end what may begin a block; also between two tab stops."""

DEEPEST = 48
"""Containers in each other; what would open more is text."""

_RUN = r"(`{3,}(?=[^`]*$)|~{3,})"
FENCE = re.compile(rf"( {{0,3}}){_RUN}[ \t]*(\S*)")
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
ITEM = re.compile(r"( {0,3})([-*+]|(\d{1,9})([.)]))([ \t]+|$)")
_ALONE = re.compile(rf"((?:[ \t>]|(?:[-*+]|\d{{1,9}}[.)])(?=[ \t]))*){_RUN}")
_QUOTE = 0
"""Stands for a quote where an item's columns would stand."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a block of code began with.

    Attributes:
        run: the backticks or tildes.
        indent: columns before them, in their container.
        language: the first word behind them.
    """

    run: str
    indent: int
    language: str


def opening(line: str) -> re.Match[str] | None:
    """Match a line that opens a fence in any container: what is before it, and its run."""
    return _ALONE.match(line)


def is_closing(run: str, line: str) -> bool:
    """Say whether a line, however it is indented, ends what the run has opened."""
    bare = line.strip(" \t\r")
    return len(bare) >= len(run) and not bare.strip(run[0])


class CodeReader:
    """Reads lines, and tells code from the rest.

    Attributes:
        fence: of the block that the next line is in unless it ends it; None outside of code.
    """

    def __init__(self) -> None:
        self.fence: Fence | None = None
        self._containers: list[int] = []  # an item's columns, or `_QUOTE`
        self._bare = False  # nothing has followed the innermost item's bullet yet
        self._paragraph = False

    def read(self, text: str) -> str | None:
        """Take a line without its end; return the code that it is, None if it is none.

        Where it is none and ``fence`` is there, the line has begun a block.
        """
        line = _Line(text)
        matched = self._follow(line)
        if self.fence is not None and matched == len(self._containers):
            if line.indent() < CODE_INDENT and is_closing(self.fence.run, line.text):
                self.fence = None
                return None
            line.cut(self.fence.indent)
            return line.text
        self.fence = None
        line.text = line.text.removesuffix("\r")
        self._begin(line, matched)
        return None

    def _follow(self, line: _Line) -> int:
        """Return how many of the open containers a line goes on with; cut it to what they hold."""
        for number, columns in enumerate(self._containers):
            if columns == _QUOTE:
                if not line.quoted():
                    return number
                line.unquote()
            elif line.blank():
                if self._bare and number == len(self._containers) - 1:
                    return number
                line.cut(columns)
            elif line.indent() >= columns:
                line.cut(columns)
            else:
                return number
        return len(self._containers)

    def _begin(self, line: _Line, matched: int) -> None:
        """Open what a line outside of code begins."""
        before, self._bare = matched, False
        while not line.blank() and line.indent() < CODE_INDENT:
            goes_on = self._paragraph and matched == len(self._containers)
            bare = line.text.lstrip(" \t")
            if found := FENCE.match(bare):
                self._leave(matched)
                self.fence = Fence(found[2], line.indent(), found[3])
                return
            if HEADING.match(bare) or RULE.match(bare) or (goes_on and UNDERLINE.match(bare)):
                self._leave(matched)
                return
            columns = self._container(line, in_paragraph=goes_on) if matched < DEEPEST else None
            if columns is None:
                break
            self._leave(matched)
            self._containers.append(columns)
            matched += 1
        self._bare = line.blank() and matched > before
        if line.blank():
            self._leave(matched)
        elif not self._paragraph:  # else it goes on with that, if need be lazily
            self._leave(matched)
            self._paragraph = line.indent() < CODE_INDENT

    def _leave(self, matched: int) -> None:
        """Close the paragraph, and the containers that the line does not go on with."""
        del self._containers[matched:]
        self._paragraph = False

    def _container(self, line: _Line, *, in_paragraph: bool) -> int | None:
        """Cut the quote or item off that a line begins; return its columns, None for none."""
        if line.quoted():
            line.unquote()
            return _QUOTE
        found = ITEM.match(line.text.lstrip(" \t"))
        if found is None or (in_paragraph and _is_text(found)):
            return None
        lead = line.indent()
        line.cut(lead)
        line.skip(len(found[2]))
        spaces = line.indent()
        width = 1 if line.blank() or spaces > CODE_INDENT else spaces
        line.cut(width)
        return lead + len(found[2]) + width


def _is_text(item: re.Match[str]) -> bool:
    """Say whether what looks like an item goes on with a paragraph."""
    return item.end() == len(item.string) or (item[3] is not None and int(item[3]) != 1)


class _Line:
    """A line that is used up from its beginning, by columns.

    Attributes:
        text: what is left.
        column: where that begins; a tab reaches to the next multiple of four.
    """

    __slots__ = ("column", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.column = 0

    def blank(self) -> bool:
        return not self.text.strip(" \t\r")

    def indent(self) -> int:
        """Return the columns of white space that it begins with."""
        white = self.text[: len(self.text) - len(self.text.lstrip(" \t"))]
        start = self.column % CODE_INDENT
        return len((" " * start + white).expandtabs(CODE_INDENT)) - start

    def skip(self, chars: int) -> None:
        """Cut characters off that are a column each."""
        self.text = self.text[chars:]
        self.column += chars

    def cut(self, columns: int) -> None:
        """Cut white space off, at most so many columns; of a tab the rest stays, as spaces."""
        end = self.column + min(columns, self.indent())
        while self.column < end:
            if self.text[0] == "\t":
                width = CODE_INDENT - self.column % CODE_INDENT
                self.text = " " * width + self.text[1:]
            self.skip(1)

    def quoted(self) -> bool:
        return self.indent() < CODE_INDENT and self.text.lstrip(" \t").startswith(">")

    def unquote(self) -> None:
        """Cut the sign of a quote off, with the space behind it."""
        self.cut(CODE_INDENT)
        self.skip(1)
        self.cut(1)
