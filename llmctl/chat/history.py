"""The conversation a chat is in: what was said, and the reply that is not finished.

`Remembered` keeps it in the records, `Forgotten` (``--no-store``) in this process only. Where
the disk won't have any more, `Remembered` keeps what is said from there on in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from llmctl.errors import LlmctlError, UsageError
from llmctl.events import End
from llmctl.journal import Header, Journal, NoJournal, Recorded
from llmctl.records import Conversation, InFlight, Records, new_id
from llmctl.replies import said
from llmctl.search import around, contains
from llmctl.store import Found, StoredMessage, StoreUnusable

OnBroken = Callable[[OSError], None]

Standing = tuple[int | None, int | None]
"""Where in a conversation the next message goes: behind so many messages of which line."""


class History(Protocol):
    """What the chat needs of a conversation. Calls may block on the disk."""

    @property
    def id(self) -> str:
        """The conversation's id."""

    @property
    def messages(self) -> tuple[StoredMessage, ...]:
        """What was said and has ended, up to where the next message goes."""

    @property
    def parent(self) -> int | None:
        """The message that a new branch follows, as `Header.parent`; None for no new branch."""

    @property
    def unfinished(self) -> InFlight | None:
        """The last reply, if it can still be gone on with."""

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:
        """Begin a reply; ``on_broken`` is told, once, if it can't be saved.

        Raises:
            LlmctlError: the conversation can't go on here.
        """

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Take up the unfinished reply.

        Raises:
            LlmctlError: it is not there any more, or can't be taken.
        """

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:
        """Put away a reply of this process; ``content`` is all of it that was shown.

        Raises:
            StoreUnusable: the store can't have it; it is in its journal, and remembered here.
        """

    def keep(self, end: End | None = None) -> None:
        """End the unfinished reply where it stands.

        Raises:
            LlmctlError: as for `take`; or the store can't have it.
        """

    def drop(self) -> None:
        """Forget the unfinished reply and its question.

        Raises:
            LlmctlError: as for `take`.
        """

    def rewind(self, turns: int = 1) -> str | None:
        """Stand before a question, so that the next message makes a branch there.

        Args:
            turns: how many questions to go back; 0 stands behind the last message again.

        Returns:
            The question; None if there are not so many (nothing changes then), or for 0.
        """

    def stand_behind(self, reply: str) -> None:
        """Stand behind a reply of any branch.

        Raises:
            UsageError: no reply of this conversation has an id that begins so.
        """

    @property
    def standing(self) -> Standing:
        """Where the next message goes, for `stand`."""

    def stand(self, standing: Standing) -> None:
        """Stand where one stood before."""

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the messages that contain all ``words``."""

    def whole(self) -> Conversation:
        """Return all there is of the conversation."""


class _Standing:
    """Where in a line of messages the next one goes."""

    def __init__(self) -> None:
        self._line: tuple[StoredMessage, ...] = ()
        self._place: int | None = None
        self._tip: int | None = None

    @property
    def standing(self) -> Standing:
        """Where the next message goes, for `stand`."""
        return self._place, self._tip

    @property
    def messages(self) -> tuple[StoredMessage, ...]:
        """What was said, up to where the next message goes."""
        return self._line[: self._place]

    def _remember(
        self, before: tuple[StoredMessage, ...], header: Header, content: str, end: End
    ) -> None:
        """Remember an exchange for as long as the process lives, if anything was said."""
        self._place = None
        if not content and end is not End.COMPLETE:
            return
        now = time.time()
        asked = header.request.messages[header.history :]
        questions = [StoredMessage(None, m.role, m.content, now, None, None) for m in asked]
        reply = {"status": str(end.status), "cause": end.cause}
        answer = StoredMessage(None, "assistant", content, now, header.generation, reply)
        self._line = (*before, *questions, answer)

    def _rewind(self, turns: int, asked: Sequence[StoredMessage] = ()) -> str | None:
        """Stand before a question; ``asked`` is what the unfinished reply answers."""
        line = [*self.messages, *asked]
        questions = [place for place, message in enumerate(line) if message.role == "user"]
        if turns == 0:
            self._place = None
        if not 0 < turns <= len(questions):
            return None
        self._place = questions[-turns]
        return line[self._place].content


