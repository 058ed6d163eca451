r"""From the bytes a terminal sends to the keys a person pressed. Pure: no I/O, no clock.

A terminal sends letters and reports over one line, and only their shape tells them apart.
This parser knows the shapes (ECMA-48, section 5; xterm's `ctlseqs`), not all the contents:
a sequence that it does not know is swallowed whole, so that a report which nobody asked for
never reads as the Escape key and a few letters.

=====================  ==========================================================
``ESC [ … final``      CSI: parameters 0x30-0x3F, intermediates 0x20-0x2F, final
``ESC O … final``      SS3: cursor keys and the keypad in application mode
``ESC ] … BEL | ST``   OSC; and DCS ``ESC P``, APC ``ESC _``, PM ``ESC ^``, SOS ``ESC X``
``ESC [ 200 ~``        what follows is pasted, up to ``ESC [ 201 ~``
``ESC CR``             Alt-Enter
=====================  ==========================================================

What is read depends only on the bytes, never on how they were split. One thing bytes cannot
tell: whether an Escape stands alone. Whoever feeds the parser calls `KeyParser.flush` when
`ESC_DELAY_S` seconds have passed without a byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

ESC_DELAY_S = 0.5
"""Seconds without a byte after which an unfinished sequence is none."""


class Key(StrEnum):
    """Keys that are not text, and the two that are more than text: Space and a paste."""

    SPACE = "space"
    PASTE = "paste"
    ESCAPE = "escape"
    ENTER = "enter"
    NEWLINE = "newline"
    TAB = "tab"
    BACKSPACE = "backspace"
    DELETE = "delete"
    UP = "up"
    DOWN = "down"
    LEFT = "left"
    RIGHT = "right"
    HOME = "home"
    END = "end"
    CTRL_C = "ctrl-c"
    CTRL_D = "ctrl-d"
    CTRL_K = "ctrl-k"
    CTRL_L = "ctrl-l"
    CTRL_R = "ctrl-r"
    CTRL_U = "ctrl-u"
    CTRL_W = "ctrl-w"
    CTRL_Z = "ctrl-z"
    CTRL_BACKSLASH = "ctrl-backslash"


@dataclass(frozen=True, slots=True)
class Press:
    """One key press.

    Attributes:
        key: which key; None for one printable character.
        text: that character, a space, or what was pasted (every line end is a newline).
    """

    key: Key | None
    text: str = ""


_ESC = 0x1B
_PASTE_END = b"\x1b[201~"
_CONTROLS: Mapping[int, Key] = {
    0x01: Key.HOME,  # Ctrl-A and its like: what readline has them do
    0x02: Key.LEFT,
    0x03: Key.CTRL_C,
    0x04: Key.CTRL_D,
    0x05: Key.END,
    0x06: Key.RIGHT,
    0x08: Key.BACKSPACE,
    0x09: Key.TAB,
    0x0A: Key.NEWLINE,
    0x0B: Key.CTRL_K,
    0x0C: Key.CTRL_L,
    0x0D: Key.ENTER,
    0x0E: Key.DOWN,
    0x10: Key.UP,
    0x12: Key.CTRL_R,
    0x15: Key.CTRL_U,
    0x17: Key.CTRL_W,
    0x1A: Key.CTRL_Z,
    0x1C: Key.CTRL_BACKSLASH,
    0x7F: Key.BACKSPACE,
}
_AFTER_ESC: Mapping[int, Key] = {
    0x0D: Key.NEWLINE,
    0x0A: Key.NEWLINE,
    0x7F: Key.CTRL_W,  # Alt-Backspace
    0x08: Key.CTRL_W,
}
_SEQUENCES: Mapping[bytes, Key] = {
    b"[A": Key.UP,
    b"[B": Key.DOWN,
    b"[C": Key.RIGHT,
    b"[D": Key.LEFT,
    b"[H": Key.HOME,
    b"[F": Key.END,
    b"OA": Key.UP,
    b"OB": Key.DOWN,
    b"OC": Key.RIGHT,
    b"OD": Key.LEFT,
    b"OH": Key.HOME,
    b"OF": Key.END,
    b"OM": Key.ENTER,  # the keypad's
    b"[1~": Key.HOME,
    b"[7~": Key.HOME,
    b"[4~": Key.END,
    b"[8~": Key.END,
    b"[3~": Key.DELETE,
    b"[200~": Key.PASTE,
}
# A whole sequence, each in the one way its introducer allows. The two oddities of CSI: a mouse
# report of the oldest kind (X10) has three bytes behind its final one, and the Linux console's
# F1 to F5 have a second bracket. In a string every byte below 0x20 means that it is none.
_WHOLE = re.compile(
    rb"\x1b(?:"
    rb"\[M[^\x00-\x1f]{3}|\[\[[\x40-\x7e]|\[(?!M|\[)[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]"
    rb"|O[\x30-\x3f]*[\x40-\x7e]"
    rb"|\][^\x00-\x1f]*(?:\x07|\x1b\\)"
    rb"|[P_^X][^\x00-\x1f]*\x1b\\"
    rb")",
    re.DOTALL,
)
_BEGUN = re.compile(
    rb"\x1b(?:"
    rb"\[M[^\x00-\x1f]{0,2}|\[\[|\[[\x30-\x3f]*[\x20-\x2f]*"
    rb"|O[\x30-\x3f]*"
    rb"|\][^\x00-\x1f]*\x1b?"
    rb"|[P_^X][^\x00-\x1f]*\x1b?"
    rb")?\Z",
    re.DOTALL,
)
# What a person types who goes on within half a second after Escape: no report begins so.
_TYPED = re.compile(rb"\x1b(?:\[|O|[\]P_^X](?:[A-Za-z ][^\x00-\x1f]*)?)\Z", re.DOTALL)
_JUNK = re.compile(rb"\x1b[\[O\]P_^X][^\x00-\x1f]*", re.DOTALL)


class KeyParser:
    """Turns bytes into presses, however the bytes are split."""

    def __init__(self) -> None:
        self._rest = b""
        self._pasted: bytearray | None = None

    @property
    def pending(self) -> bool:
        """Whether something has begun that `flush` would end."""
        return bool(self._rest) and self._pasted is None

    @property
    def pasting(self) -> bool:
        """Whether a paste has begun whose end has not come."""
        return self._pasted is not None

    def feed(self, data: bytes) -> list[Press]:
        """Take bytes; return the presses that they complete."""
        self._rest += data
        presses: list[Press] = []
        while self._rest and (taken := self._take()):
            presses += taken.presses
            self._rest = self._rest[taken.length :]
        return presses

    def flush(self) -> list[Press]:
        """Say that nothing followed for `ESC_DELAY_S`; return what was pressed then."""
        if not self.pending:
            return []
        given_up, self._rest = self._rest, b""
        return _give_up(given_up)

    def _take(self) -> _Taken | None:
        """Take one press from the start; None if its end has not come."""
        if self._pasted is not None:
            return self._take_paste(self._pasted)
        first = self._rest[0]
        if first == _ESC:
            return self._take_sequence()
        if first < 0x20 or first == 0x7F:  # noqa: PLR2004  (C0 and DEL)
            return _Taken.key(_CONTROLS.get(first), 1)
        return _take_character(self._rest)

    def _take_paste(self, pasted: bytearray) -> _Taken | None:
        # Only the tail can hold the beginning of an end that was split.
        start = max(0, len(pasted) - len(_PASTE_END) + 1)
        pasted += self._rest
        self._rest = b""
        end = pasted.find(_PASTE_END, start)
        if end < 0:
            return None
        self._rest = bytes(pasted[end + len(_PASTE_END) :])
        self._pasted = None
        return _Taken([Press(Key.PASTE, _pasted_text(bytes(pasted[:end])))], 0)

    def _take_sequence(self) -> _Taken | None:
        if whole := _WHOLE.match(self._rest):
            key = _SEQUENCES.get(whole[0][1:])
            if key is Key.PASTE:
                self._pasted = bytearray()
                key = None
            return _Taken.key(key, whole.end())
        if _BEGUN.match(self._rest):
            return None
        if key := _AFTER_ESC.get(self._rest[1]):
            return _Taken.key(key, 2)
        if broken := _JUNK.match(self._rest):
            return _Taken(_give_up(broken[0]), broken.end())
        return _Taken.key(Key.ESCAPE, 1)


@dataclass(frozen=True, slots=True)
class _Taken:
    presses: list[Press]
    length: int

    @classmethod
    def key(cls, key: Key | None, length: int) -> _Taken:
        return cls([] if key is None else [Press(key)], length)


def _give_up(begun: bytes) -> list[Press]:
    """Return what was pressed, now that these bytes are no sequence."""
    if begun == b"\x1b":
        return [Press(Key.ESCAPE)]
    if _TYPED.match(begun):
        return [Press(Key.ESCAPE), *KeyParser().feed(begun[1:])]
    return []


def _take_character(data: bytes) -> _Taken | None:
    """Take one character of UTF-8; what is not UTF-8 goes, byte by byte."""
    length = _utf8_length(data[0])
    follow = data[1:length]
    if not all(0x80 <= byte < 0xC0 for byte in follow):  # noqa: PLR2004  (continuation bytes)
        return _Taken([], 1)
    if len(data) < length:
        return None
    try:
        return _Taken(_typed(data[:length].decode()), length)
    except UnicodeDecodeError:
        return _Taken([], 1)


def _utf8_length(first: int) -> int:
    """Return how many bytes the character has that begins so (RFC 3629, section 3)."""
    return 1 + sum(first >= limit for limit in (0xC2, 0xE0, 0xF0)) if first < 0xF5 else 1  # noqa: PLR2004


def _typed(character: str) -> list[Press]:
    if character == " ":
        return [Press(Key.SPACE, " ")]
    if "\x80" <= character <= "\x9f":  # C1 controls
        return []
    return [Press(None, character)]


def _pasted_text(data: bytes) -> str:
    """Return pasted bytes as text; terminals send its line ends as carriage returns."""
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
