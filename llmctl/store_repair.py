"""A damaged store: find it out, and save what can be saved into a new one.

The damaged file is moved aside and never written to. Rows are read one by one, so that a
damaged page costs the rows on it and no others; what refers to a row that is lost is joined to
what is left.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.conversation import Message
from llmctl.store import VERSION, Store, title_of

_TABLES = ("conversation", "generation", "message")
_GAP = 1000
"""Rows that may be missing in a row before a table is taken to be at its end."""

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of a repair.

    Attributes:
        aside: where the damaged file is now.
        conversations: how many were saved.
        messages: how many were saved.
    """

    aside: Path
    conversations: int
    messages: int


def trouble(path: Path) -> str | None:
    """Return what is wrong with a store; None if nothing is, or there is none."""
    if not path.exists():
        return None
    try:
        with closing(_reading(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                return "it was written by a newer llmctl"
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else str(found).splitlines()[0]


def repair(path: Path) -> Repaired:
    """Move a damaged store aside and save what can be read of it.

    Args:
        path: the store; nobody else may have it open.

    Raises:
        OSError: the files can't be moved.
        StoreUnusable: the new store can't be written.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    Store(path).close()  # makes it, private
    with closing(sqlite3.connect(path, isolation_level=None)) as new:
        new.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            for row in _saved(aside, table):
                marks = ", ".join("?" * len(row))
                with suppress(sqlite3.IntegrityError):  # a row that damage made meet another
                    new.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608
        _join(new)
        counts = [new.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in _TABLES]  # noqa: S608
        new.execute("COMMIT")
    return Repaired(aside, counts[0], counts[2])


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _saved(path: Path, table: str) -> Iterator[Row]:
    """Yield every row of a table that can be read, each by a look of its own."""
    with closing(_reading(path)) as db:
        rowid, missing, highest = 0, 0, _highest(db, table)
        while rowid < highest or missing < _GAP:
            rowid += 1
            try:
                row = db.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone()  # noqa: S608
            except sqlite3.DatabaseError:
                row = None
            missing = 0 if row is not None else missing + 1
            if row is not None:
                yield row


def _highest(db: sqlite3.Connection, table: str) -> int:
    try:
        return int(db.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0)  # noqa: S608
    except sqlite3.DatabaseError:
        return 0


def _join(db: sqlite3.Connection) -> None:
    """Make what is left hold together: parents, heads, conversations and generations."""
    for (lost,) in db.execute(
        "SELECT DISTINCT conversation FROM message"
        " WHERE conversation NOT IN (SELECT id FROM conversation)"
    ).fetchall():
        first, begun, ended = db.execute(
            "SELECT content, min(created), max(created) FROM message WHERE conversation = ?",
            (lost,),
        ).fetchone()
        values = (lost, begun, ended, title_of((Message("user", first),)))
        db.execute("INSERT INTO conversation VALUES (?, ?, ?, ?, NULL)", values)
    db.execute("DELETE FROM generation WHERE conversation NOT IN (SELECT id FROM conversation)")
    db.execute(
        "UPDATE message SET generation = NULL WHERE generation NOT IN (SELECT id FROM generation)"
    )
    db.execute(
        "UPDATE message SET parent = (SELECT max(id) FROM message AS before"
        " WHERE before.conversation = message.conversation AND before.id < message.id)"
        " WHERE parent NOT IN (SELECT id FROM message)"
    )
    db.execute(
        "UPDATE conversation SET head = (SELECT max(id) FROM message"
        " WHERE message.conversation = conversation.id)"
        " WHERE head IS NULL OR head NOT IN (SELECT id FROM message)"
    )
