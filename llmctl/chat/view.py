"""Showing a reply on the screen of a chat."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

from llmctl.events import Channel, Delta, Event, Finished
from llmctl.terminal.surface import Surface
from llmctl.turn import Mark


class ChatView:
    """A `llmctl.ports.View` on a screen.

    Args:
        screen: where text goes.
        mark: where the reply's delivery stands already.
        on_delivered: called from the writer thread with each new mark.
        tell: called with every event that is not text.
    """

    def __init__(
        self,
        screen: Surface,
        *,
        mark: Mark,
        on_delivered: Callable[[Mark], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._screen = screen
        self._on_delivered = on_delivered
        self._tell = tell
        self._shown = mark
        self._written = mark
        self._text = StringIO()

    @property
    def text(self) -> str:
        """The content shown so far by this process."""
        return self._text.getvalue()

    def show(self, event: Event, mark: Mark) -> None:
        """Show text at once; tell the rest."""
        self._shown = mark
        if isinstance(event, Delta):
            if event.channel is Channel.CONTENT:
                self._text.write(event.text)
                self._screen.reply(event.text, lambda: self._went_out(mark))
            else:
                self._screen.thought(event.text, lambda: self._went_out(mark))
            return
        if isinstance(event, Finished):
            self._screen.end_reply()
        self._screen.flush()
        self._tell(event)

    @property
    def delivered(self) -> Mark:
        """How far the reply has really gone out."""
        return self._shown if self._screen.all_out else self._written

    @property
    def full(self) -> bool:
        """Whether so much is queued that the session should wait."""
        return self._screen.full

    @property
    def blocked_for(self) -> float:
        """For how many seconds the terminal has now taken nothing."""
        return self._screen.blocked_for

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out (or ``timeout`` seconds have passed); say whether it is."""
        return self._screen.drain(timeout)

    def _went_out(self, mark: Mark) -> None:
        self._written = mark
        self._on_delivered(mark)
