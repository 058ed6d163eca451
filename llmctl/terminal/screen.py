r"""The only writer to the terminal while a reply streams: text above, a footer below.

Text is append-only and left to the terminal to wrap, so that it can be copied, scrolled
back and wrapped anew as if it had been printed by ``cat``. The footer (draft, status) hangs
below it. Between two frames the cursor stands behind the text, and the terminal knows where
that is; we never have to count rows, and a resize cannot confuse us. A frame::

    ESC[?2026h ESC[?25l      begin a synchronized update, hide the cursor
    ESC[J                    erase what is below the cursor: the footer
    …text…                   as it is
    ESC D …, ESC[nA          make room for n rows, scrolling if need be; the column stays
    ESC 7                    remember where the text ended (DECSC)
    ESC[?7l … ESC[?7h        the footer's rows, which must not wrap
    ESC 8                    back behind the text (DECRC)
    ESC[?25h ESC[?2026l      show the cursor, end the update

Sources: ECMA-48 (ED, CUU, CUD, CUB, CUF), DEC STD 070 (IND, DECSC, DECRC, DECAWM, DECTCEM) and the
description of synchronized output (mode 2026) that terminals share. Where the last row is
full, erasing begins on the next, and in the end the row's last cluster is written again
(`Caret.park`): a cursor that waits for a character to wrap it loses that state by any move,
and would take the last cell with it.

Frames are at most 30 a second, the first at once, and none before the last one is out: a
slow line gets fewer frames, not a queue of them. Footers are counted by themselves, so that
the answer to a key is not held up by text.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from llmctl.output import Output
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.surface import Look, OnShown, Row, Surface, Tty
from llmctl.terminal.width import TAB_CELLS, Caret, fit, last_rows

__all__ = ["Look", "PlainScreen", "Row", "Screen", "Surface"]

FRAME_S = 1 / 30
"""Seconds between two frames at the least."""

FRAME_CHARS = 8192
"""Characters of text in one frame at the most: what bounds the time it takes."""

HIGH_WATER = FRAME_CHARS
"""Characters waiting to be painted above which `Screen.full` says so: a pause shows them yet."""

TAIL_CHARS = 16 * 1024
"""Characters of text that are remembered, to paint them again."""

ASIDE_PATIENCE_S = 1.0
"""Seconds that a terminal gets to take what was written before somebody else writes."""

POLL_S = 0.005
"""Seconds between two looks whether the last frame is out."""

_BEGIN = "\x1b[?2026h\x1b[?25l"
_END = "\x1b[?25h\x1b[?2026l"
_ERASE_BELOW = "\x1b[J"
_CLEAR = "\x1b[H\x1b[2J"
_INDEX = "\x1bD"
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_ERASE_BELOW_FULL = f"{_INDEX}\x1b[A{_SAVE}\x1b[B\r\x1b[J{_RESTORE}"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_BLANKS = str.maketrans("\n\t", "  ")


# SGR (ECMA-48): 0 nothing, 2 faint, 7 reverse. No colours: NO_COLOR has nothing to forbid.
_SGR = {Look.PLAIN: "", Look.QUIET: "\x1b[2m", Look.LOUD: "\x1b[7m"}


class Handle(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget it."""


CallLater = Callable[[float, Callable[[], None]], Handle | None]


