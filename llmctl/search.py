"""What a search finds: texts in which all words occur, in any case, as parts of words too. Pure.

Case is folded as Unicode says, so that a word may be longer or shorter than what it finds
(``STRASSE`` finds ``Straße``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from llmctl.errors import UsageError


def check(words: Sequence[str]) -> None:
    """Refuse what every text contains.

    Raises:
        UsageError: a word is empty or blank.
    """
    if not all(map(str.strip, words)):
        raise UsageError("A word can't be empty.", "llmctl conversations search WORD…")


def contains(text: str, words: Sequence[str]) -> bool:
    """Say whether a text contains all words.

    >>> contains("Three codes", ["code", "THREE"])
    True
    """
    folded = text.casefold()
    return all(word.casefold() in folded for word in words)


def around(text: str, word: str, room: int = 60) -> str:
    """Return the text around the first place of a word that it contains, on one line.

    Args:
        text: the whole.
        word: what must be in the excerpt.
        room: characters in front of the word, and from its beginning on at least.
    """
    begin, end = _place(text, word)
    begin, end = max(0, begin - room), max(end, begin + room)
    excerpt = " ".join(text[begin:end].split())
    return ("…" if begin else "") + excerpt + ("…" if end < len(text) else "")


def _place(text: str, word: str) -> tuple[int, int]:
    """Return where a word begins and ends in a text that contains it."""
    folded, word = text.casefold(), word.casefold()
    at = folded.index(word)
    if len(folded) == len(text):  # no character folds to none
        return at, at + len(word)
    ends = list(accumulate(len(character.casefold()) for character in text))
    return bisect_right(ends, at), bisect_right(ends, at + len(word) - 1) + 1
