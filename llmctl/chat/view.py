"""Showing a reply on the screen of a chat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from llmctl.events import Channel, Delta, Event
from llmctl.output import Output
from llmctl.turn import Mark


class Screen(Protocol):
    """The part of `llmctl.terminal.screen.Screen` that a reply needs."""

    def append(self, text: str, on_shown: Callable[[], None] | None = None) -> None:
        """Add text behind what is there."""

    def flush(self) -> None:
        """Paint now what was added."""


class ChatView:
    """A `llmctl.session.View` on a screen.

    Args:
        screen: where text goes.
        output: the writer that the screen writes through.
        mark: where the reply's delivery stands already.
        on_delivered: called from the writer thread with each new mark.
        tell: called with every event that is not text.
    """

    def __init__(
        self,
        screen: Screen,
        output: Output,
        *,
        mark: Mark,
        on_delivered: Callable[[Mark], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._screen = screen
        self._output = output
        self._on_delivered = on_delivered
        self._tell = tell
        self._shown = mark
        self._written = mark
        self._loop_thread = threading.get_ident()
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """The content shown so far by this process."""
        return "".join(self._texts)

    def show(self, event: Event, mark: Mark) -> None:
        """Show text at once; tell the rest."""
        self._shown = mark
        if isinstance(event, Delta):
            if event.channel is Channel.CONTENT:
                self._texts.append(event.text)
                self._screen.append(event.text, lambda: self._went_out(mark))
            return
        self._screen.flush()
        self._tell(event)

    @property
    def delivered(self) -> Mark:
        """How far the reply has really gone out."""
        return self._shown if self._output.drain(0) else self._written

    @property
    def full(self) -> bool:
        """Whether so much is queued that the session should wait."""
        return self._output.full

    @property
    def blocked_for(self) -> float:
        """For how many seconds the terminal has now taken nothing."""
        return self._output.blocked_for

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out (or ``timeout`` seconds have passed); say whether it is."""
        if threading.get_ident() == self._loop_thread:
            self._screen.flush()
        return self._output.drain(timeout)

    def _went_out(self, mark: Mark) -> None:
        self._written = mark
        self._on_delivered(mark)
