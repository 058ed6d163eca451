r"""The only writer to the terminal while a reply streams: text above, a footer below.

Text is append-only and left to the terminal to wrap, so that it can be copied, scrolled
back and wrapped anew as if it had been printed by ``cat``. Below it hangs what may still
change: the tail of a reply (see `live`), and the footer (draft, status). Between two frames
the cursor stands behind the text, where the tail begins, and the terminal knows where that
is; we never have to count rows, and a resize cannot confuse us. A frame::

    ESC[?2026h ESC[?25l      begin a synchronized update, hide the cursor
    ESC[J                    erase what is below the cursor: tail and footer
    …text…                   as it is
    ESC D …, ESC[nA          make room for n rows, scrolling if need be; the column stays
    ESC 7                    remember where the text ended (DECSC)
    ESC[?7l … ESC[?7h        the rows of tail and footer, which must not wrap
    ESC 8                    back behind the text (DECRC)
    ESC[?25h ESC[?2026l      show the cursor, end the update

Sources: ECMA-48 (ED, CUU, CUD, CUB, CUF), DEC STD 070 (IND, DECSC, DECRC, DECAWM, DECTCEM) and the
description of synchronized output (mode 2026) that terminals share. Where the last row is
full, erasing begins on the next, and in the end the row's last cluster is written again
(`Caret.park`): a cursor that waits for a character to wrap it loses that state by any move,
and would take the last cell with it.

Where only rows below the text change, and none is added, just what differs is written. With a
tail, the cursor stays hidden between frames: it would blink at the tail's beginning.

Frames are at most 30 a second, the first at once, and none before the last one is out: a
slow line gets fewer frames, not a queue of them. Footers are counted by themselves, so that
the answer to a key is not held up by text.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from llmctl.output import Output
from llmctl.terminal.live import Live
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import (
    NEWLINE,
    QUIET,
    REVERSE,
    Line,
    Span,
    after,
    common,
    encode,
    is_sure,
    last_lines,
    lines_of,
    plain,
    width_of,
)
from llmctl.terminal.surface import Look, OnShown, Row, Surface, Tty
from llmctl.terminal.width import TAB_CELLS, Caret, fit, last_rows

__all__ = ["Look", "PlainScreen", "Row", "Screen", "Surface"]

FRAME_S = 1 / 30
"""Seconds between two frames at the least."""

FRAME_CHARS = 8192
"""Characters of text in one frame at the most: what bounds the time it takes."""

REPLY_COST = 8
"""How many of them a character of Markdown counts for."""

HIGH_WATER = FRAME_CHARS
"""Characters waiting above which `Screen.full` says so: the frame that shows a pause has them."""

SMALL = 512
"""Characters too few to be split, or left to a frame of their own."""

FOOTER_PATIENCE_S = 0.25
"""Seconds that a new footer waits at most while there is more text than a frame takes."""

TAIL_CHARS = 16 * 1024
"""Characters of text that are remembered, to paint them again."""

ASIDE_PATIENCE_S = 1.0
"""Seconds that a terminal gets to take what was written before somebody else writes."""

POLL_S = 0.005
"""Seconds between two looks whether the last frame is out."""

ROOM_FOR_A_NOTE = 3
"""Rows in which one may say that there is more above."""

_BEGIN = "\x1b[?2026h\x1b[?25l"
_BEGIN_HIDDEN = "\x1b[?2026h"
_END_HIDDEN = "\x1b[?2026l"
_END = "\x1b[?25h\x1b[?2026l"
_ERASE_RIGHT = "\x1b[K"
_ERASE_BELOW = "\x1b[J"
# From the first cell of all on, erasing is for tmux what `clear` does: it keeps the rows.
_ERASE_BELOW_START = f"{_ERASE_RIGHT}\x1b[C{_ERASE_BELOW}\x1b[D"
_CLEAR = "\x1b[H\x1b[2J"
_INDEX = "\x1bD"
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_ERASE_BELOW_FULL = f"{_INDEX}\x1b[A{_SAVE}\x1b[B\r\x1b[J{_RESTORE}"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_BLANKS = str.maketrans("\n\t", "  ")


# No colours: NO_COLOR has nothing to forbid.
_STYLES = {Look.PLAIN: 0, Look.QUIET: QUIET, Look.LOUD: REVERSE}


class _Kind(Enum):
    """What waits to be shown."""

    TEXT = "text as it is"
    LINE = "a line of its own"
    REPLY = "a reply's Markdown"
    THOUGHT = "a reply's reasoning"
    SEEN = "a reply's beginning, shown before"
    END = "the end of a reply"


@dataclass(frozen=True, slots=True)
class _Waiting:
    kind: _Kind
    text: str = ""
    on_shown: OnShown | None = None

    @property
    def cost(self) -> int:
        """How much of a frame it takes."""
        return len(self.text) * (1 if self.kind in (_Kind.TEXT, _Kind.LINE) else REPLY_COST)

    def split(self, room: int) -> tuple[_Waiting, _Waiting | None]:
        """Return what fits into a frame, and what does not."""
        chars = max(SMALL, room * len(self.text) // max(1, self.cost))
        if chars >= len(self.text) or self.kind in (_Kind.LINE, _Kind.SEEN):
            return self, None
        rest = _Waiting(self.kind, self.text[chars:], self.on_shown)
        return _Waiting(self.kind, self.text[:chars]), rest


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
        color: colours may be used.
        now: a clock in seconds.
        call_later: calls back after so many seconds, or returns None if nothing can do that
            (then all is painted at once); by default the running loop's.
    """

    def __init__(
        self,
        output: Output,
        terminal: Tty,
        *,
        color: bool = True,
        now: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        self._output = output
        self._terminal = terminal
        self._color = color
        self._now = now
        self._call_later = call_later or self._on_the_running_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._known_size = terminal.size()
        self._caret = Caret(self._known_size[0])
        self._waiting: deque[_Waiting] = deque()
        self._waiting_cost = 0
        self._live: Live | None = None
        self._footer: tuple[Row, ...] = ()
        self._painted: tuple[Row, ...] = ()
        self._below: list[Line] = []
        self._stale = False
        self._away = False
        self._past: Line = []
        self._past_chars = 0
        self._last_frame = float("-inf")
        self._last_footer = float("-inf")
        self._timer: Handle | None = None

    def append(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text."""
        self._add(_Waiting(_Kind.TEXT, sanitize(text), on_shown))

    def line(self, text: str) -> None:
        """Add a line of its own."""
        self._add(_Waiting(_Kind.LINE, sanitize(text)))

    def reply(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text of a reply."""
        self._add(_Waiting(_Kind.REPLY, text, on_shown))

    def thought(self, text: str, on_shown: OnShown | None = None) -> None:
        """Add text of a reply's reasoning."""
        self._add(_Waiting(_Kind.THOUGHT, text, on_shown))

    def seen(self, text: str) -> None:
        """Begin with the text of a reply that was shown before."""
        self._add(_Waiting(_Kind.SEEN, text))

    def end_reply(self) -> None:
        """End the reply."""
        self._add(_Waiting(_Kind.END))

    def footer(self, rows: Sequence[Row | str]) -> None:
        """Show these rows below the text."""
        self._footer = tuple(row if isinstance(row, Row) else Row(row) for row in rows)
        if self._footer != self._painted and self._now() - self._last_footer >= FRAME_S:
            self._last_frame = float("-inf")  # a key was pressed: it need not wait for text
            self._stop_timer()
        if self._is_due:
            self._soon()

    def flush(self) -> None:
        """Paint everything now, the footer in the last frame."""
        self._stop_timer()
        while self._is_due and self._is_ours():
            self._paint(all_follows=True)
        if self._is_due:
            self._timer = self._call_later(FRAME_S, self._time_is_up)

    def finish(self) -> str:
        """Take the footer away; leave the cursor on a fresh line."""
        self._footer = ()
        self.flush()
        begun = plain(lines_of(self._past)[-1])
        tail = self._tail()
        if self._live is not None:
            rows = [span for row in tail for span in (*row, NEWLINE)]
            self._write(_BEGIN + self._erased() + self._encoded(rows) + _END)
        if begun and not tail:
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
            begun = plain(lines_of(self._past)[-1])
        again = last_rows(begun, columns, rows - 1)
        self._begin_anew()
        self._stale = True
        self._waiting.appendleft(_Waiting(_Kind.TEXT, again))
        self._waiting_cost += len(again)
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
        below = self._rows_below()
        spans = last_lines(self._past, columns, rows - len(below) + 1)
        rows, self._caret = self._caret.rows, Caret(columns)
        self._caret.put(plain(spans))
        self._caret.rows = rows
        self._write(_BEGIN + _CLEAR + self._framed(spans, below) + self._end)

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return self._terminal.size()[0]

    @property
    def rows(self) -> int:
        """How high the terminal is now."""
        return self._terminal.size()[1]

    @property
    def rows_taken(self) -> int:
        """How many rows lower than at the beginning the text ends, with what may still change."""
        return self._caret.rows + max(0, len(self._tail()) - 1)

    @property
    def full(self) -> bool:
        """Whether so much waits that the caller should."""
        return self._waiting_cost > HIGH_WATER or self._output.full

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

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._waiting_cost += waiting.cost
        self._soon()

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

    def _paint(self, *, all_follows: bool = False) -> None:
        """Compose one frame and hand it to the writer."""
        self._follow_size()
        spans, on_shown = self._take()
        footer = self._footer
        patient = all_follows or self._now() - self._last_footer < FOOTER_PATIENCE_S
        if self._waiting and patient:  # it may say that this was all
            self._footer = self._painted
        erased = self._erased()
        text = plain(spans)
        stays = self._caret.put(text)
        if self._live is None and text and stays and not self._due_below:
            self._write(text, on_shown)  # it cannot touch the footer
        elif not text and self._can_mend:
            self._mend(on_shown)
        else:
            framed = self._framed(spans, self._rows_below())
            self._write(_BEGIN + erased + framed + self._end, on_shown)
        self._footer = footer

    def _take(self) -> tuple[Line, OnShown | None]:
        """Take what the next frame adds, and who wants to know that it is out."""
        spans: Line = []
        room, on_shown = FRAME_CHARS, None
        while self._waiting and (room > 0 or self._waiting_cost <= SMALL):
            now, rest = self._waiting.popleft().split(room)
            if rest is not None:
                self._waiting.appendleft(rest)
            room -= max(1, now.cost)
            self._waiting_cost -= now.cost
            on_shown = now.on_shown or on_shown
            spans += self._taken(now, spans)
        self._remember(spans)
        return spans, on_shown

    def _taken(self, now: _Waiting, before: Line) -> Sequence[Span]:
        """Return what stays of something that has come; ``before`` it stays this."""
        if now.kind is _Kind.TEXT:
            return list(_split(self._without_tabs(now.text, before)))
        if now.kind is _Kind.LINE:
            fresh = before[-1] == NEWLINE if before else not self._caret.last
            return [*([] if fresh else [NEWLINE]), *_split(now.text.expandtabs(TAB_CELLS)), NEWLINE]
        if now.kind is _Kind.END:
            live, self._live = self._live, None
            self._stale = self._stale or live is not None
            return [] if live is None else live.end()
        live = self._live = self._live or Live(self._known_size[0], color=self._color)
        match now.kind:
            case _Kind.THOUGHT:
                live.thought(now.text)
            case _Kind.SEEN:
                live.seen(now.text)
            case _:
                return live.reply(now.text)
        return []

    def _remember(self, spans: Line) -> None:
        self._past += spans
        self._past_chars += sum([len(text) for text, _ in spans])
        if self._past_chars > 2 * TAIL_CHARS:
            kept = 0
            while self._past_chars > TAIL_CHARS:
                self._past_chars -= len(self._past[kept][0])
                kept += 1
            del self._past[:kept]

    def _without_tabs(self, text: str, before: Line) -> str:
        """Put spaces for tabs: what a tab does at the end of a row, terminals disagree about."""
        if "\t" not in text:
            return text
        taken = width_of(lines_of(before)[-1]) + (0 if NEWLINE in before else self._caret.line)
        begun = " " * (taken % TAB_CELLS)
        return (begun + text).expandtabs(TAB_CELLS)[len(begun) :]

    # -- what is below the text

    @property
    def _due_below(self) -> bool:
        return self._stale or self._footer != self._painted

    @property
    def _can_mend(self) -> bool:
        """Whether the rows below the text can be changed where they stand."""
        return self._live is not None and not self._stale and not self._caret.full

    @property
    def _end(self) -> str:
        return _END if self._live is None else _END_HIDDEN

    def _erased(self) -> str:
        if not self._caret.column:
            return _ERASE_BELOW_START
        if not self._caret.full:
            return _ERASE_BELOW
        if self._known_size[1] == 1:
            return ""  # no row is below: making room for one would scroll the text away
        return _ERASE_BELOW_FULL + self._caret.park

    def _mend(self, on_shown: OnShown | None) -> None:
        """Write only what has changed below the text."""
        rows = self._rows_below()
        if len(rows) != len(self._below):
            framed = self._framed([], rows)
            self._write(_BEGIN + self._erased() + framed + self._end, on_shown)
            return
        changes = "".join(self._changes(rows))
        self._note_below(rows)
        if changes:
            changes = f"{_SAVE}{_NO_WRAP}{changes}{_RESTORE}{_WRAP}"
        if changes or on_shown:
            self._write(_BEGIN_HIDDEN + changes + _END_HIDDEN, on_shown)

    def _changes(self, rows: Sequence[Line]) -> Iterator[str]:
        at = 0
        for number, (old, new) in enumerate(zip(self._below, rows, strict=True)):
            if old == new:
                continue
            shared = common(old, new)
            column = width_of(shared) + (0 if number else self._caret.column)
            down = f"\x1b[{number - at}B" if number > at else ""
            shorter = width_of(new) < width_of(old) or not is_sure(plain(old))
            place = f"{down}\x1b[{column + 1}G{_ERASE_RIGHT if shorter else ''}"
            yield place + encode(after(new, shared), color=self._color)
            at = number

    def _framed(self, spans: Sequence[Span], rows: list[Line]) -> str:
        """Return the text, then what is below, then what brings the cursor back behind the text."""
        self._note_below(rows)
        text = self._encoded(spans)
        first, *others = [encode(row, color=self._color) for row in rows]
        if not first and not others:
            return text + self._caret.park
        room = f"{_INDEX * len(others)}\x1b[{len(others)}A" if others else ""
        below = first + "".join(f"\r\n{row}" for row in others)
        return f"{text}{room}{_SAVE}{_NO_WRAP}{below}{_RESTORE}{_WRAP}{self._caret.park}"

    def _encoded(self, spans: Sequence[Span]) -> str:
        return encode(spans, color=self._color).replace("\n", "\r\n")

    def _note_below(self, rows: list[Line]) -> None:
        if self._footer != self._painted:
            self._last_footer = self._now()
        self._painted, self._below, self._stale = self._footer, rows, False

    def _rows_below(self) -> list[Line]:
        """Return the rows from that on which the text ends: what follows it there, and below."""
        rows = self._known_size[1]
        footer = [self._styled(row) for row in self._footer[max(0, len(self._footer) - rows + 1) :]]
        return (self._tail(rows - len(footer)) or [[]]) + footer

    def _tail(self, rows: int = 0) -> list[Line]:
        """Return what the reply goes on with: its last rows, if there is not room for all."""
        if self._live is None:
            return []
        tail = self._live.tail(self._caret.column)
        if not rows or len(tail) <= rows:
            return tail
        begun: list[Line] = [[]] if self._caret.column else []
        room = rows - len(begun)
        if room < ROOM_FOR_A_NOTE:
            return [*begun, *tail[len(tail) - room :]]
        above = len(tail) - room + 1
        note = fit(f"⋮ {above:,} more rows above", self._known_size[0] - 1)
        return [*begun, [(note, QUIET)], *tail[above:]]

    def _styled(self, row: Row) -> Line:
        text = fit(sanitize(row.text).translate(_BLANKS), self._known_size[0] - 1)
        return [(text, _STYLES[row.look])]

    def _write(self, frame: str, on_shown: OnShown | None = None) -> None:
        self._last_frame = self._now()
        self._output.write(frame, on_shown and (lambda _chars: on_shown()), whole=True)

    def _begin_anew(self) -> None:
        self._caret = Caret(self._known_size[0], rows=self._caret.rows + 1)
        self._past, self._past_chars = [], 0

    def _follow_size(self) -> None:
        size = self._terminal.size()
        if size != self._known_size:
            self._known_size = size
            self._caret.resize(size[0])
            if self._live is not None:
                self._live.resize(size[0])
            self._stale = self._stale or bool(self._painted) or self._live is not None


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
        self._thinks = False
        self._caret = Caret(self.columns)

    def append(self, text: str, on_shown: OnShown | None = None) -> None:
        """Write text."""
        shown = sanitize(text)
        self._last = shown[-1:] or self._last
        self._caret.put(shown)
        self._output.write(shown, on_shown and (lambda _chars: on_shown()), whole=True)

    def reply(self, text: str, on_shown: OnShown | None = None) -> None:
        """Write text of a reply as it is."""
        self._thinks = False
        self.append(text, on_shown)

    def thought(self, text: str, on_shown: OnShown | None = None) -> None:  # noqa: ARG002
        """Say once that the model thinks; what it thinks is not read out."""
        if not self._thinks:
            self.line("[thinking]")
        self._thinks = True

    def seen(self, text: str) -> None:
        """Write the line again that a reply had begun."""
        self.append(text.rpartition("\n")[2])

    def end_reply(self) -> None:
        """Nothing waits for the end."""
        self._thinks = False

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
        self._caret.resize(self.columns)

    def redraw(self) -> None:
        """Nothing was drawn."""

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return self._terminal.size()[0]

    @property
    def rows(self) -> int:
        """How high the terminal is now."""
        return self._terminal.size()[1]

    @property
    def rows_taken(self) -> int:
        """How many rows lower than at the beginning the text ends."""
        return self._caret.rows

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


def _split(text: str) -> Iterator[Span]:
    """Return plain text as spans, a newline being one of its own."""
    first, *others = text.split("\n")
    if first:
        yield first, 0
    for line in others:
        yield NEWLINE
        if line:
            yield line, 0


async def _until_out(output: Output) -> None:
    while not (output.drain(0) or output.broken):  # noqa: ASYNC110  (a thread writes)
        await asyncio.sleep(POLL_S)
