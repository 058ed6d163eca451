"""Instruct: ask the model, in words, to go on where its reply stopped.

The last resort: the model is shown its own partial reply and the text of the
``continuation`` template. It often begins by repeating a little; the longest end of the
known text that its answer begins with is taken off. Nothing is shown until that is decided,
which is at the first character that no such overlap explains.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from llmctl.conversation import Message
from llmctl.events import Channel, Chunk, Guarantee, Strategy
from llmctl.ports import BackEnd, Opened
from llmctl.resume.rung import Standing

LONGEST_OVERLAP = 400
"""Characters of the known text's end that are looked for."""

SHORTEST_OVERLAP = 12
"""A shorter repetition is taken for chance."""


@dataclass(frozen=True, slots=True)
class Instruct:
    """Ask the model to go on.

    Attributes:
        instruction: what it is told.
    """

    instruction: str
    strategy = Strategy.INSTRUCT

    def promise(self, standing: Standing, back_end: BackEnd) -> Guarantee | None:  # noqa: ARG002
        """Any back end can be asked."""
        return Guarantee.BEST_EFFORT

    @asynccontextmanager
    async def open(self, standing: Standing, back_end: BackEnd) -> AsyncIterator[Opened]:
        """Ask, and take off what is repeated."""
        rest, known = standing.rest, standing.prefix.text
        shown = (Message("assistant", known), Message("user", self.instruction))
        messages = (*rest.messages, *(shown if known else ()))  # thoughts alone begin anew
        async with back_end.open(replace(rest, messages=messages)) as stream:
            yield Opened(
                stream=stream,
                chunks=_new_part(standing.prefix.text, aiter(stream)),
                strategy=self.strategy,
                guarantee=Guarantee.BEST_EFFORT,
            )


async def _new_part(known: str, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    overlap = Overlap(known)
    async for chunk in chunks:
        for part in overlap.feed(chunk):
            yield part


class Overlap:
    """Takes off the beginning of an answer that repeats the end of a known text.

    Args:
        known: the text that exists.
    """

    def __init__(self, known: str) -> None:
        self._tail = known[-LONGEST_OVERLAP:]
        self._held: list[Chunk] = []
        self._decided = False

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Return what is new, as far as that is decided."""
        if self._decided or chunk.channel is not Channel.CONTENT:
            return [chunk]
        self._held.append(chunk)
        text = "".join(held.text for held in self._held)
        if chunk.finish_reason is None and self._may_still_match(text):
            return []
        self._decided = True
        return _without(self._held, self._length(text))

    def _may_still_match(self, text: str) -> bool:
        return len(text) < len(self._tail) and text in self._tail

    def _length(self, text: str) -> int:
        for length in range(min(len(self._tail), len(text)), SHORTEST_OVERLAP - 1, -1):
            if self._tail.endswith(text[:length]):
                return length
        return 0


def _without(chunks: list[Chunk], chars: int) -> list[Chunk]:
    left = []
    for chunk in chunks:
        step = min(chars, len(chunk.text))
        chars -= step
        rest = chunk.without_head(step)
        if rest.text or rest.finish_reason is not None:
            left.append(rest)
    return left
