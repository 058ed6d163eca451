"""Styled text: spans, and what a terminal is sent for them. Pure.

A style is a set of bits, so that styles add up: emphasis in a heading is both. What a bit
looks like is the palette's business: `COLOR` uses the sixteen colours that every theme has
chosen well for itself, `MONO` none (https://no-color.org forbids colours, not bold or faint).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from wcwidth import iter_graphemes, wcswidth

from llmctl.terminal.width import cells

Span = tuple[str, int]
"""Text and the bits of its style; a text of one newline ends a line."""

Line = list[Span]

STRONG, EMPHASIS, STRUCK, CODE, LINK, HEADING = 1, 2, 4, 8, 16, 32
QUIET, KEYWORD, STRING, NUMBER, NAME, REVERSE, REMOVED = 64, 128, 256, 512, 1024, 2048, 4096
COMMENT = QUIET | EMPHASIS

NEWLINE: Span = ("\n", 0)

# Letters, signs and ideographs of which each is a cluster of its own, one or two cells wide:
# about joined, combined and flagged ones, terminals disagree.
_SURE = re.compile(
    "[\x20-\x7e\xa1-\xac\xae-\u02ff\u0370-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e"
    "\u2190-\u21ff\u2200-\u22ff\u2500-\u257f\u3001-\u3029\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff"
    "\uac00-\ud7a3\uff01-\uff5e]*"
)

# SGR parameters (ECMA-48, 8.3.117).
_SHAPES = {
    STRONG: "1",
    EMPHASIS: "3",
    STRUCK: "9",
    LINK: "4",
    HEADING: "1",
    QUIET: "2",
    REVERSE: "7",
}
_COLORS = {CODE: "36", KEYWORD: "35", STRING: "32", NUMBER: "33", NAME: "34", REMOVED: "31"}


@lru_cache(maxsize=1024)
def _parameters(style: int, color: bool) -> str:
    looks = {**_SHAPES, **_COLORS} if color else _SHAPES
    return ";".join(dict.fromkeys(sgr for bit, sgr in looks.items() if style & bit))


def encode(spans: Iterable[Span], *, color: bool) -> str:
    """Return what shows the spans on a terminal; it ends without any style."""
    parts: list[str] = []
    before = ""
    for text, style in spans:
        after = _parameters(style, color) if style else ""
        if after != before:
            lead = "0;" if before and after else ""
            parts.append(f"\x1b[{lead}{after}m")
            before = after
        parts.append(text)
    return "".join(parts) + ("\x1b[0m" if before else "")


def plain(spans: Iterable[Span]) -> str:
    """Return the text of the spans."""
    return "".join([text for text, _ in spans])


def lines_of(spans: Iterable[Span]) -> list[Line]:
    """Return the lines of spans in which a newline is a span of its own; the last may be empty."""
    lines: list[Line] = [[]]
    for span in spans:
        if span[0] == "\n":
            lines.append([])
        else:
            lines[-1].append(span)
    return lines


def rows_of(line: Line, columns: int, *, begun: int = 0) -> list[Line]:
    """Return the rows a line takes on a terminal of so many columns that wraps it.

    Args:
        line: what is wrapped.
        columns: the terminal's width.
        begun: cells of the first row that are taken already.
    """
    rows: list[Line] = [[]]
    room = columns - begun
    for text, style in line:
        while text:
            taken, left = _fitting(text, room)
            if not taken and room == columns:  # a wide sign on a terminal of one column
                taken = len(next(iter_graphemes(text)))
            room = left
            if taken:
                rows[-1].append((text[:taken], style))
            text = text[taken:]  # noqa: PLW2901  (what is left of it)
            if text:
                rows.append([])
                room = columns
    return rows


def _fitting(text: str, room: int) -> tuple[int, int]:
    """Return how many characters fit into so many cells, and the cells left then."""
    if text.isascii():
        taken = min(len(text), room)
        return taken, room - taken
    taken = 0
    for cluster in iter_graphemes(text):
        wide = max(0, wcswidth(cluster))
        if wide > room:
            break
        room -= wide
        taken += len(cluster)
    return taken, room


def width_of(spans: Sequence[Span]) -> int:
    """Return the cells that the spans take."""
    return sum([cells(text) for text, _ in spans])


def last_lines(spans: Sequence[Span], columns: int, rows: int) -> Line:
    """Return the end of the spans that takes at most so many rows of a terminal."""
    kept: list[Line] = []
    for line in reversed(lines_of(spans)):
        wrapped = rows_of(line, columns)[-rows:] if rows > 0 else []
        if not wrapped:
            break
        kept.append([span for row in wrapped for span in row])
        rows -= len(wrapped)
    joined: Line = []
    for index, line in enumerate(reversed(kept)):
        joined += [NEWLINE, *line] if index else line
    return joined


def common(old: Sequence[Span], new: Sequence[Span]) -> Line:
    """Return the beginning that two rows share, as far as every terminal agrees on its width."""
    shared: Line = []
    for (was, before), (is_, after) in zip(old, new, strict=False):
        length = _shared_length(was, is_) if before == after else 0
        if length:
            shared.append((is_[:length], after))
        if length < len(is_) or len(was) != len(is_):
            break
    return shared


def is_sure(text: str) -> bool:
    """Say whether every terminal agrees on the width of a text."""
    return text.isascii() or _SURE.fullmatch(text) is not None


def _shared_length(one: str, other: str) -> int:
    """Return how many characters two texts share, short of one that the next might join."""
    end = min(len(one), len(other), len(_one_cell_or_two(other)))
    same = next((place for place in range(end) if one[place] != other[place]), end)
    joins = any(not is_sure(text[same : same + 1]) for text in (one, other))
    return same - 1 if joins and same else same


def _one_cell_or_two(text: str) -> str:
    found = _SURE.match(text)
    return found[0] if found else ""


def after(row: Sequence[Span], shared: Sequence[Span]) -> Line:
    """Return what follows the beginning ``shared`` of a row."""
    skip = sum([len(text) for text, _ in shared])
    rest: Line = []
    for text, style in row:
        if skip < len(text):
            rest.append((text[skip:], style))
        skip = max(0, skip - len(text))
    return rest
