"""Several files of results made into one.

Takes outputs of shards, each with the errors file beside it, and OpenAI's own result files; a
line counts as complete if it has a response with status 200. Of several lines for one item a
complete one wins over others, and the first over later ones. Where a line begins in its file
is all that is remembered, on disk.

What is written over is lost, so an output that is there already must be in the merge: as one of
the sources, or because the sources have all its complete lines, as when shards have gone on since.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from llmctl.batch.forms import id_of_line
from llmctl.batch.lease import busy, look
from llmctl.batch.lines import BadLine, InputLines
from llmctl.batch.results import (
    check_file,
    check_output,
    errors_path,
    is_complete,
    is_torn,
    state_path,
)
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
        UsageError: a file can't be read, or holds something else; the output has lines of its own.
        BatchBusy: a process appends to the output.
    """
    check_output(output)
    holder = look(state_path(output))
    if holder is not None and holder.is_live:
        raise busy(holder)
    with ExitStack() as stack:
        places = stack.enter_context(_Places())
        files = [stack.enter_context(_opened(path)) for path in _with_errors(sources)]
        twice = sum(_take(places, number, file) for number, file in enumerate(files))
        _check_old(places, files, output)
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

    def find(self, id_: str) -> tuple[int, int] | None:
        """Return file and place of an item's line, None if there is no such item."""
        found = self._db.execute("SELECT file, at FROM place WHERE id=?", (id_,)).fetchone()
        return None if found is None else (int(found[0]), int(found[1]))

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
    check_file(path, "Name files that 'llmctl batch' has written.")  # lines are read again by place
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


def _check_old(places: _Places, files: Sequence[BinaryIO], output: Path) -> None:
    """See that nothing is lost with what the merge writes over.

    Raises:
        UsageError: a file has lines of its own.
    """
    sources = [os.fstat(file.fileno()) for file in files]
    for path, complete in ((output, True), (errors_path(output), False)):
        if not path.exists() or any(os.path.samestat(path.stat(), source) for source in sources):
            continue
        with path.open("rb") as old:
            if not all(_is_in(places, files, line, complete=complete) for line in old):
                raise UsageError(
                    f"{path} is there already, and is not among the files to merge.",
                    "Name it among them to keep its items, or choose another OUTPUT.",
                )


def _is_in(places: _Places, files: Sequence[BinaryIO], line: bytes, *, complete: bool) -> bool:
    """Say whether a merge has this line, if it is of a complete item; else, whether the item."""
    if not line.strip():
        return True
    try:
        id_, _ = _what(line, "")
    except UsageError:
        return False
    found = places.find(id_)
    if found is None or not complete:
        return found is not None
    file, at = found
    files[file].seek(at)
    return files[file].readline().rstrip(b"\n") == line.rstrip(b"\n")


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
