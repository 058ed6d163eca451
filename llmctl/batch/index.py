"""What is known of every item, on disk: the ids of ten million rows don't fit into memory.

A private SQLite database that has no name: it lives in the temporary folder, is gone with
the process, and can always be made again from the input, the output and the state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

_CACHE_KIB = 8192


class Standing(IntEnum):
    """How far an item has come."""

    NEW = 0
    COMPLETE = 1
    STOPPED = 2
    FAILED = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What the index has of an item.

    Attributes:
        digest: of its effective request.
        standing: how far it has come.
        at: where the state has its last end, in bytes; None if nowhere.
        changed: its request was another one in an earlier run.
    """

    digest: bytes
    standing: Standing
    at: int | None
    changed: bool


class Index:
    """All items of a batch by their id; use it as a context manager."""

    def __init__(self) -> None:
        # The reader's thread looks things up while the loop waits for it: never both.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB};"
            "CREATE TABLE item(id TEXT PRIMARY KEY, line INT, digest BLOB, standing INT DEFAULT 0,"
            " at INT, filed INT DEFAULT 0, changed INT DEFAULT 0) WITHOUT ROWID; BEGIN"
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget everything."""
        self._db.close()

    def add(self, id_: str, line: int, digest: bytes) -> int | None:
        """Add an item; return the line that has its id already, None if it is new."""
        try:
            self._db.execute(
                "INSERT INTO item(id, line, digest) VALUES(?,?,?)", (id_, line, digest)
            )
        except sqlite3.IntegrityError:
            found = self._db.execute("SELECT line FROM item WHERE id=?", (id_,)).fetchone()
            return int(found[0])
        return None

    def find(self, id_: str) -> Known | None:
        """Return what is known of an item, None if it is not in the input."""
        row = self._db.execute(
            "SELECT digest, standing, at, changed FROM item WHERE id=?", (id_,)
        ).fetchone()
        return None if row is None else Known(row[0], Standing(row[1]), row[2], bool(row[3]))

    def stand(self, id_: str, standing: Standing, at: int | None = None) -> None:
        """Note how far an item has come."""
        self._db.execute("UPDATE item SET standing=?, at=? WHERE id=?", (standing, at, id_))

    def file(self, id_: str) -> None:
        """Note that the state knows the item."""
        self._db.execute("UPDATE item SET filed=1 WHERE id=?", (id_,))

    def unfile(self) -> None:
        """The state knows no item any more."""
        self._db.execute("UPDATE item SET filed=0")

    def change(self, id_: str) -> None:
        """Note that the item's request is another one than it was."""
        self._db.execute("UPDATE item SET changed=1 WHERE id=?", (id_,))

    def unfiled(self) -> Iterator[tuple[str, bytes]]:
        """Yield id and digest of the items that the state does not know, in input order."""
        query = "SELECT id, digest FROM item WHERE filed=0 ORDER BY line"
        yield from self._db.execute(query)

    def count(self, *standings: Standing) -> int:
        """Return how many items stand there; without arguments, how many there are."""
        among = ",".join(str(int(s)) for s in standings or Standing)
        query = f"SELECT count(*) FROM item WHERE standing IN ({among})"  # noqa: S608  (numbers)
        return int(self._db.execute(query).fetchone()[0])

    def ends(self) -> Iterable[int]:
        """Yield where the state has the ends of the incomplete items, in input order."""
        query = "SELECT at FROM item WHERE standing>1 AND at IS NOT NULL ORDER BY line"
        return (at for (at,) in self._db.execute(query))
