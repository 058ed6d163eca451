"""Words to rows of a width. Pure, and it may be fed in any pieces that end between spans.

A row breaks at a space, and on either side of a wide character (Chinese and Japanese write
without spaces), except before a mark that closes what precedes it. Where even that is not
enough, a word is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wcwidth import iter_graphemes, wcswidth

from llmctl.terminal.spans import Line, Span, rows_of, width_of

_TOKENS = re.compile(r"\n| +|[^ \n]+")
# CJK punctuation, the closing half of its brackets, and fullwidth forms; … and closing quotes.
_CLOSING = frozenset(
    "\u3001\u3002\u3005\u3009\u300b\u300d\u300f\u3011\u3015\u30fb\u30fc"
    "\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff3d\uff5d\u2019\u201d\u2026"
)


class Wrap:
    """Fills rows.

    Args:
        width: cells of a row.
    """

    __slots__ = ("_cells", "_gap", "_row", "_word", "_word_cells", "rows", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows: list[Line] = []
        self._row: Line = []
        self._cells = 0
        self._gap: Span = ("", 0)
        self._word: Line = []
        self._word_cells = 0

    def copy(self) -> Wrap:
        """Return one that goes on by itself."""
        other = Wrap(self.width)
        other.rows = list(self.rows)
        other._row, other._word = list(self._row), list(self._word)
        other._cells, other._gap, other._word_cells = self._cells, self._gap, self._word_cells
        return other

    def resize(self, width: int) -> None:
        """Fill rows of another width; the one that has begun, anew."""
        begun = [*self._row, self._gap, *self._word]
        self.width, self._row, self._word = width, [], []
        self._cells, self._word_cells, self._gap = 0, 0, ("", 0)
        self.feed(begun)

    def feed(self, spans: Iterable[Span]) -> None:
        """Take text."""
        for text, style in spans:
            for part in _TOKENS.findall(text):
                if part == "\n":
                    self._end_word()
                    self._end_row()
                elif part[0] == " ":
                    self._end_word()
                    self._gap = (part, style)
                elif part.isascii():
                    self._word.append((part, style))
                    self._word_cells += len(part)
                else:
                    self._take_clusters(part, style)
                if self._word_cells > self.width:
                    self._cut_word()

    def finish(self) -> None:
        """End the last row."""
        self._end_word()
        if self._row:
            self._end_row()

    def take(self) -> list[Line]:
        """Return, once, the rows that are full."""
        rows, self.rows = self.rows, []
        return rows

    def _take_clusters(self, part: str, style: int) -> None:
        was_wide = False
        for cluster in iter_graphemes(part):
            taken = max(0, wcswidth(cluster))
            wide = taken > 1
            if (wide or was_wide) and cluster[0] not in _CLOSING:
                self._end_word()
            self._word.append((cluster, style))
            self._word_cells += taken
            was_wide = wide

    def _end_word(self) -> None:
        if not self._word:
            return
        gap = len(self._gap[0])
        if self._row and self._cells + gap + self._word_cells > self.width:
            self._end_row()
        elif self._row and gap:
            self._row.append(self._gap)
            self._cells += gap
        self._row += self._word
        self._cells += self._word_cells
        self._word, self._word_cells, self._gap = [], 0, ("", 0)

    def _cut_word(self) -> None:
        """Fill rows with a word that no row can hold."""
        if self._row:
            self._end_row()
        *full, self._word = rows_of(self._word, self.width)
        self.rows += full
        self._word_cells = width_of(self._word)

    def _end_row(self) -> None:
        self.rows.append(self._row)
        self._row, self._cells, self._gap = [], 0, ("", 0)


def wrapped(spans: Iterable[Span], width: int) -> list[Line]:
    """Return the rows of a whole text."""
    wrap = Wrap(width)
    wrap.feed(spans)
    wrap.finish()
    return wrap.rows
