"""The terminal as prompt_toolkit wants it: where its keys come from and where it paints."""

from __future__ import annotations

import os
import re
from typing import TextIO

from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import Input
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.input.posix_utils import PosixStdinReader
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output

from llmctl.terminal.tty import is_gone


def output_to(screen: int) -> Output:
    """Return a terminal's screen that is never asked where its cursor is."""

    def size() -> Size:
        try:
            columns, rows = os.get_terminal_size(screen)
        except OSError:
            columns = rows = 0
        return Size(rows=rows or 24, columns=columns or 80)

    stdout = open(screen, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    return Vt100_Output(stdout, size, term=os.environ.get("TERM"), enable_cpr=False)


def input_from(keys: int) -> Input:
    """Return a terminal's keys."""
    return _Keys(open(keys, encoding="utf-8", closefd=False))


class _Keys(Vt100Input):
    """A terminal's keys, mended where prompt_toolkit misreads them."""

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self.stdin_reader = _KnownKeys(stdin.fileno())

    def read_keys(self) -> list[KeyPress]:
        """Return the keys pressed; the second of two Escapes is one without any delay."""
        keys = super().read_keys()
        if keys and keys[-1].key is Keys.Escape:
            keys += self.flush_keys()
        return keys


# A whole sequence, and one that is certain to be none that a person begins (see `keys`).
_SEQUENCE = re.compile(
    "\x1b(?:"
    r"\[M[^\x00-\x1f]{3}|\[\[[@-~]|\[(?!M|\[)[0-?]*[ -/]*[@-~]|O[0-?]*[@-~]"
    "|\\][^\x00-\x1f]*(?:\x07|\x1b\\\\)|[P_^X][^\x00-\x1f]*\x1b\\\\"
    ")"
)
_BEGUN = re.compile(
    "\x1b(?:\\[M[^\x00-\x1f]{0,2}|\\[[0-?]+|\\]\\d[^\x00-\x1f]*\x1b?|P[0-?][^\x00-\x1f]*\x1b?)\\Z"
)
_PASTE_BEGIN, _PASTE_END = "\x1b[200~", "\x1b[201~"
_PASTE_END_BEGUN = re.compile(r"\x1b(?:\[(?:2(?:01?)?)?)?\Z")


class _KnownKeys(PosixStdinReader):
    """Bytes from the terminal, without what prompt_toolkit would misread.

    A terminal that was hung up it takes for one that has nothing to say.
    """

    _rest = ""
    _pasting = False

    def read(self, count: int = 1024) -> str:
        """Return what was typed; ``closed`` tells if nothing more will be."""
        new = self._rest + super().read(count)
        text, self._rest, self._pasting = without_reports(new, pasting=self._pasting)
        self.closed = self.closed or is_gone(self.stdin_fd)
        return text


def without_reports(text: str, *, pasting: bool = False) -> tuple[str, str, bool]:
    """Take reports out of what a terminal sends; what is pasted stays as it is.

    A sequence that prompt_toolkit does not know it takes for Escape and some letters; such a
    one is dropped.

    Args:
        text: what was sent.
        pasting: it begins in the middle of a paste.

    Returns:
        What was typed, what of it may be the beginning of a report or of a paste's end, and
        whether that is in the middle of a paste.
    """
    clean = ""
    while text:
        before, mark, behind = text.partition(_PASTE_END if pasting else _PASTE_BEGIN)
        rest = ""
        if not mark:
            begun = (_PASTE_END_BEGUN if pasting else _BEGUN).search(before)
            before, rest = (before, "") if begun is None else (before[: begun.start()], begun[0])
        clean += (before if pasting else _SEQUENCE.sub(_if_known, before)) + mark
        if not mark:
            return clean, rest, pasting
        text, pasting = behind, not pasting
    return clean, "", pasting


def _if_known(sequence: re.Match[str]) -> str:
    known = sequence[0] in ANSI_SEQUENCES or sequence[0] == _PASTE_END
    return sequence[0] if known else ""
