"""Take code blocks out of Markdown: the first of a growing text, or all of one. Pure.

Blocks are those between fences that the chat shows; `llmctl.fences` has the rules.
"""

from __future__ import annotations

from llmctl.fences import CodeReader


def code_blocks(text: str) -> list[str]:
    r"""Return the text of every code block, without its last newline.

    >>> code_blocks("```py\na = 1\n```\nand\n~~~\nb\n")
    ['a = 1', 'b']
    """
    reader, found = CodeReader(), list[list[str]]()
    for line in text.removesuffix("\n").split("\n"):
        code = reader.read(line)
        if code is not None:
            found[-1].append(code)
        elif reader.fence is not None:
            found.append([])
    return ["\n".join(lines) for lines in found]


class FirstBlock:
    """Hands out the lines of the first code block, as they are completed.

    Args:
        language: the block's info string must begin with this word; empty takes any.
    """

    def __init__(self, language: str = "") -> None:
        self._language = language.lower()
        self._line = ""
        self._reader = CodeReader()
        self._wanted = False
        self.done = False

    @property
    def found(self) -> bool:
        """Whether such a block has begun."""
        return self._wanted or self.done

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
        code = self._reader.read(line)
        if code is not None:
            return code + "\n" if self._wanted else ""
        fence, self.done = self._reader.fence, self._wanted
        self._wanted = fence is not None and self._language in ("", fence.language.lower())
        return ""
