"""Where blocks of Markdown begin, and what contains them. Pure patterns and nouns.

Lines come here with spaces for tabs (tab stops of four, as the specification counts). What
says where code is stands in `llmctl.fences`. Sources: CommonMark 0.31.2, sections 4 and 5;
GitHub Flavored Markdown for tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUOTE = re.compile(r" {0,3}> ?")
HEADING_END = re.compile(r"(?:^|(?<= ))#+ *$")

# What a line consists of that may yet become the beginning of something else: not shown while
# it is the last one and unfinished, so that nothing flashes up as what it will not be.
UNDECIDED = re.compile(r"[ >]*(?:[-=*_+~`#|: ]{1,80}|\d{1,9}[.)]?|<)?")
UNDECIDED_FENCE = re.compile(r" *[`~]+")

_BLOCK_TAGS = (
    "address article aside base basefont blockquote body caption center col colgroup dd details "
    "dialog dir div dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 "
    "head header hr html iframe legend li link main menu menuitem nav noframes ol optgroup option "
    "p param search section summary table tbody td tfoot th thead title tr track ul"
).replace(" ", "|")
_TAG = (
    r"(?:<[A-Za-z][A-Za-z0-9-]*+(?:\s++[A-Za-z_:][\w.:-]*+(?:\s*+=\s*+(?:[^\s\"'=<>`]++"
    r"|'[^']*+'|\"[^\"]*+\"))?+)*+\s*+/?>|</[A-Za-z][A-Za-z0-9-]*+\s*+>)"
)


@dataclass(frozen=True, slots=True)
class HtmlStart:
    """One of the ways in which a block of HTML begins.

    Attributes:
        begins: what its first line looks like.
        ends: what its last line holds; None if a blank line ends it.
        interrupts: it may follow a paragraph without a blank line.
    """

    begins: re.Pattern[str]
    ends: re.Pattern[str] | None = None
    interrupts: bool = True


HTML = tuple(
    HtmlStart(
        re.compile(rf" {{0,3}}{begins}", re.IGNORECASE),
        re.compile(ends, re.IGNORECASE) if ends else None,
        interrupts,
    )
    for begins, ends, interrupts in (
        (r"<(?:script|pre|style|textarea)(?:\s|>|$)", "</(?:script|pre|style|textarea)>", True),
        ("<!--", "-->", True),
        (r"<\?", r"\?>", True),
        ("<![A-Za-z]", ">", True),
        (r"<!\[CDATA\[", r"\]\]>", True),
        (rf"</?(?:{_BLOCK_TAGS})(?:\s|/?>|$)", "", True),
        (rf"{_TAG}\s*$", "", False),
    )
)


@dataclass(slots=True)
class Quote:
    """A block quote."""


@dataclass(slots=True)
class Bullets:
    """A list: what its items have in common.

    Attributes:
        sign: the bullet, or what follows the number.
        number: the next item's number; None in a list without numbers.
    """

    sign: str
    number: int | None

    def bullet(self) -> str:
        """Return what the next item begins with."""
        if self.number is None:
            return "• "
        self.number += 1
        return f"{self.number - 1}{self.sign} "


@dataclass(slots=True)
class Item:
    """An item of a list.

    Attributes:
        indent: spaces that a line of the item begins with.
        bullet: what is shown before its first line.
        bare: nothing has followed its bullet yet.
        shown: its bullet has been shown.
    """

    indent: int
    bullet: str
    bare: bool
    shown: bool = False


Container = Quote | Bullets | Item


def indent_of(line: str) -> int:
    """Return the spaces that a line begins with."""
    return len(line) - len(line.lstrip(" "))


def follow(container: Container, line: str) -> str | None:
    """Return what a line holds inside a container; None if it is outside of it."""
    match container:
        case Quote():
            found = QUOTE.match(line)
            return line[found.end() :] if found else None
        case Bullets():
            return line
        case Item(indent, _, bare):
            if not line.strip(" "):
                return None if bare else ""
            return line[indent:] if indent_of(line) >= indent else None
