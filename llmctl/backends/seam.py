"""Where a continuation is joined to what a reply already has. Pure.

A server may repeat the prefix it was given, or may have been given a prefix without its
last blanks and write those again. Either way the continuation begins with text that the
reply has; a `Seam` takes it off, however it is cut into chunks.
"""

from __future__ import annotations

from dataclasses import replace

from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk


class Seam:
    """Takes a known text off the beginning of a continuation.

    Args:
        known: the text that may come first.
        required: it must come; otherwise this is not a continuation of the reply.
    """

    def __init__(self, known: str, *, required: bool) -> None:
        self._known = known
        self._required = required
        self._held: list[Chunk] = []
        self._open = bool(known)

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Return the chunks that are new, as far as that can be said by now.

        Raises:
            StrategyUnavailable: the text had to come and something else came.
        """
        if not self._open or chunk.channel is not Channel.CONTENT:
            return [chunk]
        self._held.append(chunk)
        text = "".join(held.text for held in self._held)
        if text.startswith(self._known):
            return self._release(len(self._known))
        if self._known.startswith(text) and chunk.finish_reason is None:
            return []
        return self._mismatch()

    def _mismatch(self) -> list[Chunk]:
        if self._required:
            raise StrategyUnavailable("The server went on behind another text than this reply's.")
        return self._release(0)

    def _release(self, dropped: int) -> list[Chunk]:
        self._open = False
        chunks = []
        for chunk in self._held:
            rest = without_head(chunk, dropped)
            dropped -= len(chunk.text) - len(rest.text)
            if rest.text or rest.finish_reason is not None:
                chunks.append(rest)
        return chunks


def without_head(chunk: Chunk, chars: int) -> Chunk:
    """Return a chunk without its first ``chars`` characters and the tokens behind them."""
    if not chars:
        return chunk
    text = chunk.text[chars:]
    if chunk.ends is None:
        tokens = 0 if chunk.tokens is not None and not text else None
        return replace(chunk, text=text, tokens=tokens, ids=None)
    ends = tuple(end - chars for end in chunk.ends if end > chars)
    ids = chunk.ids[len(chunk.ends) - len(ends) :] if chunk.ids is not None else None
    return replace(chunk, text=text, tokens=len(ends), ends=ends, ids=ids)
