"""Well-formed text from pieces that need not be. Pure.

JSON may escape half a UTF-16 pair, and a server that cuts a reply by UTF-16 units sends
the halves of an emoji in two pieces. Halves that meet are joined; one that stays alone
becomes U+FFFD.
"""

from __future__ import annotations


class SurrogateJoiner:
    """Joins pairs that were cut between two pieces of one text.

    Example:
        >>> joiner = SurrogateJoiner()
        >>> joiner.join("a" + chr(0xD83D)), joiner.join(chr(0xDE00) + "b")
        ('a', '😀b')
    """

    __slots__ = ("_high",)

    def __init__(self) -> None:
        self._high = ""

    @property
    def waits(self) -> bool:
        """Whether the half of a pair is held back."""
        return bool(self._high)

    def join(self, piece: str) -> str:
        """Return the well-formed text that ``piece`` completes."""
        if not self._high and (piece.isascii() or is_well_formed(piece)):
            return piece
        text, self._high = self._high + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return well_formed(text)

    def flush(self) -> str:
        """Return what stands for a half that waited in vain."""
        text, self._high = well_formed(self._high), ""
        return text


def is_well_formed(text: str) -> bool:
    """Say whether a text has no surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def well_formed(text: str) -> str:
    """Return a text whose pairs are joined and whose lone halves are U+FFFD."""
    if is_well_formed(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
