"""A terminal for tests: pyte's, with what people's terminals do besides."""

from __future__ import annotations

import copy
from typing import Any

import pyte

__all__ = ["Emulator"]

_TO_THE_END = 0


class Emulator(pyte.HistoryScreen):
    """A screen and its scrollback.

    As in tmux, what is erased from the first cell to the end has been cleared away by
    somebody, and is kept in the scrollback. A program that only repaints must not do that.

    Args:
        columns: its width.
        rows: its height.
        history: rows that the scrollback keeps.
    """

    def __init__(self, columns: int, rows: int, *, history: int = 10_000) -> None:
        super().__init__(columns, rows, history=history, ratio=0.5)

    def erase_in_display(self, how: int = _TO_THE_END, *args: Any, **kwargs: Any) -> None:
        """Erase a part of the screen."""
        if how == _TO_THE_END and (self.cursor.x, self.cursor.y) == (0, 0):
            shown = [y for y, row in enumerate(self.display) if row.strip()]
            kept = range(max(shown, default=-1) + 1)
            self.history.top.extend(copy.copy(self.buffer[y]) for y in kept)
        super().erase_in_display(how, *args, **kwargs)
