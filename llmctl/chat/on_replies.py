"""Slash commands that do something to the last reply."""

from __future__ import annotations

import time

import anyio.to_thread

from llmctl.chat.keyboard import as_typed
from llmctl.chat.parts import OnChat
from llmctl.errors import UsageError
from llmctl.events import Guarantee

UNDO_S = 5.0
"""Seconds in which a stop can be taken back."""


class OnReplies(OnChat):
    """Stopped replies, gone on with or not."""

    async def do_resume(self, argument: str) -> None:
        """Go on with the stopped reply: /resume [GUARANTEE].

        Without a guarantee it goes on as exactly as --require wants (text by default).
        '/resume best-effort' asks the model in words, if nothing better works here.
        """
        self._need_unfinished()
        await self._chat.replies.resume(_guarantee(argument) if argument else None)

    async def do_retry(self, argument: str) -> None:  # noqa: ARG002
        """Ask the last question again; the old reply stays in a branch."""
        question = self._chat.history.rewind()
        if question is None:
            raise UsageError("There is no question yet.", "Type a message.")
        await self._chat.replies.send(question)

    async def do_edit(self, argument: str) -> None:  # noqa: ARG002
        """Edit the stopped reply in $EDITOR and go on from the edit.

        VISUAL, else EDITOR, names the editor. A changed text goes on as 'text' at best, an
        unchanged one as exactly as before. An editor that fails changes nothing.
        """
        self._need_unfinished()
        await self._chat.replies.edit()

    async def do_keep(self, argument: str) -> None:  # noqa: ARG002
        """Keep the stopped reply as it stands."""
        self._need_unfinished()
        await anyio.to_thread.run_sync(self._chat.history.keep)
        self._chat.desk.say("kept")

    async def do_drop(self, argument: str) -> None:  # noqa: ARG002
        """Forget the stopped reply; its question is back in the input."""
        question = self._need_unfinished()
        await anyio.to_thread.run_sync(self._chat.history.drop)
        self._chat.draft.text = as_typed(question)
        self._chat.desk.say("dropped")

    async def do_undo(self, argument: str) -> None:  # noqa: ARG002
        """Take back a stop within five seconds: the reply goes on."""
        stopped = self._chat.replies.stopped_at
        if stopped is None or time.monotonic() - stopped > UNDO_S:
            raise UsageError("There is no stop to take back.", "/resume goes on all the same.")
        await self.do_resume("")

    def _need_unfinished(self) -> str:
        unfinished = self._chat.history.unfinished
        if unfinished is None:
            raise UsageError("No reply is unfinished.", "Type a message.")
        return unfinished.recorded.header.request.messages[-1].content


def _guarantee(word: str) -> Guarantee:
    try:
        return Guarantee(word)
    except ValueError:
        names = ", ".join(Guarantee)
        raise UsageError(f"'{word}' is no guarantee.", f"There are {names}.") from None