class Remembered(_Standing):
    """A conversation in the records.

    Args:
        records: where it is.
        conversation: its id; None begins one.
    """

    def __init__(self, records: Records, conversation: str | None = None) -> None:
        super().__init__()
        self.id = conversation or new_id("c")
        self.unfinished: InFlight | None = None
        self._records = records
        self._saves = True
        self._is_new = conversation is None
        if not self._is_new:  # a new one needs no store until its first reply ends
            self._reload()

    @property
    def parent(self) -> int | None:
        """The message that a new branch follows."""
        if self._place is None and self._tip is None:
            return None
        return (self.messages[-1].id or 0) if self.messages else 0

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:
        """Begin a reply; where nothing can be saved, one that nothing remembers."""
        if self._saves:
            try:
                new, self._is_new = self._is_new, False
                return self._records.begin(header, on_broken, new=new)
            except OSError as error:
                on_broken(error)
        return NoJournal()

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Take up the unfinished reply."""
        generation = self._generation
        self._stand_at_the_end()
        return self._records.take(generation, on_broken)

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:
        """Put away a reply of this process; a whole journal knows what was shown."""
        before = self.messages
        self._saves = self._saves and journal.saves
        try:
            self._records.settle(journal)
            self._stand_at_the_end()
        except StoreUnusable:
            self._saves = False
            raise
        finally:
            if not self._saves:
                self.unfinished = None
                self._remember(before, header, content, end)

    def keep(self, end: End | None = None) -> None:
        """End the unfinished reply where it stands."""
        with self._seen_as_it_is():
            self._records.keep(self._generation, end)
        self._reload()

    def drop(self) -> None:
        """Forget the unfinished reply and its question."""
        with self._seen_as_it_is():
            self._records.drop(self._generation)
        self._stand_at_the_end()

    @contextmanager
    def _seen_as_it_is(self) -> Iterator[None]:
        """Look again where the unfinished reply turns out to be another process's affair."""
        try:
            yield
        except LlmctlError:
            self._stand_at_the_end()
            raise

    def rewind(self, turns: int = 1) -> str | None:
        """Stand before a question."""
        if turns == 0:
            self._stand_at_the_end()
        going_on = self.unfinished is not None and self._place is None
        asked = said(self.unfinished.recorded)[:-1] if going_on and self.unfinished else []
        return self._rewind(turns, asked)

    def stand_behind(self, reply: str) -> None:
        """Stand behind a reply of any branch."""
        if not self._saves:
            raise UsageError(f"'{reply}' is out of reach.", "This chat is not being saved.")
        self.stand((None, self._records.place_of(self.id, reply)))

    def stand(self, standing: Standing) -> None:
        """Stand where one stood before."""
        self._place, self._tip = standing
        self._reload()

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the messages of all conversations that contain all ``words``."""
        return self._records.search(words)

    def whole(self) -> Conversation:
        """Return all there is of the conversation."""
        if not self._saves:
            return Conversation(self.id, self._line)
        return self._records.whole(self.id)

    @property
    def _generation(self) -> str:
        assert self.unfinished is not None  # noqa: S101  (the caller looked)
        return self.unfinished.generation

    def _stand_at_the_end(self) -> None:
        self.stand((None, None))

    def _reload(self) -> None:
        if not self._saves:
            return
        now = self._records.conversation(self.id)
        self.unfinished = now.unfinished
        self._line = now.messages
        if self._tip is not None:
            self._line = self._records.line(self.id, self._tip)


class Forgotten(_Standing):
    """A conversation that ends with the process; a stopped reply is kept as it is."""

    unfinished = None
    parent = None

    def __init__(self) -> None:
        super().__init__()
        self.id = new_id("c")

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:  # noqa: ARG002
        """Begin a reply that nothing remembers."""
        return NoJournal()

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Never come here: nothing is unfinished."""
        raise NotImplementedError

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:  # noqa: ARG002
        """Remember the exchange for as long as the process lives."""
        self._remember(self.messages, header, content, end)

    def keep(self, end: End | None = None) -> None:
        """Nothing is unfinished."""

    def drop(self) -> None:
        """Nothing is unfinished."""

    def rewind(self, turns: int = 1) -> str | None:
        """Stand before a question; what follows it is forgotten with the next reply."""
        return self._rewind(turns)

    def stand_behind(self, reply: str) -> None:
        """There are no branches here."""
        raise UsageError(f"'{reply}' is no reply here.", "--no-store keeps no branches.")

    def stand(self, standing: Standing) -> None:
        """Stand where one stood before."""
        self._place, self._tip = standing

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the messages of this conversation that contain all ``words``."""
        return [
            Found(self.id, "", message.role, message.created, around(message.content, words[0]))
            for message in self._line
            if contains(message.content, words)
        ]

    def whole(self) -> Conversation:
        """Return all there is of the conversation."""
        return Conversation(self.id, self._line)


def last_target(history: History) -> Mapping[str, Any] | None:
    """Return where the conversation's last reply came from; None if there is none yet."""
    if history.unfinished is not None:
        return history.unfinished.recorded.header.target
    replies = [message.reply for message in history.messages if message.reply is not None]
    return replies[-1].get("target") if replies else None
