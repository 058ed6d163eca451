"""The record of the items in flight: one append-only file a process, one write a read.

Every line is a JSON list: what it is, which item (a number of this file's own), and the
rest::

    ["item", 7, "row-7", "<digest>", {kept}]     an attempt begins; what is kept so far
    ["got", 7, "some text", 2, …]                a chunk, before anything is made of it
    ["how", 7, {conditions}]   ["on", 7, {resumed}]   ["state", 7, {saved}]
    ["shape", 7, {fold}]                         before the chunk that ends the reply
    ["end", 7]                                   the item's end is in another file

What ``os.write`` was given survives ``kill -9``. When the file has grown to `LONGEST`, the
items in flight are written once more at the beginning of a new one and the old one goes:
the disk it takes depends on what is in flight, not on the batch.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmctl.backends.meter import Meter, units_of
from llmctl.batch.kept import Kept
from llmctl.batch.records import fields_of, live_path, note_resume
from llmctl.environment import FILE_MODE
from llmctl.events import (
    Chunk,
    End,
    MarkerFound,
    Paused,
    Resumed,
    Strategy,
    Timing,
)
from llmctl.received import Received
from llmctl.turn import Mark

LONGEST = 64 * 1024 * 1024
"""Bytes after which a new file is begun."""

Shape = Callable[[], dict[str, Any] | None]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class LiveJournal:
    """The one writer of a process's records.

    Args:
        folder: the state folder.
        on_broken: told once when writing failed; the work goes on without durability.
        longest: bytes after which a new file is begun.
        tag: sets the files apart from those of others who write now; ends with ``-``.
    """

    def __init__(
        self,
        folder: Path,
        on_broken: Callable[[OSError], None],
        *,
        longest: int = LONGEST,
        tag: str = "",
    ) -> None:
        self._folder = folder
        self._tag = tag
        self._on_broken = on_broken
        self._longest = longest
        self._items: dict[int, ItemJournal] = {}
        self._next = 0
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._begin()

    def item(
        self, id_: str, digest: bytes, kept: Kept, so_far: Received, shape: Shape
    ) -> ItemJournal:
        """Begin to record an attempt.

        Args:
            id_: the item's.
            digest: of its effective request.
            kept: what there was before the attempt.
            so_far: what its turn has received; read when a new file is begun.
            shape: gives what of the reply is not text.
        """
        self._next += 1
        journal = ItemJournal(self, self._next, (id_, digest.hex()), kept, so_far, shape)
        self._items[self._next] = journal
        self.write(journal.opening())
        return journal

    def end(self, journal: ItemJournal) -> None:
        """The attempt is over and its end is on disk."""
        del self._items[journal.number]
        self.write(["end", journal.number])
        if self._size > self._longest:
            self._begin()

    def write(self, record: list[Any]) -> None:
        """Append a record."""
        self._append(f"{_encode(record)}\n".encode("utf-8", "replace"))

    def sync(self) -> None:
        """Make what was written survive a power cut; blocks."""
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; it is removed if nothing is in flight."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._path is not None and not self._items:
            self._path.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Begin a file with what is in flight, then let the one before go."""
        old_fd, old = self._fd, self._path
        self._path = live_path(self._folder, self._tag)
        try:
            self._fd = os.open(self._path, _NEW, FILE_MODE)
            os.fchmod(self._fd, FILE_MODE)  # a umask may have taken bits from the owner too
        except OSError as error:
            self._break(error)
        self._size = 0
        for journal in self._items.values():
            journal.catch_up()
            self.write(journal.opening())
        if old is not None and old_fd is not None:
            os.close(old_fd)
            old.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            return
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._break(error)
            return
        self._size += written
        if written != len(data):
            self._break(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _break(self, error: OSError) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._on_broken(error)


class ItemJournal:
    """One item's records in the shared file; the session's journal port.

    Attributes:
        number: the item's, in this process.
        kept: what there was before the attempt, and its conditions, resumes and state since.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (made in one place)
        self,
        live: LiveJournal,
        number: int,
        name: tuple[str, str],
        kept: Kept,
        so_far: Received,
        shape: Shape,
    ) -> None:
        self.number = number
        self.kept = kept
        self._live = live
        self._name = name
        self._so_far = so_far
        self._shape = shape
        self.meter: Meter | None = None
        self._settled = False

    def opening(self) -> list[Any]:
        """Return the record that says all that is kept by now."""
        return ["item", self.number, *self._name, self.kept.as_json()]

    def catch_up(self) -> None:
        """Take into ``kept`` what the attempt has received, unless it is over."""
        if self._settled:
            return
        self.kept.take(self._so_far)
        self.kept.shape = self._shape()

    def settle(self) -> None:
        """The attempt is over: from now on ``kept`` is what counts."""
        self.catch_up()
        self._settled = True

    def received(self, chunk: Chunk) -> None:
        """Record a chunk before anything is made of it."""
        if chunk.finish_reason is not None:
            self._live.write(["shape", self.number, self._shape()])
        self._live.write(["got", self.number, *fields_of(chunk)])
        if self.meter is not None:
            self.meter.count(units_of(chunk))
            self.meter.settle(chunk.usage, ended=chunk.finish_reason is not None)

    def conditions(self, conditions: Mapping[str, Any]) -> None:
        """Record on what an exact replay depends."""
        self.kept.conditions = dict(conditions)
        if conditions:
            self._live.write(["how", self.number, self.kept.conditions])

    def resumed(self, event: Resumed) -> None:
        """Record how the reply goes on; a pause that nobody meant is no resume."""
        if event.strategy is Strategy.HELD:
            return
        resume = event.as_json()
        del resume["type"]
        note_resume(self.kept, resume)
        self._live.write(["on", self.number, resume])

    def saved(self, state: Mapping[str, Any]) -> None:
        """Record where the engine's state was kept."""
        self.kept.saved = dict(state)
        self._live.write(["state", self.number, self.kept.saved])

    def delivered(self, mark: Mark) -> None:
        """Nothing: an item is delivered when its line is in the output."""

    def marker(self, event: MarkerFound, mark: Mark) -> None:
        """Nothing: the text is gone through again."""

    def paused(self, event: Paused) -> None:
        """Nothing: a batch does not pause."""

    def ended(self, end: End, timing: Timing, *, resumable: bool) -> None:
        """Nothing: the scheduler decides what an end means."""

    def sync(self) -> None:
        """Nothing: the whole file is synced now and then."""
