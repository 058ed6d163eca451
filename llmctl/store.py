"""SQLite of ended replies: conversations as trees of messages.

A reply is here once it has ended for good; until then its journal is the truth
(`llmctl.journal`). `Store.add` is idempotent and one transaction, so that a process may
die between it and the removal of the journal. The database has a version
(``PRAGMA user_version``); older ones are brought up when they are opened.

WAL mode: readers and one writer at a time, on one machine. All calls block; async callers
use a worker thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llmctl.conversation import Message
from llmctl.environment import CANT_BE_WRITTEN, open_private
from llmctl.errors import LlmctlError, reason
from llmctl.images import in_short
from llmctl.search import around, contains

VERSION = 2
BUSY_TIMEOUT_S = 10.0

_SCHEMA = (
    """
    CREATE TABLE conversation (
        id TEXT PRIMARY KEY,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        title TEXT NOT NULL,
        head INTEGER REFERENCES message (id)
    ) STRICT
    """,
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        parent INTEGER REFERENCES message (id),
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        created REAL NOT NULL,
        generation TEXT REFERENCES generation (id) ON DELETE SET NULL
    ) STRICT
    """,
    """
    CREATE INDEX message_conversation ON message (conversation)
    """,
    """
    CREATE TABLE generation (
        id TEXT PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        model TEXT NOT NULL,
        status TEXT NOT NULL,
        cause TEXT NOT NULL,
        guarantee TEXT,
        chars INTEGER NOT NULL,
        tokens INTEGER,
        reasoning TEXT NOT NULL,
        details TEXT NOT NULL
    ) STRICT
    """,
)

_UPGRADES: Mapping[int, Sequence[str]] = {
    0: _SCHEMA,
    1: (
        "DROP TRIGGER message_added",
        "DROP TRIGGER message_deleted",
        "DROP TABLE message_text",  # an index of words: a search reads the messages now
    ),
}
"""What makes a store of a version one of `VERSION`; version 0 is a file without anything."""

_COLUMNS = """
    message.*, generation.model, generation.status, generation.cause, generation.guarantee,
    generation.chars, generation.tokens, generation.reasoning, generation.details
"""


# What is known of a reply goes to another conversation that has its words, too: a fork.
_HAND_OVER = """
    UPDATE generation SET conversation = other.conversation
    FROM message AS other
    WHERE generation.conversation = :deleted
        AND other.generation = generation.id AND other.conversation <> :deleted
"""


_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StoreUnusable(LlmctlError):
    """The database can't be opened, read or written."""

    kind = "store"

    @classmethod
    def because(cls, path: object, error: Exception) -> Self:
        """Return what an error of SQLite or the system means."""
        hint = "'llmctl doctor' looks at it; 'llmctl run --no-store' does without."
        if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
            hint = "'llmctl doctor --repair' saves what can be saved; --no-store does without it."
        why = reason(error) if isinstance(error, OSError) else error
        return cls(f"The store {path} can't be used: {why}.", hint)


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are ours: damage may show at any row."""

    def execute(self, sql: str, parameters: Any = (), /) -> Self:  # noqa: ANN401  (as the base)
        with self._translated():
            return super().execute(sql, parameters)

    def __next__(self) -> Any:  # noqa: ANN401
        with self._translated():
            return super().__next__()

    def fetchone(self) -> Any:  # noqa: ANN401
        with self._translated():
            return super().fetchone()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            path = getattr(self.connection, "path", "")
            raise StoreUnusable.because(path, error) from error


class _Connection(sqlite3.Connection):
    """A connection whose cursors raise our errors."""

    path: Path

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:  # noqa: ANN401
        return self.cursor(_Cursor).execute(sql, parameters)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that has ended for good.

    Attributes:
        generation: its id.
        conversation: its conversation's id.
        created: when it was asked for, in seconds since the epoch.
        ended: when it ended, in seconds since the epoch.
        history: how many of ``messages`` the store already has.
        messages: all messages of the request.
        content: the reply's text, without markers.
        reasoning: the reasoning before it.
        model: the model's name.
        status: how it ended.
        cause: why.
        guarantee: the worst guarantee of its resumes; None if it was never resumed.
        tokens: content tokens; None where not known.
        details: everything else worth keeping (usage, timings, markers, resumes, options).
        parent: the message that its question follows; 0 for none, None for the last there is.
    """

    generation: str
    conversation: str
    created: float
    ended: float
    history: int
    messages: tuple[Message, ...]
    content: str
    reasoning: str
    model: str
    status: str
    cause: str
    guarantee: str | None
    tokens: int | None
    details: Mapping[str, Any]
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the store has it; ``reply`` describes the assistant's ones.

    ``parent`` is the id of the message before it: messages with the same one are branches.
    """

    id: int | None
    role: str
    content: str
    created: float
    generation: str | None
    reply: Mapping[str, Any] | None
    parent: int | None = None

    def as_message(self) -> Message:
        """Return what a model is sent of it."""
        return Message(self.role, self.content)


@dataclass(frozen=True, slots=True)
class Found:
    """One message that a search found; ``excerpt`` is the text around the words."""

    conversation: str
    title: str
    role: str
    created: float
    excerpt: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a list of conversations; times are seconds since the epoch."""

    id: str
    title: str
    created: float
    updated: float
    messages: int


