"""Several files of results made into one.

Takes outputs of shards, each with the errors file beside it, and OpenAI's own result files; a
line counts as complete if it has a response with status 200. Of several lines for one item a
complete one wins over others, and the first over later ones. Where a line begins in its file
is all that is remembered, on disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from llmctl.batch.forms import id_of_line
from llmctl.batch.lines import BadLine, InputLines
from llmctl.batch.results import errors_path, is_complete, is_torn
from llmctl.environment import write_private
from llmctl.errors import UsageError, reason


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of a merge.

    Attributes:
        complete: lines written to the output.
        failed: lines written to its errors file.
        twice: further lines for items that were there already.
        missing: items of the input that have no line; 0 where no input was given.
    """

    complete: int
    failed: int
    twice: int
    missing: int = 0


def merge(sources: Sequence[Path], output: Path, *, order: Path | None = None) -> Merged:
    """Write the lines of ``sources`` into ``output`` and its errors file, each in one step.

    Args:
        sources: files of results.
        output: where complete items go.
        order: the input, whose order is wanted; None keeps the order of the sources.

    Raises:
        UsageError: a file can't be read, or holds something else.
    """
    with ExitStack() as stack:
        places = stack.enter_context(_Places())
        files = [stack.enter_context(_opened(path)) for path in _with_errors(sources)]
        twice = sum(_take(places, number, file) for number, file in enumerate(files))
        missing = 0 if order is None else _put_in_order(places, order)
        write_private(output, _lines(places, files, complete=True))
        write_private(errors_path(output), _lines(places, files, complete=False))
        return Merged(places.count(complete=True), places.count(complete=False), twice, missing)


class _Places:
    """Where the line of each item is; on disk, and gone with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8192;"
            "CREATE TABLE place(id TEXT PRIMARY KEY, file INT, at INT, complete INT, rank INT)"
            " WITHOUT ROWID; BEGIN"
        )
        self._rank = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def put(self, id_: str, file: int, at: int, *, complete: bool) -> bool:
        """Note a line; say whether the item was there already."""
        self._rank += 1
        found = self._db.execute("SELECT complete FROM place WHERE id=?", (id_,)).fetchone()
        if found is None or (complete and not found[0]):
            self._db.execute(
                "INSERT OR REPLACE INTO place VALUES(?,?,?,?,?)",
                (id_, file, at, complete, self._rank),
            )
        return found is not None

    def rank(self, id_: str, rank: int) -> bool:
        """Set where an item stands; say whether there is such an item."""
        changed = self._db.execute("UPDATE place SET rank=? WHERE id=?", (rank, id_))
        return changed.rowcount > 0

    def shift(self) -> None:
        """Put all items behind the ones that are ranked from now on."""
        self._db.execute("UPDATE place SET rank=rank+?", (1 << 40,))

    def all(self, *, complete: bool) -> Iterator[tuple[int, int]]:
        """Yield file and place of the lines, in order."""
        query = "SELECT file, at FROM place WHERE complete=? ORDER BY rank"
        yield from self._db.execute(query, (complete,))

    def count(self, *, complete: bool) -> int:
        """Return how many items there are."""
        query = "SELECT count(*) FROM place WHERE complete=?"
        return int(self._db.execute(query, (complete,)).fetchone()[0])


def _with_errors(sources: Sequence[Path]) -> list[Path]:
    """Return the files with the errors files beside them, each once."""
    beside = [errors for path in sources if (errors := errors_path(path)).exists()]
    return list(dict.fromkeys([*sources, *beside]))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {reason(error)}.", "Name another file.") from error


def _take(places: _Places, number: int, file: BinaryIO) -> int:
    """Note every line of a file; return how many were for items that were there already."""
    at = twice = 0
    for line in file:
        if line.strip() and not is_torn(line):
            id_, complete = _what(line, str(file.name))
            twice += places.put(id_, number, at, complete=complete)
        at += len(line)
    return twice


def _what(line: bytes, name: str) -> tuple[str, bool]:
    """Return a line's item, and whether it is complete."""
    try:
        row: dict[str, Any] = json.loads(line)
        return str(row["custom_id"]), is_complete(row)
    except (ValueError, KeyError, AttributeError, TypeError):
        hint = "Name OUTPUT files of 'llmctl batch', or result files of a Batch API."
        raise UsageError(f"{name} holds something else than results.", hint) from None


def _put_in_order(places: _Places, order: Path) -> int:
    """Rank the items as the input has them; return how many of it have no line."""
    lines, missing = InputLines(order), 0
    places.shift()
    for line in lines:
        try:
            id_ = id_of_line(line, is_json=lines.is_json)
        except BadLine as fault:
            message = f"{order.name} can't be used: line {line.number}: {fault}"
            raise UsageError(message, "--order takes the INPUT of the batch.") from None
        missing += not places.rank(id_, line.number)
    return missing


def _lines(places: _Places, files: Sequence[BinaryIO], *, complete: bool) -> Iterator[bytes]:
    for file, at in places.all(complete=complete):
        files[file].seek(at)
        yield files[file].readline().removesuffix(b"\n") + b"\n"
