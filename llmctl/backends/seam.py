"""Where a continuation is joined to what a reply already has. Pure.

A server may repeat the prefix it was given, or may have been given a prefix without its
last blanks and write those again. Either way the continuation begins with text that the
reply has; a `Seam` takes it off, however it is cut into chunks.
"""

from __future__ import annotations

from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk


class Seam:
    """Takes a known text off the beginning of a continuation.

    Attributes:
        open: what has come by now does not decide yet.

    Args:
        known: the text that may come first.
        required: it must come; otherwise this is not a continuation of the reply.
        channel: where it comes.
    """

    def __init__(self, known: str, *, required: bool, channel: Channel = Channel.CONTENT) -> None:
        self.open = bool(known)
        self.required = required
        self._channel = channel
        self._known = known
        self._held: list[Chunk] = []

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Return the chunks that are new, as far as that can be said by now.

        Raises:
            StrategyUnavailable: the text had to come and something else came.
        """
        if not self.open or self._is_before(chunk):
            return [chunk]
        self._held.append(chunk)
        text = "".join(held.text for held in self._held)
        right = chunk.channel is self._channel
        if right and text.startswith(self._known):
            return self._release(len(self._known))
        if right and self._known.startswith(text) and chunk.finish_reason is None:
            return []
        if self.required:
            raise StrategyUnavailable("The server went on behind another text than this reply's.")
        return self._release(0)

    def _is_before(self, chunk: Chunk) -> bool:
        """Say whether a chunk is reasoning, and the text to take off is content behind it."""
        return chunk.channel is Channel.REASONING and self._channel is Channel.CONTENT

    def _release(self, dropped: int) -> list[Chunk]:
        self.open = False
        chunks = []
        for chunk in self._held:
            rest = chunk.without_head(min(dropped, len(chunk.text)))
            dropped -= len(chunk.text) - len(rest.text)
            if rest.text or rest.finish_reason is not None:
                chunks.append(rest)
        return chunks
