"""How many tokens one request of a batch has brought. Pure.

What comes is counted as it comes, and most servers do not say how many tokens that is: a piece
then counts as one. What they say in their accounting, at the end or with every piece, takes the
place of that count: it is what they bill, and holds what was thought and not shown, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmctl.backends.token_counts import is_count
from llmctl.events import Chunk, Usage


@dataclass(slots=True)
class Meter:
    """Counts one request's tokens.

    Attributes:
        came: told how many come.
        corrected: told by how many the count was wrong.
        units: the count so far; at the beginning, what was counted before of the same run.
    """

    came: Callable[[int], None]
    corrected: Callable[[int], None]
    units: int = 0

    def count(self, units: int) -> None:
        """So many have come."""
        self.units += units
        self.came(units)

    def settle(self, usage: Usage | None, *, ended: bool) -> None:
        """Put the count right by the server's own.

        Args:
            usage: what the server told last; None if nothing.
            ended: the reply is whole. Before its end a total may be older than what has come.
        """
        told = None if usage is None else usage.completion_tokens
        if not told or not is_count(told):  # those that don't count say 0
            return
        right = told if ended else max(told, self.units)
        if right != self.units:
            self.corrected(right - self.units)
            self.units = right


def units_of(chunk: Chunk) -> int:
    """Return how many tokens a chunk brings: its pieces, where tokens are not told."""
    return chunk.tokens or (chunk.pieces if chunk.text else 0)
