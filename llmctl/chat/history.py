"""The conversation a chat is in: what was said, and the reply that is not finished.

`Remembered` keeps it in the records, `Forgotten` (``--no-store``) in this process only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from llmctl.events import End
from llmctl.journal import Header, Journal, NoJournal, Recorded
from llmctl.records import InFlight, Records, new_id
from llmctl.store import StoredMessage

OnBroken = Callable[[OSError], None]


class History(Protocol):
    """What the chat needs of a conversation. Calls may block on the disk."""

    @property
    def id(self) -> str:
        """The conversation's id."""

    @property
    def messages(self) -> tuple[StoredMessage, ...]:
        """What was said and has ended."""

    @property
    def unfinished(self) -> InFlight | None:
        """The last reply, if it can still be gone on with."""

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:
        """Begin a reply."""

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Take up the unfinished reply."""

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:
        """Put away a reply of this process; ``content`` is all of it that was shown."""

    def keep(self, end: End | None = None) -> None:
        """End the unfinished reply where it stands."""

    def drop(self) -> None:
        """Forget the unfinished reply and its question."""

    def rewind(self) -> str | None:
        """Go back before the last question and return it; its reply stays in the records."""


class Remembered:
    """A conversation in the records.

    Args:
        records: where it is.
        conversation: its id; None begins one.
    """

    def __init__(self, records: Records, conversation: str | None = None) -> None:
        self.id = conversation or new_id("c")
        self._records = records
        self._reload()

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:
        """Begin a reply."""
        return self._records.begin(header, on_broken)

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Take up the unfinished reply."""
        return self._records.take(self._generation, on_broken)

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:  # noqa: ARG002
        """Put away a reply of this process; the journal knows what was shown."""
        self._records.settle(journal)
        self._reload()

    def keep(self, end: End | None = None) -> None:
        """End the unfinished reply where it stands."""
        self._records.keep(self._generation, end)
        self._reload()

    def drop(self) -> None:
        """Forget the unfinished reply and its question."""
        self._records.drop(self._generation)
        self._reload()

    def rewind(self) -> str | None:
        """Go back before the last question and return it."""
        question = self._records.rewind(self.id)
        self._reload()
        return question

    @property
    def _generation(self) -> str:
        assert self.unfinished is not None  # noqa: S101  (the caller looked)
        return self.unfinished.generation

    def _reload(self) -> None:
        now = self._records.conversation(self.id)
        self.messages, self.unfinished = now.messages, now.unfinished


class Forgotten:
    """A conversation that ends with the process; a stopped reply is kept as it is."""

    unfinished = None

    def __init__(self) -> None:
        self.id = new_id("c")
        self.messages: tuple[StoredMessage, ...] = ()

    def begin(self, header: Header, on_broken: OnBroken) -> Journal:  # noqa: ARG002
        """Begin a reply that nothing remembers."""
        return NoJournal()

    def take(self, on_broken: OnBroken) -> tuple[Journal, Recorded]:
        """Never come here: nothing is unfinished."""
        raise NotImplementedError

    def settle(self, journal: Journal, header: Header, content: str, end: End) -> None:  # noqa: ARG002
        """Remember the exchange for as long as the process lives."""
        now = time.time()
        asked = header.request.messages[header.history :]
        said = [StoredMessage(None, m.role, m.content, now, None, None) for m in asked]
        reply = {"status": str(end.status), "cause": end.cause}
        answer = StoredMessage(None, "assistant", content, now, header.generation, reply)
        self.messages = (*self.messages, *said, answer)

    def keep(self, end: End | None = None) -> None:
        """Nothing is unfinished."""

    def drop(self) -> None:
        """Nothing is unfinished."""

    def rewind(self) -> str | None:
        """Go back before the last question and return it."""
        questions = [n for n, message in enumerate(self.messages) if message.role == "user"]
        if not questions:
            return None
        question = self.messages[questions[-1]].content
        self.messages = self.messages[: questions[-1]]
        return question


def last_target(history: History) -> Mapping[str, Any] | None:
    """Return where the conversation's last reply came from; None if there is none yet."""
    if history.unfinished is not None:
        return history.unfinished.recorded.header.target
    replies = [message.reply for message in history.messages if message.reply is not None]
    return replies[-1].get("target") if replies else None
