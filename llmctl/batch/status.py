"""How a batch stands, from its files alone: also while another process works on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llmctl.batch.index import Index
from llmctl.batch.lease import Held, look
from llmctl.batch.records import DAMAGE
from llmctl.batch.results import check_file, errors_path, not_results, state_path, whole_lines
from llmctl.batch.state import ITEMS, item_of
from llmctl.errors import UsageError

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How a batch stands.

    Attributes:
        items: how many the state knows; None where there is no state.
        complete: items that have a line in the output.
        ended: how the last run left the others, by the word for it.
        tokens: of the replies that are complete, as their servers counted them.
        uncounted: complete items whose server did not say.
        holder: the process that works on it.
    """

    items: int | None
    complete: int
    ended: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    uncounted: int = 0
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
            "completion_tokens": None if self.uncounted else self.tokens,
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
    complete = tokens = uncounted = 0
    with Index() as index:
        items = _known(folder / ITEMS, index)
        for id_, used in _told(output, _complete):
            if items is not None and index.find(id_) is None:
                continue  # of a line that the input does not have any more
            complete += 1
            tokens += used or 0
            uncounted += used is None
    return BatchStatus(items, complete, _ended(output), tokens, uncounted, look(folder))


def _known(path: Path, index: Index) -> int | None:
    """Put the items that a state knows into the index; return how many, None without a state."""
    if not path.exists():
        return None
    for number, line in whole_lines(path):
        with suppress(*DAMAGE):  # passed over, as by a run
            id_, digest = item_of(json.loads(line))
            index.add(id_, number, digest.encode())
    return index.count()


def _complete(row: Any) -> tuple[str, int | None]:  # noqa: ANN401  (JSON)
    """Return a complete item's id, and its reply's tokens where the server has counted them."""
    usage = row["response"]["body"].get("usage") or {}
    counts = (usage.get("completion_tokens"), usage.get("output_tokens"))
    return str(row["custom_id"]), next((count for count in counts if count is not None), None)


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
