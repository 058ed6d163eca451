"""Styled text: spans, and what a terminal is sent for them. Pure.

A style is a set of bits, so that styles add up: emphasis in a heading is both. What a bit
looks like is the palette's business: `COLOR` uses the sixteen colours that every theme has
chosen well for itself, `MONO` none (https://no-color.org forbids colours, not bold or faint).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from wcwidth import iter_graphemes, wcswidth

from llmctl.terminal.width import cells

Span = tuple[str, int]
"""Text and the bits of its style; a text of one newline ends a line."""

Line = list[Span]

STRONG, EMPHASIS, STRUCK, CODE, LINK, HEADING = 1, 2, 4, 8, 16, 32
QUIET, KEYWORD, STRING, NUMBER, NAME = 64, 128, 256, 512, 1024
COMMENT = QUIET | EMPHASIS

NEWLINE: Span = ("\n", 0)

# SGR parameters (ECMA-48, 8.3.117).
_SHAPES = {STRONG: "1", EMPHASIS: "3", STRUCK: "9", LINK: "4", HEADING: "1", QUIET: "2"}
_COLORS = {CODE: "36", KEYWORD: "35", STRING: "32", NUMBER: "33", NAME: "34"}


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
    return "".join(parts) + ("\x1b[m" if before else "")


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


def common(old: Sequence[Span], new: Sequence[Span]) -> Line:
    """Return the beginning that two rows share, cut between two graphemes."""
    shared: Line = []
    for (was, before), (is_, after) in zip(old, new, strict=False):
        if before != after:
            break
        if was == is_:
            shared.append((was, before))
            continue
        length = _shared_length(was, is_)
        if length:
            shared.append((is_[:length], after))
        break
    return shared


def _shared_length(one: str, other: str) -> int:
    """Return how many characters two texts share, short of one that the next might join."""
    end = min(len(one), len(other))
    same = next((i for i in range(end) if one[i] != other[i]), end)
    if one.isascii() and other.isascii():
        return same
    clusters, length = list(iter_graphemes(other)), 0
    for cluster in clusters:
        if length + len(cluster) > same or one[length : length + len(cluster)] != cluster:
            break
        length += len(cluster)
    # The old text may go on where the new one has a whole cluster: stay one cluster back.
    return length if length < same or one[:length].isascii() else length - len(clusters[0])


def after(row: Sequence[Span], shared: Sequence[Span]) -> Line:
    """Return what follows the beginning ``shared`` of a row."""
    skip = sum([len(text) for text, _ in shared])
    rest: Line = []
    for text, style in row:
        if skip < len(text):
            rest.append((text[skip:], style))
        skip = max(0, skip - len(text))
    return rest
