"""How many cells text takes, and where it leaves the cursor. Pure.

The unit is the grapheme cluster (UAX #29): a family of four joined emoji is one thing, two
cells wide. Terminals differ here, so nothing that matters rests on these figures alone:
`Screen` lets the terminal remember where the text ended, and uses them to cut rows to size
and to know when a row has become full.
"""

from __future__ import annotations

from dataclasses import dataclass

from wcwidth import iter_graphemes, wcswidth

TAB_CELLS = 8


def cells(text: str) -> int:
    """Return the number of cells ``text`` takes; it holds no control characters."""
    if text.isascii():
        return len(text)
    return sum(max(0, wcswidth(cluster)) for cluster in iter_graphemes(text))


def fit(text: str, width: int) -> str:
    """Return ``text``, cut at its end to at most ``width`` cells; the cut shows as ``…``."""
    if cells(text) <= width:
        return text
    kept, room = [], width - 1
    for cluster in iter_graphemes(text):
        room -= max(0, wcswidth(cluster))
        if room < 0:
            break
        kept.append(cluster)
    return "".join(kept).rstrip() + "…" if width > 0 else ""


def fit_end(text: str, width: int) -> str:
    """Return ``text``, cut at its beginning to at most ``width`` cells."""
    if cells(text) <= width:
        return text
    kept, room = [], width - 1
    for cluster in reversed(list(iter_graphemes(text))):
        room -= max(0, wcswidth(cluster))
        if room < 0:
            break
        kept.append(cluster)
    return "…" + "".join(reversed(kept)) if width > 0 else ""


def last_rows(text: str, columns: int, rows: int) -> str:
    """Return the end of ``text`` that takes at most so many rows of a terminal."""
    kept: list[str] = []
    for line in reversed(text.split("\n")):
        if rows <= 0:
            break
        kept.append(fit_end(line, rows * columns))
        rows -= max(1, -(-cells(line) // columns))
    return "\n".join(reversed(kept))


@dataclass(slots=True)
class Caret:
    """Where text that a terminal wraps has left the cursor.

    Attributes:
        columns: the terminal's width.
        column: cells of the last row that are taken. Equal to ``columns``, the row is full
            and the cursor waits on its last cell until the next character wraps it.
        last: the last grapheme cluster of that row; the next text may still join it.
        line: cells since the last newline, over all its rows.
        rows: how many rows it has gone down.
    """

    columns: int
    column: int = 0
    last: str = ""
    line: int = 0
    rows: int = 0

    @property
    def full(self) -> bool:
        """Whether the last row is full."""
        return self.column >= self.columns

    @property
    def park(self) -> str:
        """What puts the cursor back behind a full row, after other moves than those of text.

        Waiting behind the last cell is no place that can be gone to, only written to: so the
        row's last cluster is written again. One cell back and forth comes first, because some
        terminals forget the waiting with any move and some don't. No column is named: should
        the terminal have another width by now, no text is overwritten.
        """
        if not self.full:
            return ""
        return "\x1b[D\x1b[C" + "\x1b[D" * (cells(self.last) - 1) + self.last

    def put(self, text: str) -> bool:
        """Go over ``text`` (no controls but newlines); say whether it stayed on its row."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._put(line)
            self.column, self.line, self.last = 0, 0, ""
            self.rows += 1
        return not (self._put(rest) or lines)

    def resize(self, columns: int) -> None:
        """Follow a terminal that wraps its lines anew for another width."""
        self.columns = columns
        self.column = self._wrap(self.line)

    def _put(self, text: str) -> bool:
        """Go over text without newlines; say whether it was wrapped."""
        return self._put_ascii(text) if text.isascii() else self._put_clusters(text)

    def _put_ascii(self, text: str) -> bool:
        if not text:
            return False
        taken = self.column + len(text)
        self.line += len(text)
        self.rows += (taken - 1) // self.columns
        self.column, self.last = self._wrap(taken), text[-1]
        return taken > self.columns

    def _put_clusters(self, text: str) -> bool:
        wrapped = False
        self._take_back()
        for cluster in iter_graphemes(self.last + text):
            taken = max(0, wcswidth(cluster))
            if self.column + taken > self.columns:
                wrapped, self.column = True, 0
                self.rows += 1
            self.column += taken
            self.line += taken
            self.last = cluster
        return wrapped

    def _take_back(self) -> None:
        taken = cells(self.last)
        self.column -= taken
        self.line -= taken

    def _wrap(self, taken: int) -> int:
        return (taken - 1) % self.columns + 1 if taken else 0
