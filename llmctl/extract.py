"""Take code blocks out of Markdown: the first of a growing text, or all of one. Pure.

Fences are CommonMark's: three or more backticks or tildes at the start of a line, indented by
three spaces at the most; the block ends with at least as many of the same, or with the text.
"""

from __future__ import annotations

import re

_OPENING = re.compile(r"( {0,3})(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*$")


def code_blocks(text: str) -> list[str]:
    r"""Return the text of every code block, without its last newline.

    >>> code_blocks("```py\na = 1\n```\nand\n~~~\nb\n")
    ['a = 1', 'b']
    """
    found, block, taken = [], FirstBlock(), ""
    for line in text.splitlines(keepends=True):
        taken += block.feed(line)
        if block.done:
            found.append(taken)
            block, taken = FirstBlock(), ""
    taken += block.finish()
    return [code.removesuffix("\n") for code in [*found, *([taken] if taken else [])]]


class FirstBlock:
    """Hands out the lines of the first code block, as they are completed.

    Args:
        language: the block's info string must begin with this word; empty takes any.
    """

    def __init__(self, language: str = "") -> None:
        self._language = language.lower()
        self._line = ""
        self._fence = ""
        self._indent = 0
        self._wanted = False
        self.done = False

    def feed(self, text: str) -> str:
        """Take more text; return what of it is certain to be in the block."""
        *lines, self._line = (self._line + text).split("\n")
        return "".join(self._take(line) for line in lines)

    def finish(self) -> str:
        """The text is over: return the block's last line if it had no newline."""
        line, self._line = self._line, ""
        return self._take(line).removesuffix("\n") if line else ""

    def _take(self, line: str) -> str:
        if self.done:
            return ""
        if not self._fence:
            self._open(line)
            return ""
        if self._closes(line):
            self._fence, self.done = "", self._wanted
            return ""
        return self._unindented(line) + "\n" if self._wanted else ""

    def _open(self, line: str) -> None:
        found = _OPENING.match(line)
        if found is not None:
            self._indent, self._fence = len(found[1]), found[2]
            self._wanted = self._language in ("", found[3].lower())

    def _closes(self, line: str) -> bool:
        run = line.strip()
        return len(run) >= len(self._fence) and set(run) == {self._fence[0]}

    def _unindented(self, line: str) -> str:
        spaces = len(line) - len(line.lstrip(" "))
        return line[min(self._indent, spaces) :]
