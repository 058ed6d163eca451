"""What has come of a reply: its text, its tokens and its end, whether delivered or not."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from io import StringIO

from llmctl.conversation import Prefix
from llmctl.events import Channel, Chunk, Cursor, Usage


@dataclass(slots=True)
class Received:
    """All that has come from the back end, whether delivered or not."""

    finish_reason: str | None = None
    context_full: bool = False
    usage: Usage | None = None
    tokens: int | None = 0
    spent: int = 0
    deltas: int = 0
    chars: int = 0
    reasoning_chars: int = 0
    cursor: Cursor | None = None
    _loose: bool = False
    _text: StringIO = field(default_factory=StringIO)  # a list of pieces takes ten times as much
    _reasoning: StringIO = field(default_factory=StringIO)
    _ids: array[int] | None = field(default_factory=lambda: array("L"))

    @property
    def text(self) -> str:
        """The content as the model wrote it, markers included."""
        return self._text.getvalue()

    @property
    def reasoning(self) -> str:
        """The reasoning as the model wrote it."""
        return self._reasoning.getvalue()

    @property
    def begun(self) -> bool:
        """Whether any text has come."""
        return self.chars + self.reasoning_chars > 0

    @property
    def finished(self) -> bool:
        """Whether the back end said that the reply is over."""
        return self.finish_reason is not None

    def as_prefix(self) -> Prefix:
        """Return what a continuation has to stand on."""
        ids = None if self._ids is None else tuple(self._ids)
        return Prefix(self.text, self.reasoning, ids, self.tokens, self.spent, self.cursor)

    def add(self, chunk: Chunk) -> None:
        """Take in one chunk."""
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.context_full |= chunk.context_full
        self.usage = chunk.usage or self.usage
        if chunk.text or chunk.tokens or chunk.finish_reason:
            self.cursor = chunk.cursor
        if not chunk.text and not chunk.tokens:
            return
        self.deltas += 1
        if chunk.channel is Channel.REASONING:
            self._reasoning.write(chunk.text)
            self.reasoning_chars += len(chunk.text)
            self._ids = None
            return
        self._text.write(chunk.text)
        self.chars += len(chunk.text)
        self._count(chunk)

    def seam(self) -> None:
        """The reply goes on behind its text: see `Chunk.loose`."""
        if self._loose:
            self.tokens, self._loose = None, False

    def _count(self, chunk: Chunk) -> None:
        if chunk.text:
            self._loose = chunk.loose
        self.spent += chunk.pieces if chunk.tokens is None else chunk.tokens
        if chunk.tokens is None or self.tokens is None:
            self.tokens = None
        else:
            self.tokens += chunk.tokens
        if chunk.ids is None or len(chunk.ids) != chunk.tokens:
            self._ids = None
        elif self._ids is not None:
            self._ids.extend(chunk.ids)
