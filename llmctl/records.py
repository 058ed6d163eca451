"""Everything that is remembered: replies in flight (journals) and ended ones (the store).

One truth at a time: a reply in flight is its journal; when it has ended for good it moves
into the store in one idempotent transaction and the journal goes. What a dead process left
half-way is put right when the records are opened. A deletion deletes from both.
"""

from __future__ import annotations

import fcntl
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

from llmctl.environment import CANT_BE_WRITTEN, open_private, private_dir
from llmctl.errors import UsageError, reason
from llmctl.events import End, Position
from llmctl.images import FOLDER, Images, digests_in
from llmctl.journal import (
    Header,
    Journal,
    JournalBusy,
    JournalDamaged,
    Recorded,
    has_ended,
    live_pid,
    read,
    read_header,
)
from llmctl.replies import Partial, as_reply, partial_of, said, without_partial
from llmctl.search import around, check, contains
from llmctl.store import Found, Store, StoredMessage, StoreUnusable, title_of

DATABASE = "conversations.db"
JOURNALS = "journals"
"""Where they are in the data directory."""


def new_id(kind: str) -> str:
    """Return a fresh id; ``kind`` is ``g`` for a generation, ``c`` for a conversation."""
    return kind + secrets.token_hex(5)


class ReplyGone(UsageError):
    """A reply is not in flight any more: another process has ended or deleted it."""

    def __init__(self, generation: str) -> None:
        super().__init__(
            f"Reply {generation} has just been ended elsewhere.",
            "'llmctl conversations list' shows how it stands.",
        )


