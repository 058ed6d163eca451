"""A reply on the screen: its reasoning while that lasts, then its Markdown. Pure."""

from __future__ import annotations

from llmctl.counts import counted
from llmctl.terminal.markdown.stream import Markdown
from llmctl.terminal.markdown.wrap import Wrap
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import NEWLINE, QUIET, Line, Span

THOUGHT_ROWS = 4
"""Rows of reasoning shown while it comes; of what is done, one row says how much there was."""


class Live:
    """What of a reply stays on the screen, and what may still change.

    Args:
        columns: the terminal's width.
        color: colours may be used.
    """

    def __init__(self, columns: int, *, color: bool) -> None:
        self._columns = columns
        self._markdown = Markdown(columns, color=color)
        self._thought = 0
        self._thinking = Wrap(max(1, columns - 1))

    def reply(self, text: str) -> list[Span]:
        """Take text of the reply; return what stays."""
        return self._folded() + self._markdown.feed(text)

    def thought(self, text: str) -> None:
        """Take text of the reasoning."""
        shown = sanitize(text).replace("\t", " ")
        self._thought += len(text)
        self._thinking.feed([(shown, QUIET)])
        del self._thinking.rows[:-THOUGHT_ROWS]

    def seen(self, text: str) -> None:
        """Take text of the reply that has been shown before: only its tail is shown again."""
        self._markdown.feed(text)

    def end(self) -> list[Span]:
        """End the reply; return the rest."""
        return self._folded() + self._markdown.finish()

    def tail(self, begun: int) -> list[Line]:
        """Return the rows that follow what stays.

        Args:
            begun: cells of the first row that are taken by what stays.
        """
        rows = self._markdown.tail(begun)
        if not self._thought:
            return rows
        thinking = self._thinking.copy()
        thinking.finish()
        return rows + thinking.rows[-THOUGHT_ROWS:]

    def resize(self, columns: int) -> None:
        """Wrap what is to come for another width."""
        self._columns = columns
        self._markdown.resize(columns)
        self._thinking.resize(max(1, columns - 1))

    def _folded(self) -> list[Span]:
        """Return the one row that is left of reasoning that is done."""
        if not self._thought:
            return []
        row = f"· thought for {counted(self._thought, 'character')}"
        self._thought, self._thinking = 0, Wrap(max(1, self._columns - 1))
        return [(row, QUIET), NEWLINE, NEWLINE]