def _address(path: Path) -> str:
    """Return what SQLite opens as the file at ``path``, which exists now if it can be made."""
    address = path.absolute().as_uri()
    try:
        open_private(path, "a").close()
    except OSError as error:
        if error.errno not in CANT_BE_WRITTEN and path.parent.exists():
            raise
        if not path.exists():
            return ":memory:"
        path.open("rb").close()
        # Readers of a log write, too, unless they are told that nobody does.
        has_log = path.with_name(f"{path.name}-wal").exists()
        return f"{address}?mode=ro" + ("" if has_log else "&immutable=1")
    return address


class Store:
    """The database.

    Args:
        path: the file; made, private to its owner, when it is not there. Where it can only be
            read, so can the store; where none can be made, the store is empty.

    Raises:
        StoreUnusable: it can't be opened, or a newer llmctl wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with ExitStack() as failing:
                address = _address(path)
                self._db = sqlite3.connect(
                    address,
                    uri=True,
                    timeout=BUSY_TIMEOUT_S,
                    isolation_level=None,
                    check_same_thread=False,
                    factory=_Connection,
                )
                failing.callback(self._db.close)
                self._db.path = path
                self._db.row_factory = sqlite3.Row
                self._prepare(can_be_written="?mode=ro" not in address)
                failing.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable.because(path, error) from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, reply: Reply) -> None:
        """Take in a reply and the messages before it that are new; idempotent."""
        with self._transaction():
            if self._one("SELECT 1 FROM generation WHERE id = ?", reply.generation):
                return
            self._add_conversation(reply)
            self._add_generation(reply)
            parent = self._parent(reply)
            for message in reply.messages[reply.history :]:
                parent = self._add_message(reply, message, parent, None)
            head = self._add_message(
                reply, Message("assistant", reply.content), parent, reply.generation
            )
            self._db.execute(
                "UPDATE conversation SET head = ?, updated = max(updated, ?) WHERE id = ?",
                (head, reply.ended, reply.conversation),
            )

    def messages(self, conversation: str, last: int | None = None) -> list[StoredMessage]:
        """Return the messages up to one of a conversation, first to last.

        Args:
            conversation: its id; one that is not here has no messages.
            last: the id of the last message; 0 is before the first one, None means the
                message that the conversation goes on behind.
        """
        rows = self._db.execute(
            f"""
            WITH RECURSIVE line (id, depth) AS (
                SELECT coalesce(?, head), 0 FROM conversation WHERE id = ?
                UNION ALL
                SELECT message.parent, depth + 1 FROM line JOIN message USING (id)
                WHERE message.parent IS NOT NULL
            )
            SELECT {_COLUMNS} FROM line JOIN message USING (id) LEFT JOIN generation
                ON generation.id = message.generation
            WHERE message.conversation = ? ORDER BY depth DESC
            """,  # noqa: S608  (our own words)
            (last, conversation, conversation),
        )
        return [_message(row) for row in rows]

    def all_messages(self, conversation: str) -> list[StoredMessage]:
        """Return the messages of all branches of a conversation, the oldest first."""
        rows = self._db.execute(
            f"""
            SELECT {_COLUMNS} FROM message LEFT JOIN generation
                ON generation.id = message.generation
            WHERE message.conversation = ? ORDER BY message.id
            """,  # noqa: S608  (our own words)
            (conversation,),
        )
        return [_message(row) for row in rows]

    def conversations(self) -> list[Summary]:
        """Return all conversations, the newest activity first."""
        rows = self._db.execute(
            """
            SELECT c.id, c.title, c.created, c.updated,
                   (SELECT count(*) FROM message WHERE conversation = c.id) AS messages
            FROM conversation AS c ORDER BY c.updated DESC
            """
        )
        return [Summary(**dict(row)) for row in rows]

    def ids(self, prefix: str) -> list[tuple[str, str]]:
        """Return (kind, id) of all conversations and generations whose id begins so."""
        rows = self._db.execute(
            """
            SELECT 'conversation' AS kind, id FROM conversation
                WHERE substr(id, 1, length(:prefix)) = :prefix
            UNION ALL
            SELECT 'generation', id FROM generation
                WHERE substr(id, 1, length(:prefix)) = :prefix
            """,
            {"prefix": prefix},
        )
        return [(row["kind"], row["id"]) for row in rows]

    def conversation_of(self, generation: str) -> str | None:
        """Return the conversation a generation belongs to."""
        row = self._one("SELECT conversation FROM generation WHERE id = ?", generation)
        return None if row is None else str(row["conversation"])

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the messages that contain all ``words``, the newest first."""
        rows = self._db.execute(
            """
            SELECT m.conversation, c.title, m.role, m.created, m.content
            FROM message AS m JOIN conversation AS c ON c.id = m.conversation
            WHERE NOT EXISTS (
                SELECT 1 FROM json_each(?) AS word WHERE NOT contains(m.content, word.value)
            )
            ORDER BY m.created DESC, m.id DESC
            """,
            (json.dumps(words),),
        )
        return [
            Found(
                row["conversation"],
                row["title"],
                row["role"],
                row["created"],
                around(row["content"], words[0]),
            )
            for row in rows
        ]

    def mentions(self, text: str) -> bool:
        """Say whether a text stands in a message of any conversation."""
        found = self._one("SELECT 1 FROM message WHERE instr(content, ?) LIMIT 1", text)
        return found is not None

    def copy(self, messages: Sequence[StoredMessage], conversation: str, now: float) -> None:
        """Begin a conversation with the words of others; ``now`` is in seconds."""
        title = title_of(tuple(message.as_message() for message in messages))
        with self._transaction():
            self._db.execute(
                "INSERT INTO conversation VALUES (?, ?, ?, ?, NULL)",
                (conversation, now, now, title),
            )
            parent = None
            for message in messages:
                cursor = self._db.execute(
                    "INSERT INTO message (conversation, parent, role, content, created, generation)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        conversation,
                        parent,
                        message.role,
                        message.content,
                        message.created,
                        message.generation,
                    ),
                )
                parent = cursor.lastrowid
            self._db.execute(
                "UPDATE conversation SET head = ? WHERE id = ?", (parent, conversation)
            )

    def delete(self, conversation: str) -> bool:
        """Delete a conversation for good; say whether it was here."""
        with self._transaction():
            self._db.execute(_HAND_OVER, {"deleted": conversation})
            self._db.execute("UPDATE conversation SET head = NULL WHERE id = ?", (conversation,))
            self._db.execute(
                "UPDATE message SET parent = NULL WHERE conversation = ?", (conversation,)
            )
            found = self._db.execute("DELETE FROM conversation WHERE id = ?", (conversation,))
        return found.rowcount > 0

    # -- inside

    def _prepare(self, *, can_be_written: bool) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.create_function(
            "contains", 2, lambda text, word: contains(text, [word]), deterministic=True
        )
        version = self._version()
        if version == VERSION or (0 < version < VERSION and not can_be_written):
            return
        with self._transaction():
            version = self._version()  # another process may have been faster
            if version > VERSION:
                raise StoreUnusable(
                    f"The store {self.path} was written by a newer llmctl.", "Upgrade llmctl."
                )
            for statement in _UPGRADES.get(version, ()):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        with closing(self._db.execute(sql, values)) as rows:
            row: sqlite3.Row | None = rows.fetchone()
            return row

    def _head(self, conversation: str) -> int | None:
        row = self._one("SELECT head FROM conversation WHERE id = ?", conversation)
        return None if row is None else row["head"]

    def _parent(self, reply: Reply) -> int | None:
        """Return the message that a reply's question follows."""
        if reply.parent is None:
            return self._head(reply.conversation)
        row = self._one(
            "SELECT id FROM message WHERE id = ? AND conversation = ?",
            reply.parent,
            reply.conversation,
        )
        return None if row is None else int(row["id"])

    def _add_conversation(self, reply: Reply) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO conversation VALUES (?, ?, ?, ?, NULL)",
            (reply.conversation, reply.created, reply.ended, title_of(reply.messages)),
        )

    def _add_generation(self, reply: Reply) -> None:
        self._db.execute(
            "INSERT INTO generation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                reply.generation,
                reply.conversation,
                reply.model,
                reply.status,
                reply.cause,
                reply.guarantee,
                len(reply.content),
                reply.tokens,
                reply.reasoning,
                json.dumps(dict(reply.details), ensure_ascii=False),
            ),
        )

    def _add_message(
        self, reply: Reply, message: Message, parent: int | None, generation: str | None
    ) -> int:
        created = reply.created if generation is None else reply.ended
        cursor = self._db.execute(
            "INSERT INTO message (conversation, parent, role, content, created, generation)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (reply.conversation, parent, message.role, message.content, created, generation),
        )
        return int(cursor.lastrowid or 0)


def title_of(messages: tuple[Message, ...]) -> str:
    """Return what a conversation is called in lists: its first question, shortened."""
    first = next((m.content for m in messages if m.role == "user"), "")
    line = " ".join(in_short(first).split())
    return line if len(line) <= 72 else line[:71] + "…"  # noqa: PLR2004


def _message(row: sqlite3.Row) -> StoredMessage:
    reply = None
    if row["generation"] is not None:
        names = ("model", "status", "cause", "guarantee", "chars", "tokens", "reasoning")
        reply = {name: row[name] for name in names} | json.loads(row["details"])
    return StoredMessage(
        row["id"],
        row["role"],
        row["content"],
        row["created"],
        row["generation"],
        reply,
        row["parent"],
    )
