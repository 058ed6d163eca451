"""How far something is that takes a while, told on stderr."""

from __future__ import annotations

import os
import time
from typing import Protocol

from llmctl.environment import Environment

BAR_WIDTH, NARROWEST_BAR = 24, 4
DEFAULT_COLUMNS = 80
REPAINT_S = 0.1

_CLEAR_ROW = "\r\x1b[K"


class Tell(Protocol):
    """Is told how far something is."""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Take what is being done, and how many bytes of how many; None is not known."""


def teller(env: Environment) -> Tell:
    """Return what suits stderr: a bar on a terminal, lines elsewhere."""
    return Bar(env) if env.is_a_tty(env.stderr) else Lines(env)


class Lines:
    """Says each thing once, in a line of its own."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._said = ""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Say ``what``, unless that was the last thing said."""
        del done, total
        if what and what != self._said:
            self._env.note(what)
        self._said = what


class Bar:
    """Keeps one row of the terminal up to date; an empty ``what`` clears it."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._said = ""
        self._due = 0.0

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Paint the row, at most ten times a second."""
        now = time.monotonic()
        if what == self._said and now < self._due and done != total:
            return
        self._said, self._due = what, now + REPAINT_S
        try:
            told = row(what, done, total, _columns(self._env.stderr) - 1)
            os.write(self._env.stderr, f"{_CLEAR_ROW}{told}".encode())
        except OSError:
            return


def _columns(terminal: int) -> int:
    try:
        return os.get_terminal_size(terminal).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS


def row(what: str, done: int | None, total: int | None, width: int = DEFAULT_COLUMNS) -> str:
    """Return the text of a bar, of at most ``width`` characters; the figures go last.

    Example:
        >>> row("Fetching", 50_000_000, 100_000_000)
        'Fetching [############............] 50 of 100 MB'
    """
    if done is None or not total:
        return what[:width]
    figures = f"{done // 10**6} of {total // 10**6} MB"
    room = min(BAR_WIDTH, width - len(f"{what} [] {figures}"))
    if room < NARROWEST_BAR:
        return f"{what[: max(0, width - len(figures) - 1)]} {figures}"[-width:]
    full = min(room, room * done // total)
    return f"{what} [{'#' * full}{'.' * (room - full)}] {figures}"