class Screen:
    """Text that grows, and a footer below it; see `Surface` for what the methods do.

    Args:
        output: the writer of the terminal; it must not clean what it is given.
        terminal: tells its size, and whether it is ours.
        now: a clock in seconds.
        call_later: calls back after so many seconds, or returns None if nothing can do that
            (then all is painted at once); by default the running loop's.
    """

    def __init__(
        self,
        output: Output,
        terminal: Tty,
        *,
        now: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        self._output = output
        self._terminal = terminal
        self._now = now
        self._call_later = call_later or self._on_the_running_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._known_size = terminal.size()
        self._caret = Caret(self._known_size[0])
        self._waiting: deque[tuple[str, OnShown | None]] = deque()
        self._waiting_chars = 0
        self._footer: tuple[Row, ...] = ()
        self._painted: tuple[Row, ...] = ()
        self._stale = False
        self._away = False
        self._fresh = True
        self._tail = ""
        self._last_frame = float("-inf")
        self._last_footer = float("-inf")
        self._timer: Handle | None = None

    def append(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text."""
        shown = sanitize(text)
        if shown:
            self._fresh = shown.endswith("\n")
        self._waiting.append((shown, on_shown))
        self._waiting_chars += len(shown)
        self._soon()

    def line(self, text: str) -> None:
        """Add a line of its own."""
        self.append(f"{text}\n" if self._fresh else f"\n{text}\n")

    def footer(self, rows: Sequence[Row | str]) -> None:
        """Show these rows below the text."""
        self._footer = tuple(row if isinstance(row, Row) else Row(row) for row in rows)
        if self._footer != self._painted and self._now() - self._last_footer >= FRAME_S:
            self._last_frame = float("-inf")  # a key was pressed: it need not wait for text
            self._stop_timer()
        if self._is_due:
            self._soon()

    def flush(self) -> None:
        """Paint everything now."""
        self._stop_timer()
        while self._is_due and self._is_ours():
            self._paint()
        if self._is_due:
            self._timer = self._call_later(FRAME_S, self._time_is_up)

    def finish(self) -> str:
        """Take the footer away; leave the cursor on a fresh line."""
        self._footer = ()
        self.flush()
        begun = self._tail.rpartition("\n")[2]
        if begun:
            self._write("\r\n")
        self._begin_anew()
        return begun

    async def released(self) -> None:
        """Finish, and wait until all is out."""
        self.finish()
        await _until_out(self._output)

    def reopen(self, begun: str | None = None) -> None:
        """Go on when somebody else has written."""
        self._follow_size()
        columns, rows = self._known_size
        if begun is None:
            begun = self._tail.rpartition("\n")[2]
        again = last_rows(begun, columns, rows - 1)
        fresh = self._fresh if self._waiting else not again
        self._begin_anew()
        self._fresh = fresh
        self._stale = True
        self._waiting.appendleft((again, None))
        self._waiting_chars += len(again)
        self._soon()

    def aside(self, do: Callable[[], object]) -> None:
        """Step aside while ``do`` has the terminal to itself."""
        footer = self._footer
        begun = self.finish()
        self._output.drain(ASIDE_PATIENCE_S)
        do()
        self.reopen(begun)
        self.footer(footer)

    def resized(self) -> None:
        """Follow the terminal's new size; the text it has wrapped anew itself."""
        self._follow_size()
        if self._is_due:
            self._soon()

    def redraw(self) -> None:
        """Clear the screen, then paint the end of this text and the footer."""
        self.flush()
        self._follow_size()
        columns, rows = self._known_size
        text = last_rows(self._tail, columns, rows - len(self._fitting()))
        self._caret = Caret(columns)
        self._caret.put(text)
        self._write(_BEGIN + _CLEAR + self._framed(text) + _END)

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return self._terminal.size()[0]

    @property
    def full(self) -> bool:
        """Whether so much waits that the caller should."""
        return self._waiting_chars > HIGH_WATER or self._output.full

    @property
    def blocked_for(self) -> float:
        """For how many seconds the terminal has taken nothing."""
        return self._output.blocked_for

    @property
    def all_out(self) -> bool:
        """Whether everything that was added has been written to the terminal."""
        return not self._waiting and self._output.drain(0)

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out; from another thread, the loop is asked to paint first."""
        if self._loop is None or self._thread == threading.get_ident():
            self.flush()
        else:
            painted = threading.Event()
            self._loop.call_soon_threadsafe(self.flush)
            self._loop.call_soon_threadsafe(painted.set)
            painted.wait(timeout)
        return self._output.drain(timeout) and self.all_out

    # -- when to paint

    @property
    def _is_due(self) -> bool:
        return bool(self._waiting) or self._stale or self._footer != self._painted

    def _soon(self) -> None:
        if self._timer is not None:
            return
        wait = self._last_frame + FRAME_S - self._now()
        if wait <= 0 and self._output.drain(0) and self._is_ours():
            self._paint()
            wait = FRAME_S
        if self._is_due:
            self._timer = self._call_later(max(wait, POLL_S), self._time_is_up)
            if self._timer is None:
                self.flush()

    def _on_the_running_loop(self, seconds: float, call: Callable[[], None]) -> Handle | None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs yet
            return None
        self._thread = threading.get_ident()
        return self._loop.call_later(seconds, call)

    def _time_is_up(self) -> None:
        self._timer = None
        self._soon()

    def _is_ours(self) -> bool:
        """Say whether we may paint; what a shell wrote while we might not ended its line."""
        ours = self._terminal.in_foreground
        if ours and self._away:
            self._away = False
            self.reopen()
        self._away = not ours
        return ours

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what to paint

    def _paint(self) -> None:
        """Compose one frame and hand it to the writer."""
        self._follow_size()
        text, on_shown = self._take()
        erased = _ERASE_BELOW_FULL + self._caret.park if self._caret.full else _ERASE_BELOW
        stays = self._caret.put(text)
        if text and stays and not self._stale and self._footer == self._painted:
            self._write(text, on_shown)  # it cannot touch the footer
        else:
            self._write(_BEGIN + erased + self._framed(text) + _END, on_shown)

    def _take(self) -> tuple[str, OnShown | None]:
        """Take the text of the next frame, and who wants to know that it is out."""
        parts, room, on_shown = [], FRAME_CHARS, None
        while self._waiting and room:
            text, told = self._waiting.popleft()
            parts.append(text[:room])
            if len(text) > room:
                self._waiting.appendleft((text[room:], told))
            else:
                on_shown = told or on_shown
            room -= len(parts[-1])
        self._waiting_chars -= FRAME_CHARS - room
        text = self._without_tabs("".join(parts))
        self._tail = (self._tail + text)[-TAIL_CHARS:]
        return text, on_shown

    def _without_tabs(self, text: str) -> str:
        """Put spaces for tabs: what a tab does at the end of a row, terminals disagree about."""
        begun = " " * (self._caret.line % TAB_CELLS)
        return (begun + text).expandtabs(TAB_CELLS)[len(begun) :] if "\t" in text else text

    def _framed(self, text: str) -> str:
        """Return the text, then the footer, then what brings the cursor back behind the text."""
        if self._footer != self._painted:
            self._last_footer = self._now()
        self._painted, self._stale = self._footer, False
        text = text.replace("\n", "\r\n")
        rows = self._fitting()
        if not rows:
            return text + self._caret.park
        room = f"{_INDEX * len(rows)}\x1b[{len(rows)}A"
        below = "".join(f"\r\n{self._styled(row)}" for row in rows)
        return f"{text}{room}{_SAVE}{_NO_WRAP}{below}{_RESTORE}{_WRAP}{self._caret.park}"

    def _fitting(self) -> tuple[Row, ...]:
        return self._footer[max(0, len(self._footer) - self._known_size[1] + 1) :]

    def _styled(self, row: Row) -> str:
        text = fit(sanitize(row.text).translate(_BLANKS), self._known_size[0] - 1)
        return text if row.look is Look.PLAIN else f"{_SGR[row.look]}{text}\x1b[0m"

    def _write(self, frame: str, on_shown: OnShown | None = None) -> None:
        self._last_frame = self._now()
        self._output.write(frame, on_shown and (lambda _chars: on_shown()), whole=True)

    def _begin_anew(self) -> None:
        self._caret = Caret(self._known_size[0])
        self._fresh = True
        self._tail = ""

    def _follow_size(self) -> None:
        size = self._terminal.size()
        if size != self._known_size:
            self._known_size = size
            self._caret.resize(size[0])
            self._stale = self._stale or bool(self._painted)


class PlainScreen:
    """Text that grows, and nothing else: for screen readers and terminals that can't move.

    What a footer would say arrives through `line`. See `Surface` for the methods.

    Args:
        output: the writer of the terminal; it must not clean what it is given.
        terminal: tells its size.
    """

    def __init__(self, output: Output, terminal: Tty) -> None:
        self._output = output
        self._terminal = terminal
        self._last = ""

    def append(self, text: str, on_shown: OnShown | None = None) -> None:
        """Write text."""
        shown = sanitize(text)
        self._last = shown[-1:] or self._last
        self._output.write(shown, on_shown and (lambda _chars: on_shown()), whole=True)

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self._start_a_line()
        self.append(f"{text}\n")

    def footer(self, rows: Sequence[Row | str]) -> None:
        """There is none."""

    def flush(self) -> None:
        """There is nothing that waits."""

    def finish(self) -> str:
        """Leave the cursor on a fresh line."""
        self._start_a_line()
        return ""

    async def released(self) -> None:
        """Finish, and wait until all is out."""
        self.finish()
        await _until_out(self._output)

    def reopen(self, begun: str | None = None) -> None:  # noqa: ARG002  (the port has it)
        """What somebody else has written ended its line."""
        self._last = ""

    def aside(self, do: Callable[[], object]) -> None:
        """Step aside while ``do`` has the terminal to itself."""
        self.finish()
        self._output.drain(ASIDE_PATIENCE_S)
        do()

    def resized(self) -> None:
        """The terminal wraps its lines itself."""

    def redraw(self) -> None:
        """Nothing was drawn."""

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return self._terminal.size()[0]

    @property
    def full(self) -> bool:
        """Whether so much waits that the caller should."""
        return self._output.full

    @property
    def blocked_for(self) -> float:
        """For how many seconds the terminal has taken nothing."""
        return self._output.blocked_for

    @property
    def all_out(self) -> bool:
        """Whether everything that was added has been written to the terminal."""
        return self._output.drain(0)

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out."""
        return self._output.drain(timeout)

    def _start_a_line(self) -> None:
        if self._last not in ("", "\n"):
            self.append("\n")


async def _until_out(output: Output) -> None:
    while not (output.drain(0) or output.broken):  # noqa: ASYNC110  (a thread writes)
        await asyncio.sleep(POLL_S)
