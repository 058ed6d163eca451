"""How many there are of something, as people say it."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts.

    >>> counted(1, "item"), counted(1200, "reply")
    ('1 item', '1,200 replies')
    """
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the word for several."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
