"""Emphasis, code, links: from the text of a paragraph to spans. Pure.

The algorithm is that of the CommonMark specification (0.31.2, "Parsing strategy", phase 2):
one pass finds runs of delimiters, a stack pairs them. Every step is linear, or nearly, in the
text, whatever it holds. As chats write, a line end is a line end; a link shows its address;
a reference to a link defined elsewhere, and HTML, stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from html.entities import html5

from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import CODE, EMPHASIS, LINK, QUIET, STRONG, STRUCK, Span

_PUNCTUATION = re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_SPECIAL = re.compile(r"[\\`*_~\[\]!<&\n]")
_PLAIN = re.compile(r"[^\\`*_~\[\]!<&\n]+")
_ESCAPED = re.compile(rf"\\([{_PUNCTUATION}])")
_ENTITY = re.compile(r"&(?:#[xX]([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([A-Za-z][A-Za-z0-9]{1,31}));")
_BREAK = re.compile(r"\n *+")
_AUTOLINK = re.compile(
    r"<([A-Za-z][A-Za-z0-9.+-]{1,31}:[^\s<>]*+|[\w.!#$%&'*+/=?^`{|}~-]++@[\w-]++(?:\.[\w-]++)*+)>"
)
_ATTRIBUTE = r"\s++[A-Za-z_:][\w.:-]*+(?:\s*+=\s*+(?:[^\s\"'=<>`]++|'[^']*+'|\"[^\"]*+\"))?+"
_HTML = re.compile(
    rf"<(?:[A-Za-z][A-Za-z0-9-]*+(?:{_ATTRIBUTE})*+\s*+/?>|/[A-Za-z][A-Za-z0-9-]*+\s*+>"
    r"|!--(?:-?>|(?:[^-]|-(?!->))*+-->)|\?(?:[^?]|\?(?!>))*+\?>|![A-Za-z][^>]*+>)"
)
_ONE = r"[^ \n()\\]|\\."  # only blanks end it: a no-break space is part of an address
_DESTINATION = rf"<(?:[^<>\n\\]|\\.)*+>|(?!<)(?:{_ONE}|\((?:{_ONE}|\((?:{_ONE})*+\))*+\))*+"
_TITLE = r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\)"
_TARGET = re.compile(rf"\([ \n]*+({_DESTINATION})(?:[ \n]++(?:{_TITLE}))?+[ \n]*+\)", re.DOTALL)
_FORBIDDEN = re.compile(r"\s*+(?:javascript|vbscript|file|data):", re.IGNORECASE)

OPEN_CHARS = 300
"""Characters at the end of a growing text in which what is open is shown as if it were closed."""


@dataclass(slots=True)
class _Run:
    """A run of delimiters.

    Attributes:
        node: where its characters stand.
        at: where it begins in the text.
        sign: which character.
        length: how many there were.
        left: how many are not paired yet.
        opens: it may begin emphasis.
        closes: it may end emphasis.
    """

    node: int
    at: int
    sign: str
    length: int
    left: int
    opens: bool
    closes: bool


@dataclass(slots=True)
class _Bracket:
    node: int
    image: bool
    runs: int
    active: bool = True


def spans_of(
    text: str, style: int = 0, *, ticks: bool = False, growing: bool = False
) -> list[Span]:
    """Return the spans of a paragraph's text.

    Args:
        text: one or more lines of Markdown, without controls.
        style: what is added to every span.
        ticks: code keeps its backticks: where there is no colour to tell it.
        growing: more of the text is to come: what is open at its end is shown as it will be.
    """
    if not _SPECIAL.search(text):
        return [(text, style)]
    parser = _Parser(text, ticks=ticks, growing=growing)
    return parser.spans(style)


def is_settled(text: str) -> bool:
    """Say whether nothing that follows ``text`` can change how it reads."""
    parser = _Parser(text, ticks=False, growing=False)
    return parser.settled


class _Parser:
    def __init__(self, text: str, *, ticks: bool, growing: bool) -> None:
        self._text = text
        self._ticks = ticks
        self._growing = growing
        self._nodes: list[Span] = []
        self._marks: list[tuple[int, int, int]] = []
        self._runs: list[_Run] = []
        self._brackets: list[_Bracket] = []
        self._unpaired_ticks: set[int] = set()
        self._loose = False
        self._scan()
        self._pair(0)
        if growing:
            self._close_open()

    @property
    def settled(self) -> bool:
        """Whether nothing is left open."""
        return not (
            self._loose or self._brackets or any(run.left and run.opens for run in self._runs)
        )

    def spans(self, style: int) -> list[Span]:
        """Return what was found, each node with the styles that hold there."""
        counts: dict[int, int] = {}
        marks = sorted(self._marks, reverse=True)
        found: list[Span] = []
        for index, (text, own) in enumerate(self._nodes):
            while marks and marks[-1][0] <= index:
                _, bit, step = marks.pop()
                counts[bit] = counts.get(bit, 0) + step
            if text:
                held = sum([bit for bit, count in counts.items() if count > 0])
                found.append((text, style | own | held))
        return found

    # -- one pass over the text

    def _scan(self) -> None:
        text, at, end = self._text, 0, len(self._text)
        while at < end:
            if match := _PLAIN.match(text, at):
                self._add(match[0])
                at = match.end()
                continue
            at = self._special(text[at], at)

    def _special(self, sign: str, at: int) -> int:  # noqa: PLR0911  (one for each sign)
        match sign:
            case "\\":
                return self._escape(at)
            case "`":
                return self._code(at)
            case "*" | "_" | "~":
                return self._delimiters(sign, at)
            case "[":
                return self._bracket(at, "[")
            case "!" if self._text.startswith("![", at):
                return self._bracket(at, "![")
            case "]":
                return self._close_bracket(at)
            case "<":
                return self._angle(at)
            case "&":
                return self._entity(at)
            case "\n":
                return self._line_end(at)
            case _:
                return self._literal(sign, at)

    def _add(self, text: str, style: int = 0) -> None:
        self._nodes.append((text, style))

    def _literal(self, text: str, at: int) -> int:
        self._add(text)
        return at + len(text)

    def _escape(self, at: int) -> int:
        if match := _ESCAPED.match(self._text, at):
            self._add(match[1])
            return match.end()
        if self._text.startswith("\\\n", at):
            return at + 1
        self._loose |= at + 1 == len(self._text)
        return self._literal("\\", at)

    def _line_end(self, at: int) -> int:
        if self._nodes:
            text, style = self._nodes[-1]
            self._nodes[-1] = (text.rstrip(" ") if not style else text, style)
        self._add("\n")
        match = _BREAK.match(self._text, at)
        return match.end() if match else at + 1

    def _code(self, at: int) -> int:
        end = at
        while end < len(self._text) and self._text[end] == "`":
            end += 1
        ticks = self._text[at:end]
        close = -1 if len(ticks) in self._unpaired_ticks else _closing(self._text, ticks, end)
        if close < 0:
            self._unpaired_ticks.add(len(ticks))
            self._loose = True
            if not self._growing or len(self._text) - at > OPEN_CHARS:
                return self._literal(ticks, at)
            close = len(self._text)
            ticks = "" if close == end else ticks
        code = self._text[end:close].replace("\n", " ")
        if code.startswith(" ") and code.endswith(" ") and code.strip():
            code = code[1:-1]
        self._add(f"{ticks}{code}{ticks}" if self._ticks else code, CODE)
        return close + len(ticks)

    def _delimiters(self, sign: str, at: int) -> int:
        end = at
        while end < len(self._text) and self._text[end] == sign:
            end += 1
        length = end - at
        if sign == "~" and length != 2:  # noqa: PLR2004  (GFM: two)
            return self._literal(self._text[at:end], at)
        before = self._text[at - 1] if at else "\n"
        after = self._text[end] if end < len(self._text) else "\n"
        opens, closes = _flanks(sign, before, after)
        if self._growing and end == len(self._text) and not self._ends(sign, length):
            return end  # more of them may come: shown when it is clear what they are
        self._runs.append(_Run(len(self._nodes), at, sign, length, length, opens, closes))
        return self._literal(self._text[at:end], at)

    def _ends(self, sign: str, length: int) -> bool:
        """Say whether so many delimiters end what just as many have begun."""
        return any(run.sign == sign and run.opens and run.length == length for run in self._runs)

    def _bracket(self, at: int, sign: str) -> int:
        self._brackets.append(_Bracket(len(self._nodes), len(sign) > 1, len(self._runs)))
        return self._literal(sign, at)

    def _close_bracket(self, at: int) -> int:
        if not self._brackets:
            return self._literal("]", at)
        bracket = self._brackets.pop()
        target = _TARGET.match(self._text, at + 1) if bracket.active else None
        if target is None or _FORBIDDEN.match(address := _address(target[1])):
            self._loose |= at + 1 == len(self._text) or self._text[at + 1] == "("
            return self._literal("]", at)
        self._link(bracket, address)
        return target.end()

    def _link(self, bracket: _Bracket, address: str) -> None:
        self._pair(bracket.runs)
        del self._runs[bracket.runs :]
        self._nodes[bracket.node] = ("image: " if bracket.image else "", 0)
        shown = "".join([text for text, _ in self._nodes[bracket.node :]])
        self._marks.append((bracket.node, LINK, 1))
        self._marks.append((len(self._nodes), LINK, -1))
        if address and shown not in (address, address.removeprefix("mailto:")):
            self._add(f" ({address})" if shown else f"({address})", QUIET)
        if not bracket.image:
            for other in self._brackets:
                other.active = other.active and other.image

    def _angle(self, at: int) -> int:
        if match := _AUTOLINK.match(self._text, at):
            self._add(match[1], LINK)
        elif match := _HTML.match(self._text, at):
            self._add(match[0].replace("\n", " "))
        else:
            self._loose |= (
                self._text[at + 1 : at + 2].isalpha() or self._text[at + 1 : at + 2] in "/!?"
            )
            return self._literal("<", at)
        return match.end()

    def _entity(self, at: int) -> int:
        match = _ENTITY.match(self._text, at)
        if match is None:
            self._loose |= ";" not in self._text[at:] and " " not in self._text[at:]
            return self._literal("&", at)
        self._add(_character(match))
        return match.end()

    # -- pairing

    def _close_open(self) -> None:
        """Show what is open at the end as if it were closed there."""
        for run in self._runs:
            if run.left and run.opens and len(self._text) - run.at <= OPEN_CHARS:
                for style in _styles(run.sign, run.left):
                    self._marks.append((run.node + 1, style, 1))
                self._nodes[run.node] = ("", 0)

    def _pair(self, bottom: int) -> None:
        """Pair the runs above ``bottom``, the innermost first."""
        runs, at = self._runs, bottom
        floors: dict[tuple[str, bool, int], int] = {}
        while at < len(runs):
            closer = runs[at]
            if not (closer.closes and closer.left):
                at += 1
                continue
            kind = (closer.sign, closer.opens, closer.length % 3)
            opener = self._opener(at, max(bottom, floors.get(kind, 0)))
            if opener < 0:
                floors[kind] = at
                at += 1
                continue
            self._join(runs[opener], closer)
            del runs[opener + 1 : at]
            at = opener + 1
            if not runs[opener].left:
                del runs[opener]
                at -= 1

    def _opener(self, at: int, floor: int) -> int:
        closer = self._runs[at]
        for index in range(at - 1, floor - 1, -1):
            run = self._runs[index]
            if run.sign == closer.sign and run.opens and run.left and _may_pair(run, closer):
                return index
        return -1

    def _join(self, opener: _Run, closer: _Run) -> None:
        used = 2 if opener.left > 1 and closer.left > 1 else 1
        style = STRUCK if opener.sign == "~" else STRONG if used == 2 else EMPHASIS  # noqa: PLR2004
        self._marks.append((opener.node + 1, style, 1))
        self._marks.append((closer.node, style, -1))
        for run in (opener, closer):
            run.left -= used
            text, own = self._nodes[run.node]
            self._nodes[run.node] = (text[: len(text) - used] if text else "", own)


def _styles(sign: str, length: int) -> list[int]:
    if sign == "~":
        return [STRUCK]
    return [style for bit, style in ((1, EMPHASIS), (2, STRONG)) if length & bit]


def _may_pair(opener: _Run, closer: _Run) -> bool:
    """Say whether the rule of three allows it (rules 9 and 10 of emphasis)."""
    if not (opener.closes or closer.opens):
        return True
    return (opener.length + closer.length) % 3 != 0 or not (opener.length % 3 or closer.length % 3)


def _closing(text: str, ticks: str, start: int) -> int:
    """Return where a run of exactly so many backticks begins; -1 if none does."""
    at = text.find(ticks, start)
    while at >= 0:
        end = at + len(ticks)
        while end < len(text) and text[end] == "`":
            end += 1
        if end - at == len(ticks):
            return at
        at = text.find(ticks, end)
    return -1


def _flanks(sign: str, before: str, after: str) -> tuple[bool, bool]:
    """Return whether a run between these characters may open, and whether it may close."""
    space_before, space_after = before.isspace(), after.isspace()
    mark_before, mark_after = _is_mark(before), _is_mark(after)
    left = not space_after and (not mark_after or space_before or mark_before)
    right = not space_before and (not mark_before or space_after or mark_after)
    if sign == "_":
        return left and (not right or mark_before), right and (not left or mark_after)
    return left, right


def _is_mark(character: str) -> bool:
    if character.isalnum() or character == " ":
        return False
    return unicodedata.category(character)[0] in "PS"


def _address(destination: str) -> str:
    """Return a link's address as it is shown."""
    bare = destination[1:-1] if destination.startswith("<") else destination
    return sanitize(_ENTITY.sub(_character, _ESCAPED.sub(r"\1", bare))).replace("\n", "%0A")


def _character(match: re.Match[str]) -> str:
    """Return what an entity stands for; one that would be a control stands for nothing."""
    if match[3]:
        found = html5.get(f"{match[3]};", match[0])
    else:
        code = int(match[1], 16) if match[1] else int(match[2])
        valid = 0 < code < 0xD800 or 0xDFFF < code < 0x110000  # noqa: PLR2004  (Unicode's range)
        found = chr(code) if valid else "\N{REPLACEMENT CHARACTER}"
    return sanitize(found).replace("\n", " ").replace("\t", " ")
