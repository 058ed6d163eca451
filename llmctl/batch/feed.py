"""The items that still have work to be done, in input order, a few at a time.

The input is read and looked up in a worker thread, so that the loop never waits for a disk
and memory holds only what is about to begin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import anyio.to_thread

from llmctl.batch.attempt import Item
from llmctl.batch.check import estimated_tokens
from llmctl.batch.forms import Recipe, row_of
from llmctl.batch.index import Index, Standing
from llmctl.batch.kept import Kept
from llmctl.batch.lines import BadLine, InputLines
from llmctl.batch.row import Row
from llmctl.batch.state import Ended
from llmctl.errors import UsageError

AHEAD = 32
"""Items read at once."""

LIKELY_REPLY = 500
"""Tokens of a reply that nothing bounds, for ``--tpm`` before any has been seen."""


@dataclass(slots=True)
class Feed:
    """Hands out items.

    Attributes:
        lines: the input, checked.
        recipe: what the command line says.
        index: how every item stands.
        ended: reads an item's last end.
        seed: from which the items' seeds come; None to send none.
        retry_failed: also hand out what was refused.
    """

    lines: InputLines
    recipe: Recipe
    index: Index
    ended: Callable[[int], Ended]
    seed: int | None = None
    retry_failed: bool = False
    _source: Iterator[Item] | None = None
    _ready: deque[Item] | None = None

    async def next(self) -> Item | None:
        """Return the next item, None if there is none left.

        Raises:
            UsageError: the input was changed since it was checked.
        """
        if not self._ready:
            self._ready = await anyio.to_thread.run_sync(self._read)
        return self._ready.popleft() if self._ready else None

    def _read(self) -> deque[Item]:
        self._source = self._source or self._items()
        return deque(islice(self._source, AHEAD))

    def _items(self) -> Iterator[Item]:
        for line in self.lines:
            try:
                row = row_of(line, self.recipe, is_json=self.lines.is_json)
            except BadLine as fault:
                raise self._changed(line.number) from fault
            known = self.index.find(row.id)
            if known is None or known.digest != row.digest:
                raise self._changed(line.number)
            if known.standing is Standing.COMPLETE:
                continue
            if known.standing is Standing.REFUSED and not self.retry_failed:
                continue
            yield self._item(row, Kept() if known.at is None else self.ended(known.at).kept)

    def _item(self, row: Row, kept: Kept) -> Item:
        cost = estimated_tokens(row) + (row.max_tokens or LIKELY_REPLY)
        return Item(row if self.seed is None else row.with_seed(self.seed), kept, cost=cost)

    def _changed(self, number: int) -> UsageError:
        return UsageError(
            f"{self.lines.path} was changed while it was being worked on (line {number}).",
            "Run the same command again: what is done stays done.",
        )
