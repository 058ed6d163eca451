"""What a model, a server or a file says never reaches a terminal as control bytes.

Every control character is dropped by itself, so text may be cleaned in any pieces. Kept are
newline and tab. Dropped are the other C0 controls, DEL, C1 (which begins sequences on
8-bit terminals) and the bidirectional controls that make text read other than it is
(CVE-2021-42574). A carriage return is dropped too: it would let text overwrite itself.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]")


def sanitize(text: str) -> str:
    """Return ``text`` without anything that a terminal would act on."""
    return _UNSAFE.sub("", text)
