"""How a batch stands, from its files alone: also while another process works on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llmctl.batch.lease import Held, look
from llmctl.batch.results import check_file, errors_path, not_results, state_path, whole_lines
from llmctl.batch.state import ITEMS
from llmctl.errors import UsageError

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How a batch stands.

    Attributes:
        items: how many the state knows; None where there is no state.
        complete: lines in the output.
        ended: how the last run left the others, by the word for it.
        tokens: of the replies that are complete, as their servers counted them.
        holder: the process that works on it.
    """

    items: int | None
    complete: int
    ended: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    holder: Held | None = None

    @property
    def is_live(self) -> bool:
        """Whether a process works on it."""
        return self.holder is not None and self.holder.is_live

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        owner = self.holder.owner if self.holder is not None and self.is_live else None
        return {
            "items": self.items,
            "complete": self.complete,
            "ended": self.ended,
            "completion_tokens": self.tokens,
            "live": None
            if owner is None or self.holder is None
            else {
                "host": owner.host,
                "pid": owner.pid,
                "since": owner.since,
                "heartbeat_s": round(self.holder.silent_s, 1),
            },
        }


def status_of(output: Path, state: Path | None = None) -> BatchStatus:
    """Look at a batch.

    Args:
        output: its OUTPUT.
        state: its state folder, where it is not beside the output.

    Raises:
        UsageError: there is no such batch, or a file holds something else.
    """
    folder = state or state_path(output)
    if not output.exists() and not folder.exists():
        raise UsageError(f"There is no batch {output}.", "Name the OUTPUT of 'llmctl batch'.")
    complete = tokens = 0
    for used in _told(output, lambda row: row["response"]["body"].get("usage") or {}):
        complete += 1
        tokens += used.get("completion_tokens") or used.get("output_tokens") or 0
    items = folder / ITEMS
    known = sum(1 for _ in whole_lines(items)) if items.exists() else None
    return BatchStatus(known, complete, _ended(output), tokens, look(folder))


def _ended(output: Path) -> dict[str, int]:
    """Count how the incomplete items stand, as of the end of the last run."""
    rows = _told(errors_path(output), lambda row: str(row["llmctl"]["standing"]))
    return dict(Counter(rows))


def _told(path: Path, read: Callable[[Any], Told]) -> Iterator[Told]:
    """Yield what each whole line of a file of results tells; nothing if there is no file."""
    check_file(path, "Name the OUTPUT of 'llmctl batch'.")
    for number, line in whole_lines(path):
        try:
            yield read(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise not_results(path, number) from None
