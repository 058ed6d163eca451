"""What is kept of an item that has not ended: all that was received, and how.

Enough to go on in another process: the text to stand on, the token ids where they are
known, the conditions of an exact replay, and what the item has cost so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Self

from llmctl.events import Channel, Chunk, Cursor, Guarantee, Usage
from llmctl.received import Received


@dataclass(slots=True)
class Kept:
    """An item between two attempts.

    Attributes:
        text: content as the model wrote it, markers included.
        reasoning: the reasoning before it.
        tokens: how many tokens ``text`` is; None where not known.
        spent: how many it is at least: a piece counts as one where tokens are not told.
        ids: their ids; None unless all are known.
        cursor: run, place and bound of a reply that its server keeps; None if it does not.
        finish_reason: the reply's end, if it was received.
        context_full: it ended because the context has no room left.
        usage: the back end's accounting, if it was received.
        shape: the object a server sends unstreamed, as far as it has come (`Fold.as_json`).
        conditions: on what an exact replay depends.
        saved: engine state kept at the last cut.
        guarantee: the worst guarantee of all resumes.
        resumes: strategy, guarantee and position of each.
        attempts: requests sent.
        wasted_tokens: tokens received and thrown away.
        first_token_s: seconds to the first token of the first attempt that brought one.
        duration_s: seconds of all attempts.
    """

    text: str = ""
    reasoning: str = ""
    tokens: int | None = 0
    spent: int = 0
    ids: list[int] | None = field(default_factory=list)
    cursor: list[Any] | None = None
    finish_reason: str | None = None
    context_full: bool = False
    usage: dict[str, Any] | None = None
    shape: dict[str, Any] | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    guarantee: str = Guarantee.EXACT
    resumes: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0
    wasted_tokens: int = 0
    first_token_s: float | None = None
    duration_s: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether anything of the reply exists."""
        return bool(self.text or self.reasoning)

    def take(self, received: Received) -> None:
        """Take over all that a turn has received."""
        prefix = received.as_prefix()
        self.text, self.reasoning, self.tokens = prefix.text, prefix.reasoning, prefix.tokens
        self.spent = prefix.spent
        self.ids = None if prefix.ids is None else list(prefix.ids)
        self.cursor = None if prefix.cursor is None else list(astuple(prefix.cursor))
        self.finish_reason = received.finish_reason
        self.context_full = received.context_full
        self.usage = received.usage.as_json() if received.usage else None

    def chunks(self) -> Iterator[Chunk]:
        """Yield what was received, as few chunks."""
        cursor = None if self.cursor is None else Cursor(*self.cursor)
        if self.reasoning:
            yield Chunk(self.reasoning, Channel.REASONING, cursor=cursor)
        if self.text:
            ids = None if self.ids is None else tuple(self.ids)
            pieces = max(1, self.spent)
            yield Chunk(self.text, tokens=self.tokens, ids=ids, cursor=cursor, pieces=pieces)
        if self.finish_reason is not None:
            usage = Usage(**self.usage) if self.usage else None
            yield Chunk(
                finish_reason=self.finish_reason, context_full=self.context_full, usage=usage
            )

    def start_over(self) -> None:
        """Throw the reply away; what it has cost stays known."""
        self.wasted_tokens += self.tokens if self.tokens is not None else len(self.text.split())
        fresh = Kept()
        for name in _REPLY:
            setattr(self, name, getattr(fresh, name))

    def as_json(self) -> dict[str, Any]:
        """Return what differs from an item that has not begun."""
        fresh = Kept()
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value != getattr(fresh, name)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote; what a later version added is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


_REPLY = ("text", "reasoning", "tokens", "spent", "ids", "cursor", "finish_reason", "context_full",
          "usage", "shape", "conditions", "saved", "guarantee", "resumes")  # fmt: skip
