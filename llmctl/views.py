"""Showing a reply to a program: as plain text or as events, one JSON object a line.

Both report what really went out. `View.delivered` is the mark up to which every write has
returned; the journal hears of each advance from the writer thread itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmctl.events import Channel, Delta, Event, Finished, Started
from llmctl.extract import FirstBlock
from llmctl.output import Output
from llmctl.turn import Mark

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class View:
    """What text and JSON have in common.

    Args:
        output: the writer of standard output.
        mark: where the reply's delivery stands already.
        on_delivered: called from the writer thread with each new mark.
        tell: called with every event that is not text, for the talk on stderr.
        before: what earlier processes delivered, to be shown once more at the start.
    """

    def __init__(
        self,
        output: Output,
        *,
        mark: Mark,
        on_delivered: Callable[[Mark], None],
        tell: Callable[[Event], None],
        before: str = "",
    ) -> None:
        self._output = output
        self._before = before
        self._on_delivered = on_delivered
        self._tell = tell
        self._shown = mark
        self._written = mark

    def show(self, event: Event, mark: Mark) -> None:
        """Take an event; never wait."""
        raise NotImplementedError

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
        """For how many seconds the reader has now taken nothing."""
        return self._output.blocked_for

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out (or ``timeout`` seconds have passed); say whether it is."""
        return self._output.drain(timeout)

    def _went_out(self, mark: Mark) -> None:
        self._written = mark
        self._on_delivered(mark)


class TextView(View):
    """Writes the content's characters and nothing else.

    Args:
        final_newline: end with a newline if the text does not.
        **shared: as for `View`.
    """

    def __init__(self, output: Output, *, final_newline: bool, **shared: Any) -> None:  # noqa: ANN401
        super().__init__(output, **shared)
        self._final_newline = final_newline
        self._last = ""

    def show(self, event: Event, mark: Mark) -> None:
        """Write content; tell the rest."""
        before, self._shown = self._shown, mark
        if isinstance(event, Delta) and event.channel is Channel.CONTENT:
            self._last = event.text
            self._write(event.text, before, mark)
            return
        if isinstance(event, Finished) and self._needs_newline():
            self._output.write("\n")
        if isinstance(event, Started):
            self._last = self._before
            self._output.write(self._before)
        if not isinstance(event, Delta):
            self._tell(event)

    def _write(self, text: str, before: Mark, mark: Mark) -> None:
        length = len(text)
        self._output.write(
            text, lambda chars: self._went_out(mark.short_of(before, length - chars))
        )

    def _needs_newline(self) -> bool:
        return self._final_newline and bool(self._last) and not self._last.endswith("\n")


class JsonView(View):
    """Writes every event as a line of its own."""

    def show(self, event: Event, mark: Mark) -> None:
        """Write the event's line; a line that is out in part counts for nothing."""
        self._shown = mark
        self._output.write(_line(event), lambda _chars: self._went_out(mark), whole=True)
        if isinstance(event, Started) and self._before:
            again = Delta(Channel.CONTENT, self._before, mark.position)
            self._output.write(_line(again))
        if not isinstance(event, Delta):
            self._tell(event)


def _line(event: Event) -> str:
    return f"{_encode(event.as_json())}\n"


class BlockView(TextView):
    """Writes only the lines of the reply's first code block.

    Args:
        language: the block's language; empty takes any.
        **shared: as for `TextView`.
    """

    def __init__(self, output: Output, *, language: str, **shared: Any) -> None:  # noqa: ANN401
        super().__init__(output, **shared)
        self._block = FirstBlock(language)

    @property
    def found(self) -> bool:
        """Whether there was such a block."""
        return self._block.found

    def show(self, event: Event, mark: Mark) -> None:
        """Write what is in the block; the rest counts as delivered all the same."""
        if isinstance(event, Delta) and event.channel is Channel.CONTENT:
            self._shown = mark
            self._write_block(self._block.feed(event.text), mark)
            return
        if isinstance(event, Finished):
            self._write_block(self._block.finish(), mark)
        super().show(event, mark)

    def _write_block(self, lines: str, mark: Mark) -> None:
        self._output.write(lines, lambda _chars: self._went_out(mark), whole=True)
