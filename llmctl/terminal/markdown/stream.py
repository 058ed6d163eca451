r"""Markdown in, as it comes; out come lines that stay and a tail that may change. Pure.

::

    feed("Some **bo")  → []             tail() → [Some bo]      bold already
    feed("ld** text\n\n- a")  → [Some bold text, blank]   tail() → [• a]

However the text is split, the lines that have stayed in the end are the same; and the tail is
always what they would go on with, if nothing followed.
"""

from __future__ import annotations

from llmctl.terminal.markdown.blocks import UNDECIDED, UNDECIDED_FENCE
from llmctl.terminal.markdown.document import Document
from llmctl.terminal.markdown.leaves import LONGEST_PIECE, piece
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import Line, Span, lines_of, rows_of

TAB = 4


class Markdown:
    """Renders a document while it is being written.

    Args:
        columns: the terminal's width.
        color: colours may be used; without them, code keeps its backticks.
    """

    def __init__(self, columns: int, *, color: bool = True) -> None:
        self._columns = columns
        self._document = Document(_width(columns), ticks=not color)
        self._begun = ""
        self._cut = False

    def feed(self, text: str) -> list[Span]:
        """Take text; return the spans that stay, which follow those returned before.

        A newline is a span of its own. What does not end in one goes on in the next call.
        """
        *lines, rest = sanitize(text).split("\n")
        for line in lines:
            self._take(line)
            self._end()
        self._take(rest)
        return self._document.take()

    def finish(self) -> list[Span]:
        """End the text; return the rest."""
        if self._begun:
            self._end()
        self._document.close()
        return self._document.take()

    def tail(self, begun: int = 0) -> list[Line]:
        """Return the rows that follow what stays, as they stand now.

        Args:
            begun: cells of the first row that are taken by what stays.
        """
        draft = self._document.copy()
        if self._begun and not self._undecided:
            draft.line(_untabbed(self._begun))
        draft.close(growing=True)
        shown = draft.take()
        if not shown:
            return []
        *lines, _ = lines_of(shown)
        first, *others = lines
        rows = rows_of(first, self._columns, begun=begun)
        for line in others:
            rows += rows_of(line, self._columns)
        return rows

    def resize(self, columns: int) -> None:
        """Wrap what is to come for another width."""
        self._columns = columns
        self._document.resize(_width(columns))

    @property
    def _undecided(self) -> bool:
        pattern = UNDECIDED_FENCE if self._document.in_code else UNDECIDED
        return pattern.fullmatch(self._begun) is not None

    def _take(self, text: str) -> None:
        if self._cut:
            self._document.more(text.replace("\t", " " * TAB))
            return
        self._begun += text
        limit = self._limit()
        if len(self._begun) > limit:
            begun, rest = self._begun[:limit], self._begun[limit:]
            self._document.begin(_untabbed(begun))
            self._begun, self._cut = "", True
            self._take(rest)

    def _limit(self) -> int:
        """Return the characters of a line at which it is no longer waited for."""
        patient = self._document.in_code or self._document.in_table
        short = piece(_width(self._columns))
        return LONGEST_PIECE if patient or "|" in self._begun[:short] else short

    def _end(self) -> None:
        if self._cut:
            self._document.end()
        else:
            self._document.line(_untabbed(self._begun))
        self._begun, self._cut = "", False


def _width(columns: int) -> int:
    """Return the cells of a row of prose: one less, since terminals differ about some signs."""
    return max(1, columns - 1)


def _untabbed(line: str) -> str:
    return line.expandtabs(TAB)
