"""The whole input is read once before anything is spent: it fits, or it is said why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from llmctl.batch.forms import Recipe, row_of
from llmctl.batch.index import Index
from llmctl.batch.lines import BadLine, InputLines
from llmctl.batch.row import Row
from llmctl.counts import counted
from llmctl.errors import UsageError

CHARS_PER_TOKEN = 4
"""A guess that is good enough for estimates before the first request."""

_TOLD = 20


@dataclass(slots=True)
class Census:
    """What the input holds.

    Attributes:
        rows: how many.
        prompt_tokens: an estimate for all of them.
        bounded_tokens: the sum of the bounds on replies, for the rows that have one.
        unbounded: rows without one.
        faults: what is wrong, by line.
    """

    rows: int = 0
    prompt_tokens: int = 0
    bounded_tokens: int = 0
    unbounded: int = 0
    faults: list[str] = field(default_factory=list)

    def count(self, row: Row) -> None:
        """Take in one row."""
        self.rows += 1
        self.prompt_tokens += estimated_tokens(row)
        bound = row.max_tokens
        self.bounded_tokens += bound or 0
        self.unbounded += bound is None


def check(
    lines: InputLines, recipe: Recipe, index: Index, *, alive: Callable[[], None] = lambda: None
) -> Census:
    """Read every line and put every row into the index.

    Args:
        lines: the input.
        recipe: what the command line says.
        index: takes the rows.
        alive: called now and then; what it raises ends the reading.

    Raises:
        UsageError: lines can't be used, or there is none; it names them.
    """
    census, faults = Census(), 0
    for number, line in enumerate(lines):
        if number % 1000 == 0:
            alive()
        try:
            row = row_of(line, recipe, is_json=lines.is_json)
            first = index.add(row.id, line.number, row.digest)
            if first is not None:
                raise BadLine(f"the id {row.id!r} is already on line {first}")  # noqa: TRY301
        except BadLine as fault:
            faults += 1
            if faults <= _TOLD:
                census.faults.append(f"line {line.number}: {fault}")
        else:
            census.count(row)
    _refuse(lines, census, faults)
    return census


def _refuse(lines: InputLines, census: Census, faults: int) -> None:
    if faults:
        told = "\n  ".join(census.faults)
        more = f"\n  and {faults - _TOLD} more" if faults > _TOLD else ""
        message = (
            f"{lines.path.name} has {counted(faults, 'line')} that can't be used:\n  {told}{more}"
        )
        raise UsageError(message, "Mend them; nothing was sent or spent.")
    if not census.rows and lines.is_whole:
        raise UsageError(f"{lines.path.name} has no requests.", "Write one a line: text or JSON.")


def estimated_tokens(row: Row) -> int:
    """Return about how many tokens a row's prompt has."""
    said = row.body.get("messages") or row.body.get("prompt") or row.body.get("input") or ""
    return 1 + _chars(said) // CHARS_PER_TOKEN


def _chars(value: object) -> int:
    match value:
        case str():
            return len(value)
        case dict():
            return sum(map(_chars, value.values()))
        case list():
            return sum(map(_chars, value))
    return 1
