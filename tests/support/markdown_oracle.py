"""What Markdown says, according to markdown-it: the judge of our own reader of blocks.

It renders a whole document to plain rows, with the signs that `llmctl.terminal.markdown` uses
and without any width: one row for each line. Blank rows are left out, and spaces are counted
once, so that only structure and text are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from llmctl.terminal.sanitizer import sanitize

_READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_READER.disable("reference")  # definitions stay as they are written


def fenced(text: str) -> list[str]:
    """Return the code of every fence of a document, without its last newline."""
    found = [token for token in _READER.parse(text) if token.type == "fence"]
    return [token.content.removesuffix("\n") for token in found]


def rows(text: str) -> list[str]:
    """Return the rows of a document that are not blank, spaces counted once."""
    writer = _Writer()
    for token in _READER.parse(sanitize(text).expandtabs(4)):
        writer.take(token)
    return list(squeezed(writer.rows))


def squeezed(lines: Iterable[str]) -> Iterator[str]:
    """Leave out blank rows, and all but one of several spaces."""
    for line in lines:
        single = re.sub(r" +", " ", line).strip()
        single = re.sub(r"^(?:│ ?)+$", "", single)
        single = re.sub(r"─+", "─", single)
        if single:
            yield single


class _Writer:
    """Writes rows; a method for each kind of token that shows."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._lead: list[str] = []
        self._numbers: list[int | None] = []
        self._prefix = ""
        self._cells: list[str] = []
        self._columns = 0

    def take(self, token: Token) -> None:
        method = getattr(self, f"_{token.type}", None)
        if method is not None:
            method(token)

    def _blockquote_open(self, _token: Token) -> None:
        self._lead.append("│ ")

    def _blockquote_close(self, _token: Token) -> None:
        self._lead.pop()

    def _bullet_list_open(self, _token: Token) -> None:
        self._numbers.append(None)

    def _ordered_list_open(self, token: Token) -> None:
        self._numbers.append(int(token.attrs.get("start", 1)))

    def _bullet_list_close(self, _token: Token) -> None:
        self._numbers.pop()

    _ordered_list_close = _bullet_list_close

    def _list_item_open(self, token: Token) -> None:
        number = self._numbers[-1]
        self._lead.append("• " if number is None else f"{number}{token.markup} ")
        if number is not None:
            self._numbers[-1] = number + 1

    def _list_item_close(self, _token: Token) -> None:
        if self._lead[-1].strip():  # nothing was in it
            self._write([""])
        self._lead.pop()

    def _heading_open(self, token: Token) -> None:
        self._prefix = "#" * int(token.tag[1]) + " "

    def _td_open(self, _token: Token) -> None:
        self._cells.append("")

    _th_open = _td_open

    def _tr_close(self, _token: Token) -> None:
        self._write([" │ ".join(self._cells)])
        self._columns, self._cells = len(self._cells), []

    def _thead_close(self, _token: Token) -> None:
        self._write(["─┼" * (self._columns - 1) + "─"])

    def _inline(self, token: Token) -> None:
        text = self._prefix + "".join(_inline(token.children or []))
        self._prefix = ""
        if self._cells:
            self._cells[-1] = text
        else:
            self._write(text.split("\n"))

    def _fence(self, token: Token) -> None:
        language = token.info.strip().split(" ")[0][:24]
        code = token.content.removesuffix("\n").split("\n")
        self._write([f"── {language} ──" if language else "──", *code, "──"])

    def _code_block(self, token: Token) -> None:
        self._write(token.content.split("\n"))

    _html_block = _code_block

    def _hr(self, _token: Token) -> None:
        self._write(["──"])

    def _write(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.rows.append("".join(self._lead) + line)
            # A bullet is shown once.
            self._lead = [sign if sign == "│ " else " " * len(sign) for sign in self._lead]


def _inline(tokens: Sequence[Token]) -> Iterator[str]:
    addresses: list[tuple[str, str]] = []
    shown = ""
    for token in tokens:
        text = ""
        if token.type in ("text", "html_inline"):
            text = sanitize(token.content).replace("\t", " ")
            text = text.replace("\n", " ") if token.type == "html_inline" else text
        elif token.type == "code_inline":
            text = token.content
        elif token.type in ("softbreak", "hardbreak"):
            text = "\n"
        elif token.type == "image":
            text = f"image: {''.join(_inline(token.children or []))}"
            if token.attrs["src"]:
                text += f" ({token.attrs['src']})"
        elif token.type == "link_open":
            addresses.append((unquote(str(token.attrs["href"])), shown))
            continue
        elif token.type == "link_close":
            address, before = addresses.pop()
            text = _address(address, shown.removeprefix(before))
        shown += text
        yield text


def _address(address: str, shown: str) -> str:
    if not address or shown in (address, address.removeprefix("mailto:")):
        return ""
    return f" ({address})" if shown else f"({address})"