@dataclass(frozen=True, slots=True)
class InFlight:
    """A reply whose journal exists.

    Attributes:
        recorded: what the journal tells.
        pid: the process that is writing it now; None if there is none.
    """

    recorded: Recorded
    pid: int | None

    @property
    def generation(self) -> str:
        """The reply's id."""
        return self.recorded.header.generation

    @property
    def conversation(self) -> str:
        """Its conversation's id."""
        return self.recorded.header.conversation

    @property
    def position(self) -> Position:
        """How far it was delivered."""
        return self.recorded.mark.position


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with its unfinished last reply, if there is one.

    Attributes:
        id: its id.
        messages: what the store has of it, up to where it goes on.
        unfinished: the reply in flight behind those messages.
        branches: its messages that are on other ways; only `Records.whole` looks for them.
    """

    id: str
    messages: tuple[StoredMessage, ...]
    unfinished: InFlight | None = None
    branches: tuple[StoredMessage, ...] = ()


def _make(data: Path) -> None:
    """Make the folders; where the disk won't have it, what there is can still be read.

    Raises:
        UsageError: there can't be a data directory at that place.
    """
    try:
        private_dir(private_dir(data) / JOURNALS)
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if not data.is_dir():
            message = f"{data} can't be the data directory: {reason(error)}."
            hint = "Choose another folder with --home or LLMCTL_HOME."
            raise UsageError(message, hint) from error
    except OSError:
        return


class Records:
    """All conversations of a user.

    Args:
        data: the data directory.
        clock: seconds since the epoch.

    Raises:
        UsageError: ``data`` can't be a directory.
    """

    def __init__(self, data: Path, clock: Callable[[], float] = time.time) -> None:
        _make(data)
        self._folder = data / JOURNALS
        self._database = data / DATABASE
        self._images = Images(data / FOLDER)
        self._opened: Store | None = None
        self._now = clock
        self._mutex = threading.RLock()
        self._locked = False
        self.damaged: list[Path] = []
        self._recover()

    def __enter__(self) -> Self:
        """Use as a context manager that closes the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        if self._opened is not None:
            self._opened.close()

    # -- writing

    def begin(
        self, header: Header, on_broken: Callable[[OSError], None], *, new: bool = False
    ) -> Journal:
        """Open the journal of a new reply.

        Args:
            header: what the reply is.
            on_broken: as for `Journal`.
            new: its conversation begins with it.

        Raises:
            UsageError: its conversation has an unfinished reply, or went on elsewhere.
            JournalBusy: a reply of that conversation is live in another process.
            OSError: the journal can't be made.
        """
        private_dir(self._folder)
        with self._alone():
            if not new:
                self._check_free(header)
            return Journal.create(self._path(header.generation), header, on_broken)

    def take(
        self, generation: str, on_broken: Callable[[OSError], None]
    ) -> tuple[Journal, Recorded]:
        """Take over a reply in flight to go on with it.

        Raises:
            JournalBusy: it is live in another process.
            JournalDamaged: it can't be read.
            ReplyGone: it is not in flight any more.
            StoreUnusable: its journal can't be written.
        """
        path = self._path(generation)
        try:
            with self._alone():
                return Journal.reopen(path, on_broken)
        except FileNotFoundError as error:
            raise ReplyGone(generation) from error
        except OSError as error:
            raise StoreUnusable.because(path, error) from error

    def settle(self, journal: Journal) -> None:
        """Close a journal; move its reply into the store if it has ended for good.

        Raises:
            StoreUnusable: the reply can't be moved now; the journal keeps it.
        """
        try:
            recorded = read(journal.path, folded=True)[1]
        except FileNotFoundError:
            journal.close()
        except JournalDamaged:  # not even its first record could be written
            journal.discard()
        else:
            self._retire(journal, recorded, self._now())

    def keep(self, generation: str, end: End | None = None) -> None:
        """End an unfinished reply where it stands, kept; ``end`` is how, if not as it was.

        Raises:
            LlmctlError: as for `take`; or the store can't have it, and it stays unfinished.
        """
        journal, recorded = self.take(generation, _not_told)
        recorded.end = end or recorded.end or End.SIGTERM
        try:
            self._store.add(as_reply(recorded, self._now()))
        except StoreUnusable:
            journal.close()
            raise
        journal.discard()

    def drop(self, generation: str) -> None:
        """Forget an unfinished reply and the question it answers.

        Raises:
            LlmctlError: as for `take`.
        """
        self.take(generation, _not_told)[0].discard()

    def fork(
        self, conversation: str, generation: str | None = None, *, last: int | None = None
    ) -> str:
        """Begin a new conversation with what was said in another; return its id.

        A last reply that is not complete can be gone on with in the new one, behind its text.

        Args:
            conversation: the other one.
            generation: its last reply in the new one; None means the last there is.
            last: the id of its last message in the new one, instead.
        """
        here = self.whole(conversation)
        if last is None and here.unfinished and generation in {None, here.unfinished.generation}:
            return self._branch(here.messages, partial_of(here.unfinished.recorded))
        if generation is not None:
            both = (*here.messages, *here.branches)
            last = next(m.id for m in both if m.generation == generation)
        line = self.line(conversation, last)
        return self._branch(*without_partial(line))

    def _branch(self, messages: Sequence[StoredMessage], partial: Partial | None) -> str:
        branch = new_id("c")
        if messages or partial is None:
            self._store.copy(messages, branch, self._now())
        if partial is not None:
            header = partial.header(branch, new_id("g"), self._now(), messages)
            journal = Journal.create(self._path(header.generation), header, _not_told)
            partial.write(journal)
            journal.close()
        return branch

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the messages that contain all ``words``, unfinished replies first.

        Raises:
            UsageError: a word is empty.
        """
        check(words)
        return [*self._search_in_flight(words), *self._store.search(words)]

    def delete(self, conversation: str) -> None:
        """Delete a conversation for good, its unfinished reply too.

        Raises:
            JournalBusy: that reply is live in another process.
        """
        whole = self.whole(conversation)
        deleted = [message.content for message in (*whole.messages, *whole.branches)]
        for reply in self.in_flight():
            if reply.conversation == conversation:
                deleted += [message.content for message in said(reply.recorded)]
                with suppress(ReplyGone):  # into the store, or by another deletion
                    self.drop(reply.generation)
        self._store.delete(conversation)
        gone = set().union(*map(digests_in, deleted))
        self._images.forget(self._is_named, gone, self._now())

    def _is_named(self, digest: str) -> bool:
        """Say whether a message names an image."""
        asked = (reply.recorded.header.request.messages for reply in self.in_flight())
        flying = any(digest in message.content for messages in asked for message in messages)
        return flying or self._store.mentions(digest)

    # -- reading

    def in_flight(self) -> list[InFlight]:
        """Return the replies that are live or unfinished, the newest activity first."""
        return self._in_flight(lambda _path: True)

    def live(self) -> list[InFlight]:
        """Return the replies that a process is writing now, the newest activity first."""
        return self._in_flight(lambda path: live_pid(path) is not None)

    def _in_flight(self, wanted: Callable[[Path], bool]) -> list[InFlight]:
        found = []
        with self._alone():
            for path in self._folder.glob("*.jsonl"):
                try:
                    if wanted(path):
                        found.append(InFlight(read(path)[1], live_pid(path)))
                except FileNotFoundError:
                    continue
                except JournalDamaged:
                    if path not in self.damaged:
                        self.damaged.append(path)
        return sorted(found, key=lambda reply: reply.recorded.updated, reverse=True)

    def conversation(self, conversation: str) -> Conversation:
        """Return a conversation; an id that is nowhere gives an empty one."""
        replies = self._in_flight(lambda path: read_header(path).conversation == conversation)
        unfinished = replies[0] if replies else None
        last = unfinished.recorded.header.parent if unfinished else None
        return Conversation(conversation, self.line(conversation, last), unfinished)

    def line(self, conversation: str, last: int | None = None) -> tuple[StoredMessage, ...]:
        """Return the stored messages up to one of them, or to where the conversation goes on."""
        return tuple(self._store.messages(conversation, last))

    def whole(self, conversation: str) -> Conversation:
        """Return a conversation with its branches."""
        here = self.conversation(conversation)
        line = {message.id for message in here.messages}
        others = (m for m in self._store.all_messages(conversation) if m.id not in line)
        return replace(here, branches=tuple(others))

    def conversations(self) -> list[dict[str, object]]:
        """Return one line for each conversation, the newest activity first."""
        rows: dict[str, dict[str, object]] = {}
        for summary in self._store.conversations():
            rows[summary.id] = {
                "id": summary.id,
                "title": summary.title,
                "created": summary.created,
                "updated": summary.updated,
                "messages": summary.messages,
                "unfinished": None,
            }
        for reply in reversed(self.in_flight()):
            self._merge(rows, reply)
        return sorted(rows.values(), key=lambda row: float(str(row["updated"])), reverse=True)

    def find(self, prefix: str) -> str:
        """Return the conversation that an id, or a unique prefix of one, stands for.

        Raises:
            UsageError: there is none, or more than one.
        """
        kind, found = self._find(prefix)
        if kind == "conversation":
            return found
        live = {reply.generation: reply.conversation for reply in self.in_flight()}
        return live.get(found) or self._store.conversation_of(found) or found

    def find_reply(self, prefix: str) -> tuple[str, str | None]:
        """Return (conversation, generation) for an id or a unique prefix of one.

        The generation is None when the id is a conversation's.

        Raises:
            UsageError: there is none, or more than one.
        """
        kind, found = self._find(prefix)
        return (found, None) if kind == "conversation" else (self.find(found), found)

    def place_of(self, conversation: str, reply: str) -> int:
        """Return the id of the message that is a stored reply of a conversation.

        Raises:
            UsageError: it has none, or more than one, whose id begins so.
        """
        found = [m for m in self._store.all_messages(conversation) if m.generation]
        found = [m for m in found if str(m.generation).startswith(reply)]
        if len(found) != 1 or found[0].id is None:
            many = f"'{reply}' stands for {len(found)} replies of this conversation."
            raise UsageError(many, f"See 'llmctl conversations show --tree {conversation}'.")
        return found[0].id

    def newest_conversation(self) -> str | None:
        """Return the conversation with the newest activity."""
        rows = self.conversations()
        return str(rows[0]["id"]) if rows else None

    # -- inside

    def _search_in_flight(self, words: Sequence[str]) -> Iterator[Found]:
        for reply in self.in_flight():
            header = reply.recorded.header
            for message in said(reply.recorded):
                if contains(message.content, words):
                    yield Found(
                        conversation=header.conversation,
                        title=title_of(header.request.messages),
                        role=message.role,
                        created=message.created,
                        excerpt=around(message.content, words[0]),
                    )

    def _path(self, generation: str) -> Path:
        return self._folder / f"{generation}.jsonl"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from taking a reply, or looking who has it; may be nested."""
        with self._mutex:
            if self._locked:
                yield
                return
            with self._lock_file() as file:
                if file is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                self._locked = True
                try:
                    yield
                finally:
                    self._locked = False

    def _lock_file(self) -> AbstractContextManager[IO[bytes] | None]:
        """Open what processes lock; None where none of them could have made it."""
        path = self._folder / "lock"
        try:
            return open_private(path, "ab")
        except OSError as error:
            if self._folder.exists() and error.errno not in CANT_BE_WRITTEN:
                raise
            return path.open("rb") if path.exists() else nullcontext()

    @property
    def _store(self) -> Store:
        """The database, opened when it is first needed: a new reply needs it at its end."""
        with self._mutex:
            if self._opened is None:
                self._opened = Store(self._database)
            return self._opened

    def _check_free(self, header: Header) -> None:
        here = self.conversation(header.conversation)
        if here.unfinished is not None:
            if here.unfinished.pid is not None:
                raise JournalBusy(here.unfinished.generation, here.unfinished.pid)
            generation = here.unfinished.generation
            raise UsageError(
                f"The last reply of conversation {here.id} is unfinished.",
                f"Go on with 'llmctl resume {generation}', or add --keep or --drop.",
            )
        if len(self.line(here.id, header.parent)) != header.history:
            raise UsageError(
                f"Conversation {here.id} went on in another process.",
                f"Start over from it, or 'llmctl conversations fork {here.id}'.",
            )

    def _recover(self) -> None:
        """Put right what dead processes left half-way."""
        for path in self._folder.glob("*.jsonl"):
            try:
                if has_ended(path):
                    with self._alone():
                        journal, recorded = Journal.reopen(path, _not_told, quiet=True)
                    self._retire(journal, recorded, recorded.updated)
            except (JournalBusy, FileNotFoundError):
                continue
            except JournalDamaged:
                self.damaged.append(path)
            except (StoreUnusable, OSError):
                return  # who has to write hears of it; a new reply needs its journal only

    def _retire(self, journal: Journal, recorded: Recorded, ended: float) -> None:
        """Close a journal; let the store have its reply if it has ended for good."""
        if recorded.resumable:
            journal.close()
            return
        if recorded.chunks or recorded.end is not End.REFUSED:
            try:
                self._store.add(as_reply(recorded, ended))
            except StoreUnusable:
                journal.close()
                raise
        journal.discard()

    def _find(self, prefix: str) -> tuple[str, str]:
        if not prefix:
            raise UsageError("An id can't be empty.", "See 'llmctl conversations list'.")
        found = set(self._store.ids(prefix))
        for reply in self.in_flight():
            found |= {("generation", reply.generation), ("conversation", reply.conversation)}
        found = {(kind, id_) for kind, id_ in found if id_.startswith(prefix)}
        exact = {pair for pair in found if pair[1] == prefix}
        match sorted(exact or found):
            case [only]:
                return only
            case []:
                raise UsageError(
                    f"Nothing has the id '{prefix}'.", "See 'llmctl conversations list'."
                )
            case several:
                names = ", ".join(id_ for _, id_ in several[:5])
                message = f"'{prefix}' stands for {len(several)} ids: {names}."
                raise UsageError(message, "Give more of its characters.")

    def _merge(self, rows: dict[str, dict[str, object]], reply: InFlight) -> None:
        header = reply.recorded.header
        row = rows.setdefault(
            header.conversation,
            {
                "id": header.conversation,
                "title": title_of(header.request.messages),
                "created": header.created,
                "messages": 0,
            },
        )
        new = len(header.request.messages) - header.history
        row["messages"] = int(str(row["messages"])) + new
        row["updated"] = reply.recorded.updated
        row["unfinished"] = reply.generation


def _not_told(_error: OSError) -> None:
    """Writing nothing, nothing breaks."""
