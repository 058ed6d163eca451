"""What every way to go on has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmctl.conversation import Prefix, Request
from llmctl.events import Guarantee, Strategy, Usage
from llmctl.ports import BackEnd, Opened, Stream


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a reply stands when a way to go on is looked for.

    Attributes:
        request: what was asked; its ``max_tokens`` is the bound on the whole reply.
        prefix: what of the reply exists.
        conditions: on what an exact replay depends, as recorded when the reply began.
        guarantee: the worst guarantee of all resumes so far: no later one can be better.
        saved: engine state that was kept at the last cut.
        alive: to be called while tokens arrive that are not shown.
        require: the weakest guarantee that will do.
        tell: says a sentence to the person, before anything is spent.
    """

    request: Request
    prefix: Prefix
    conditions: Mapping[str, Any] = field(default_factory=dict)
    guarantee: Guarantee = Guarantee.EXACT
    saved: Mapping[str, Any] | None = None
    alive: Callable[[], None] = lambda: None
    require: Guarantee = Guarantee.TEXT
    tell: Callable[[str], None] = lambda _sentence: None

    @property
    def rest(self) -> Request:
        """The request with the bound on what is still to come."""
        bound = self.request.options.max_tokens
        if bound is None:
            return self.request
        return self.request.with_options(max_tokens=max(1, bound - self.prefix.spent))


def paid_again(stream: Stream, generated: int = 0) -> Usage | None:
    """Return what a stream cost that had been paid for before.

    Args:
        stream: its conditions say how many tokens of its prompt were ``evaluated``.
        generated: tokens of the reply that were generated once more.
    """
    evaluated = stream.conditions.get("evaluated")
    if evaluated is None:
        return None
    return Usage(evaluated, generated, evaluated + generated)


class Rung(Protocol):
    """One way to go on."""

    @property
    def strategy(self) -> Strategy:
        """Its name."""

    def promise(self, standing: Standing, back_end: BackEnd) -> Guarantee | None:
        """Return the best that it may earn here; None if it can't be tried."""

    def open(self, standing: Standing, back_end: BackEnd) -> AbstractAsyncContextManager[Opened]:
        """Go on; what the result claims has been verified by then.

        Raises:
            StrategyUnavailable: it did not hold; nothing has been shown.
        """
