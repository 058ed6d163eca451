"""What tokens cost, where somebody has said so. Pure.

Nothing is known beforehand: prices change, and a wrong figure is worse than none. They stand
in the configuration, dollars for a million tokens, read and written::

    [profiles.openai]
    price = [2.50, 10.00]

A cost is exact where the back end has counted the tokens of the one request that a reply was;
otherwise it is an estimate, and says so.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TypeGuard

from llmctl.conversation import Request
from llmctl.events import Finished

CHARS_PER_TOKEN = 4
"""Characters of a token, about, where nobody counts."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost, in dollars a million."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return dollars; a number, whatever the prices."""
        dollars = (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6
        return min(dollars, sys.float_info.max)


def is_price(value: object) -> TypeGuard[float]:
    """Say whether something can be a price: a number of 0 or more that is not without end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars; whether they are an estimate.

    >>> str(Cost(0.0123, estimated=True) + Cost(1.0))
    '~$1.01'
    """

    dollars: float = 0.0
    estimated: bool = False

    def __add__(self, other: Cost) -> Cost:
        """Return both together."""
        return Cost(self.dollars + other.dollars, self.estimated or other.estimated)

    def __str__(self) -> str:
        """Return it as people write it, with what figures it has."""
        places = 2 if self.dollars >= 1 else 4
        return f"{'~' if self.estimated else ''}${self.dollars:,.{places}f}"


def cost_of(finished: Finished, request: Request, prices: Prices, *, whole: bool) -> Cost:
    """Return what a reply cost.

    Args:
        finished: its end.
        request: what was asked.
        prices: what tokens cost.
        whole: it was one request, so that the back end's count is that of the reply.
    """
    usage = finished.usage
    asked = usage.prompt_tokens if usage else None
    written = usage.completion_tokens if usage else None
    estimated = not whole or asked is None or written is None
    if asked is None:
        chars = sum(len(message.content) for message in request.messages)
        asked = 1 + chars // CHARS_PER_TOKEN
    if written is None or not whole:
        position = finished.position
        counted = position.tokens or -(-position.chars // CHARS_PER_TOKEN)
        written = max(written or 0, counted)
    return Cost(prices.of(asked, written), estimated)
