r"""The sequence that hands text to the terminal's clipboard. Pure.

OSC 52 (xterm's ctlseqs, "Manipulate Selection Data"): ``ESC ] 52 ; c ; BASE64 BEL``. A
multiplexer keeps it to itself unless it is wrapped for passing through; tmux wants
``ESC P tmux ;``, the sequence with each ESC doubled, and ``ESC \``. The text is base64, so
nothing of it can act on the terminal.
"""

from __future__ import annotations

from base64 import b64encode

LONGEST = 74_994
"""Bytes of text at the most: base64 makes 100,000 of them, which common terminals take."""


def osc52(text: str, *, through_tmux: bool = False) -> str:
    """Return the sequence that puts a text into the clipboard."""
    sequence = f"\x1b]52;c;{b64encode(text.encode()).decode()}\x07"
    if through_tmux:
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{doubled}\x1b\\"
    return sequence
