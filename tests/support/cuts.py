"""Cut a reply at every place, go on with it, and judge what came of it.

A judgement looks at three things: what the label says, what the server had before it when it
went on, and what an uninterrupted reply is. It is done by `Trial.lies`; an empty answer is a
good one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmctl.conversation import Prefix, Request
from llmctl.errors import BelowRequire, LlmctlError
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.resume.ladder import Ladder, rungs
from llmctl.session import BackEnd
from llmctl.turn import Received

__all__ = ["Trial", "climb", "gone_on", "ladder_of", "received", "whole"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One reply that was cut and gone on with.

    Attributes:
        full: the uninterrupted reply.
        before: what there was at the cut.
        rest: what was added; None where nothing reached the floor.
        strategy: by which way.
        label: what was said of it.
    """

    full: Prefix
    before: Prefix
    rest: Prefix | None = None
    strategy: Strategy | None = None
    label: Guarantee | None = None

    def lies(self, seen_ids: Sequence[int] | None = None, seen_text: str | None = None) -> str:
        """Say in what the label is better than the truth; "" if it is not.

        Args:
            seen_ids: the tokens of the reply that the model had before it went on.
            seen_text: their text.
        """
        if self.rest is None or self.label is None:
            return ""
        whole = self.before.text + self.rest.text
        match self.label:
            case Guarantee.EXACT if whole != self.full.text:
                return f"exact, but {whole!r} is not {self.full.text!r}"
            case Guarantee.TOKEN if seen_ids is None or tuple(seen_ids) != self._known_ids():
                return f"token, but the model went on behind {seen_ids}"
            case Guarantee.TEXT if seen_text is None or not self._joins(seen_text):
                return f"text, but the model went on behind {seen_text!r}"
        return ""

    def _known_ids(self) -> tuple[int, ...]:
        """Return the first ids of the uninterrupted reply, as many as spell what there was."""
        count = len(self.before.ids or ())
        return (self.full.ids or ())[:count]

    def _joins(self, seen_text: str) -> bool:
        """Whether known text and rest are what the model had and what it added."""
        blanks = self.before.text[len(seen_text) :]
        return self.before.text.startswith(seen_text) and not blanks.strip()


def received(chunks: Sequence[Chunk]) -> Prefix:
    """Return what a session has of these."""
    all_ = Received()
    for chunk in chunks:
        all_.add(chunk)
    return all_.as_prefix()


@asynccontextmanager
async def ladder_of(
    made: BackEnd, request: Request, require: Guarantee = Guarantee.TEXT
) -> AsyncIterator[Ladder]:
    """Give the ladder of one request; its back end is closed behind it."""
    try:
        yield Ladder(made, request, rungs("Go on."), require)
    finally:
        await made.aclose()


async def whole(of: Ladder) -> list[Chunk]:
    """Return the uninterrupted reply."""
    async with of.start() as opened:
        return [chunk async for chunk in opened.chunks]


async def gone_on(of: Ladder, before: Prefix, full: Prefix) -> Trial:
    """Go on behind ``before`` as a first resume would."""
    of.guarantee = Guarantee.EXACT
    try:
        async with of.go_on(before, lambda: None) as opened:
            rest = received([chunk async for chunk in opened.chunks])
            return Trial(full, before, rest, opened.strategy, opened.guarantee)
    except (BelowRequire, LlmctlError):
        return Trial(full, before)


async def climb(of: Ladder, step: int = 1) -> AsyncIterator[Trial]:
    """Cut the reply behind every chunk (every ``step``-th), and go on each time."""
    chunks = await whole(of)
    full = received(chunks)
    for count in range(1, len(chunks), step):
        if chunks[count - 1].text:
            yield await gone_on(of, received(chunks[:count]), full)
