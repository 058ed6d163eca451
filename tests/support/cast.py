"""A recording of a terminal: written, played again, and shown as a picture.

The file is an asciicast of version 2: a line of JSON with the size, then one line for each
thing that was written: when, in seconds, and what.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import pyte
from pyte.screens import Char
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.support.emulator import Emulator
from tests.support.processes import Chunk

__all__ = ["Cast", "Terminal", "picture"]

_FONTS = ("Fira Code, monospace", "ui-monospace, Menlo, DejaVu Sans Mono, Consolas, monospace")
_FAINT, _NORMAL, _GREY, _NO_COLOUR = 2, 22, 90, 39


class Terminal(Emulator):
    """A terminal that is fed text; faint letters, which pyte doesn't know, are grey."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__(columns, rows)
        self._stream = pyte.Stream(self)

    def feed(self, text: str) -> None:
        """Take what a program wrote."""
        self._stream.feed(text)

    def select_graphic_rendition(self, *codes: int, **how: Any) -> None:
        """Set how the letters to come look."""
        known = {_FAINT: (_GREY,), _NORMAL: (_NORMAL, _NO_COLOUR)}
        super().select_graphic_rendition(*(c for n in codes for c in known.get(n, (n,))), **how)

    @property
    def shown(self) -> list[str]:
        """The rows on the screen, without the blanks at their ends."""
        return [row.rstrip() for row in self.display]

    @property
    def scrollback(self) -> list[str]:
        """The rows that have left at the top, then those on the screen."""
        left = (
            "".join(row[column].data for column in range(self.columns)).rstrip()
            for row in self.history.top
        )
        return [*left, *self.shown]


@dataclass(frozen=True, slots=True)
class Cast:
    """A recording: the terminal's size, and what was written to it when.

    Attributes:
        columns: the terminal's width.
        rows: its height.
        writes: seconds since the beginning, and text.
    """

    columns: int
    rows: int
    writes: Sequence[tuple[float, str]]

    @classmethod
    def of_reads(cls, reads: Sequence[Chunk], started_ns: int, *, columns: int, rows: int) -> Self:
        """Make one of what was read from a terminal."""
        decoder = pyte.ByteStream().utf8_decoder
        texts = ((chunk.at_ns - started_ns, decoder.decode(chunk.data)) for chunk in reads)
        return cls(columns, rows, [(round(at / 1e9, 2), text) for at, text in texts if text])

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file."""
        head, *lines = map(json.loads, path.read_text().splitlines())
        return cls(head["width"], head["height"], [(at, text) for at, _, text in lines])

    def save(self, path: Path) -> None:
        """Write a file."""
        head = {"version": 2, "width": self.columns, "height": self.rows}
        lines = [head, *([at, "o", text] for at, text in self.writes)]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(text for _, text in self.writes)

    def play(self, until: str | None = None) -> Terminal:
        """Return a terminal that has been given it all, or up to the first row that begins so.

        Raises:
            ValueError: no row ever begins so.
        """
        terminal = Terminal(self.columns, self.rows)
        for _, text in self.writes:
            terminal.feed(text)
            if until is not None and any(row.startswith(until) for row in terminal.shown):
                return terminal
        if until is not None:
            raise ValueError(f"no row ever begins with {until!r}")
        return terminal


def picture(terminal: Terminal, title: str) -> str:
    """Return the screen as an SVG that asks nobody for anything, such as a font."""
    console = Console(
        record=True, width=terminal.columns, file=StringIO(), force_terminal=True, highlight=False
    )
    rows = terminal.shown
    while rows and not rows[-1]:
        rows.pop()
    for number in range(len(rows)):
        cells = [terminal.buffer[number][column] for column in range(terminal.columns)]
        runs = groupby(zip(cells, _styles(cells), strict=True), key=lambda pair: pair[1])
        parts = (("".join(cell.data for cell, _ in run), style) for style, run in runs)
        line = Text.assemble(*parts)
        console.print(line, soft_wrap=True)
    drawn = console.export_svg(title=title, unique_id="llmctl")
    own = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", drawn, flags=re.DOTALL)
    lines = own.replace(*_FONTS).splitlines()
    return "".join(f"{line.strip()}\n" for line in lines if line.strip())


def _styles(cells: Iterable[Char]) -> Iterator[Style]:
    """Yield how each cell looks; blanks go with the word before them.

    Not every program that shows an SVG keeps the blanks that a text begins with.
    """
    before = plain = Style()
    for cell in cells:
        own = _style(cell)
        unseen = not (before.reverse or before.underline or before.strike or before.bgcolor)
        if not (cell.data == " " and own == plain and unseen):
            before = own
        yield before


def _style(cell: Char) -> Style:
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold or None,
        italic=cell.italics or None,
        underline=cell.underscore or None,
        strike=cell.strikethrough or None,
        reverse=cell.reverse or None,
    )


def _colour(name: str) -> Color | None:
    """Return one of pyte's colours: a name, or six hexadecimal digits."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return Color.parse(f"#{name}")
    plain = name.removeprefix("bright").replace("brown", "yellow")
    return Color.parse(f"bright_{plain}" if name.startswith("bright") else plain)
