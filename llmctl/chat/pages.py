"""A reply a screenful at a time, while the model runs ahead (``--pace page``)."""

from __future__ import annotations

from collections.abc import Callable

from llmctl.events import Channel, Delta, Event, Resumed, Started
from llmctl.terminal.surface import Surface

KEPT_ROWS = 3
"""Rows of the screen that are not for a page: the footer, and what one read last."""


class Pages:
    """Watches a reply (see `watched`) and says when it has filled a page since it went on.

    How many rows a text takes is known once it is painted; for what waits, its newlines and its
    length are a guess. So it is painted, and counted, when the guess is half of what is left.

    Args:
        surface: where the reply is shown.
        on_full: called when a page is full.
    """

    def __init__(self, surface: Surface, on_full: Callable[[], None]) -> None:
        self._surface = surface
        self._on_full = on_full
        self._top = 0
        self._left = 0
        self._guess = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event of the reply that has been shown."""
        match event:
            case Started() | Resumed():
                self._surface.flush()
                self._top = self._surface.rows_taken
                self._count()
            case Delta(channel=Channel.CONTENT, text=text):
                self._guess += text.count("\n") + len(text) / self._surface.columns
                if 2 * self._guess >= self._left:
                    self._surface.flush()
                    self._count()
                    if self._left <= 0:
                        self._on_full()
            case _:
                pass

    def _count(self) -> None:
        page = max(1, self._surface.rows - KEPT_ROWS)
        self._left, self._guess = page - (self._surface.rows_taken - self._top), 0.0
