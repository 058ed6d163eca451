"""What a reply is shown on, as the rest of the program sees it; and what rows look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Look(StrEnum):
    """How a row of the footer looks; never the only sign of anything."""

    PLAIN = "plain"
    QUIET = "quiet"
    LOUD = "loud"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the footer."""

    text: str
    look: Look = Look.PLAIN


OnShown = Callable[[], None]


class Tty(Protocol):
    """What a screen asks of the terminal it is on."""

    @property
    def in_foreground(self) -> bool:
        """Whether the terminal is ours to write to."""

    def size(self) -> tuple[int, int]:
        """Return the columns and rows there are now."""


class Surface(Protocol):
    """What a reply is shown on: `Screen`, or `PlainScreen` without any moves."""

    def append(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text behind what is there.

        Args:
            text: what to show; controls but newlines and tabs are dropped.
            on_shown: called from the writer thread once this text is out. Of several texts
                that went out together only the last one's is called: it speaks for those
                before.
        """

    def line(self, text: str) -> None:
        """Add a line of its own; text that follows it begins on the next.

        While a reply is shown as Markdown, it stands above what may still change.
        """

    def reply(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text of a reply, which is Markdown, where this surface can show it as such."""

    def thought(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text of a reply's reasoning; when the reply goes on, only a line is left of it."""

    def seen(self, text: str) -> None:
        """Begin with the text of a reply that was shown before, to go on with it.

        Only what is needed to read on is shown again: the line, or the block, that had begun.
        """

    def end_reply(self) -> None:
        """End the reply: what may still change stays as it is."""

    def footer(self, rows: Sequence[Row | str]) -> None:
        """Show these rows below the text, cut to the width; the last ones if not all fit."""

    def flush(self) -> None:
        """Send everything on its way now, and the footer with it."""

    def finish(self) -> str:
        """Take the footer away and leave the cursor on a fresh line below the text.

        Returns:
            The line that the text had begun, for `reopen`.
        """

    async def released(self) -> None:
        """Finish, and wait until all is out: now somebody else may write."""

    def reopen(self, begun: str | None = None) -> None:
        """Go on when somebody else has written: on a fresh line, with the begun one again.

        Args:
            begun: what `finish` returned; None if nobody called it, because we were stopped
                without a warning.
        """

    def aside(self, do: Callable[[], object]) -> None:
        """Step aside while ``do`` has the terminal to itself, then come back as it was."""

    def resized(self) -> None:
        """Follow the terminal's new size."""

    def redraw(self) -> None:
        """Clear the screen, then paint the end of this text and the footer."""

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""

    @property
    def rows(self) -> int:
        """How high the terminal is now."""

    @property
    def rows_taken(self) -> int:
        """How many rows lower than at the very beginning the text ends that was painted."""

    @property
    def full(self) -> bool:
        """Whether so much waits that the caller should."""

    @property
    def blocked_for(self) -> float:
        """For how many seconds the terminal has taken nothing."""

    @property
    def all_out(self) -> bool:
        """Whether everything that was added has been written to the terminal."""

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out, ``timeout`` seconds at the most; say whether it is.

        It may be called from another thread than the loop's.
        """
