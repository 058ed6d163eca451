"""A batch's state: the folder beside the output, and what it says about every item.

=================  =====================================================================
``lease``          who works on it
``items.jsonl``    every item ever seen: its id and the digest of its request
``ends.jsonl``     how an item's last attempt ended, with what is kept of it
``seed.json``      from which the items' seeds come
``asked.json``     what the last command line said about every row
``version.json``   which version of all this it is; folders of version 1 may lack it
``live-N.jsonl``   what arrives (`llmctl.batch.journal`); only while a process works
=================  =====================================================================

Files are appended to by one process; a torn last line is cut off before the next one writes.
OUTPUT is the truth for what is complete. So the state may be lost: then what is complete
still counts, and what was begun begins anew. A damaged record is passed over and counted:
its item stands as its other records say, or begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from llmctl.batch.appended import AppendFile
from llmctl.batch.index import Index, Standing
from llmctl.batch.journal import LiveJournal
from llmctl.batch.kept import Kept
from llmctl.batch.lease import Lease
from llmctl.batch.records import DAMAGE, live_files, read_live
from llmctl.environment import private_dir, write_private
from llmctl.errors import UsageError

ENDS = "ends.jsonl"
ITEMS = "items.jsonl"
SEED = "seed.json"
ASKED = "asked.json"
VERSION_FILE = "version.json"
VERSION = 1
Told = TypeVar("Told")
NAMED = 20
"""Ids that a message lists."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an item's last attempt ended, short of complete.

    Attributes:
        id: the item's.
        digest: of its effective request.
        standing: whether it goes on, is retried, or was refused.
        cause: the reason, as in ``llmctl.cause`` of its row.
        kept: what there is of it.
        error: kind, message and hint, for the errors file.
        metadata: the row's.
    """

    id: str
    digest: bytes
    standing: Standing
    cause: str
    kept: Kept
    error: dict[str, Any] | None = None
    metadata: Any = None

    def as_json(self) -> dict[str, Any]:
        """Return a form that `from_json` reads back."""
        return {
            "id": self.id,
            "digest": self.digest.hex(),
            "standing": self.standing.name.lower(),
            "cause": self.cause,
            "kept": self.kept.as_json(),
            "error": self.error,
            "metadata": self.metadata,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        return cls(
            data["id"],
            bytes.fromhex(data["digest"]),
            Standing[data["standing"].upper()],
            data["cause"],
            Kept.from_json(data["kept"]),
            data["error"],
            data["metadata"],
        )


@dataclass(slots=True)
class Changes:
    """Where the input differs from what the state knows; of each at most a few are named.

    Attributes:
        changed: ids whose request is another one now.
        removed: ids that are not in the input any more.
    """

    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.changed or self.removed)


class State:
    """The folder's one writer; a context manager.

    Args:
        folder: the state folder; it is made if need be.

    Attributes:
        damaged: records that could not be read and were passed over.

    Raises:
        BatchBusy: another process has it.
        UsageError: a newer version of this program made it.
        OSError: it can't be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._was_there = folder.exists()
        self.folder = private_dir(folder)
        self.damaged = 0
        _check_version(folder)
        self.lease = Lease(folder)
        self._items = AppendFile(folder / ITEMS)
        self._ends = AppendFile(folder / ENDS)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and give the lease up; a folder that was made for nothing goes."""
        is_empty = not self._items.size and not self._ends.size
        self._items.close()
        self._ends.close()
        if self._was_there or not is_empty:
            self.lease.release()
        else:
            self._remove()

    def _remove(self) -> None:
        for name in (ITEMS, ENDS, ASKED, VERSION_FILE):
            (self.folder / name).unlink(missing_ok=True)
        self.lease.release()
        with suppress(OSError):  # somebody has put something there
            self.folder.rmdir()

    @property
    def is_new(self) -> bool:
        """Whether it knows of no item yet."""
        return self._items.size == 0

    def base_seed(self, choose: Callable[[], int]) -> int:
        """Return the number from which items' seeds come; chosen once."""
        path = self.folder / SEED
        try:
            return int(json.loads(path.read_text("utf-8"))["seed"])
        except (FileNotFoundError, ValueError):
            seed = choose()
            write_private(path, json.dumps({"seed": seed}))
            return seed

    # -- reading what earlier processes left

    def asked(self) -> dict[str, str] | None:
        """Return what the last command line said (`llmctl.batch.asked`); None if not known."""
        try:
            said = json.loads((self.folder / ASKED).read_text("utf-8"))
            return {str(option): str(word) for option, word in said.items()}
        except (FileNotFoundError, *DAMAGE):
            return None

    def has_begun(self) -> bool:
        """Say whether anything has come of any item that did not get complete."""
        ends = (self.ended(at).kept for at, _ in self._records(ENDS, _end))
        live = (kept for path in live_files(self.folder) for _, _, kept in read_live(path))
        return any(map(_has_come, chain(ends, live)))

    def compare(self, index: Index) -> Changes:
        """Say where the input differs from what earlier runs had; known items are filed."""
        changes = Changes()
        for _, (id_, digest) in self._records(ITEMS, item_of):
            known = index.find(id_)
            if known is None:
                _note(changes.removed, id_)
            else:
                index.file(id_)
                if known.digest.hex() != digest:
                    index.change(id_)
                    _note(changes.changed, id_)
        return changes

    def file_new(self, index: Index) -> None:
        """Add the items that the state did not know; nothing has been spent on them yet."""
        self._items.extend([id_, digest.hex()] for id_, digest in index.unfiled())

    def accept(self, index: Index) -> None:
        """Forget what the input does not have any more, and how changed items once were."""
        self._items.clear()
        index.unfile()

    def recall(self, index: Index) -> None:
        """Put into the index how each incomplete item stands; what was killed is an end too."""
        for path in live_files(self.folder):
            for id_, digest, kept in read_live(path):
                self.end(Ended(id_, digest, Standing.STOPPED, "killed", kept))
        self._ends.sync()
        for path in live_files(self.folder):
            path.unlink()
        for at, (id_, hexed, standing) in self._records(ENDS, _end):
            known = index.find(id_)
            if known is None or known.standing is Standing.COMPLETE:
                continue
            if known.digest.hex() == hexed:
                index.stand(id_, standing, at)

    def ended(self, at: int) -> Ended:
        """Return the end that begins at a place of its file."""
        return Ended.from_json(json.loads(self._ends.read_line(at)))

    def _records(self, name: str, read: Callable[[Any], Told]) -> Iterator[tuple[int, Told]]:
        """Yield what each whole record of a file tells, with the record's place."""
        at = 0
        with (self.folder / name).open("rb") as file:
            for line in file:
                try:
                    told = read(json.loads(line)) if line.endswith(b"\n") else None
                except DAMAGE:
                    self.damaged += 1
                    told = None
                if told is not None:
                    yield at, told
                at += len(line)

    # -- writing

    def ask(self, said: Mapping[str, str]) -> None:
        """Remember what the command line says about every row."""
        if said != self.asked():
            write_private(self.folder / ASKED, json.dumps(said))

    def end(self, ended: Ended) -> int:
        """Append an item's end and return where it is."""
        return self._ends.append(ended.as_json())

    def journal(self, on_broken: Callable[[OSError], None]) -> LiveJournal:
        """Begin this process's record of what arrives."""
        return LiveJournal(self.folder, on_broken)

    def sync(self) -> None:
        """Make the ends survive a power cut; blocks."""
        self._ends.sync()


def _has_come(kept: Kept) -> bool:
    return kept.begun or kept.finish_reason is not None or kept.cursor is not None


def _note(names: list[str], name: str) -> None:
    if len(names) < NAMED:
        names.append(name)


def _check_version(folder: Path) -> None:
    """See that a folder is of this version; a new one is marked as such.

    Raises:
        UsageError: it is of a newer one.
    """
    path = folder / VERSION_FILE
    try:
        version = json.loads(path.read_text("utf-8"))["version"]
    except (FileNotFoundError, *DAMAGE):  # made before there was the mark: version 1
        write_private(path, json.dumps({"version": VERSION}))
        return
    if version != VERSION:
        raise UsageError(f"The state in {folder} was written by a newer llmctl.", "Upgrade llmctl.")


def item_of(record: Any) -> tuple[str, str]:  # noqa: ANN401  (JSON)
    """Return id and digest of an item that the state knows."""
    id_, digest = record
    return str(id_), str(digest)


def _end(record: Any) -> tuple[str, str, Standing]:  # noqa: ANN401  (JSON)
    return str(record["id"]), str(record["digest"]), Standing[record["standing"].upper()]
