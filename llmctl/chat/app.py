"""The loop of a chat: prompt, reply, prompt.

One process, one terminal, one conversation at a time. Between replies prompt_toolkit owns
the terminal; while a reply is there, `terminal.screen` writes and `reply.LiveReply` reads
keys. The terminal stays raw throughout, so that no key is ever echoed into the text.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack

import anyio

from llmctl.attachments import with_attachments
from llmctl.chat.commands import Commands
from llmctl.chat.editor import Editor
from llmctl.chat.keyboard import STOP_GUARD_S, as_sent, is_command
from llmctl.chat.parts import Parts
from llmctl.chat.signals import Signals, hear
from llmctl.errors import UsageError
from llmctl.events import End
from llmctl.terminal.prompt_line import Answer, Kind

CANCEL_AGAIN_S = 0.02
"""Seconds until a prompt that could not be ended yet is ended again."""


class Chat:
    """An interactive session.

    Args:
        parts: what it is made of.
        editor: what may have the terminal meanwhile.
    """

    def __init__(self, parts: Parts, editor: Editor) -> None:
        self._parts = parts
        self._desk = parts.desk
        self._draft = parts.draft
        self._replies = parts.replies
        self._editor = editor
        self._asking = False
        parts.replies.on_gone = lambda: self._end(End.SIGHUP)

    # -- the loop

    async def run(self) -> int:
        """Run until the person leaves; return the exit status."""
        commands = Commands(self._parts)
        with ExitStack() as stack:
            hear(self._signals(), stack)
            async with anyio.create_task_group() as tasks:
                self._parts.models.start(tasks)
                if self._parts.history.unfinished is not None:
                    await self._replies.open_paused()
                while self._desk.leaving is None:
                    await self._turn(commands)
                tasks.cancel_scope.cancel()
            self._replies.forget_what_cannot_go_on()
            self._keep_what_was_typed()
            self._say_how_to_go_on()
            await self._desk.screen.released()
        await self._parts.models.close()
        return self._desk.leaving or 0

    async def _turn(self, commands: Commands) -> None:
        """Take one input, from the queue or from the prompt, and do what it says."""
        text: str | None = self._draft.take_queued()
        if text:
            self._desk.say(f"> {text}")
        else:
            text = await self._ask()
        if text is None or not text.strip():
            return
        if is_command(text):
            await commands.run(text.strip())
        else:
            await self._replies.send(as_sent(text))

    async def _ask(self) -> str | None:
        default, self._draft.text = self._draft.text, ""
        await self._desk.screen.released()
        self._asking = self._desk.leaving is None
        if not self._asking:
            return None
        answer = await self._desk.prompt.ask(default, guard_s=self._guard_s)
        self._asking = False
        match answer.kind:
            case Kind.EXIT:
                self._desk.leaving = 0
            case Kind.GONE:
                self._end(End.SIGHUP)
            case Kind.INTERRUPT_EXIT:
                self._desk.leaving = 130
            case Kind.CANCELLED:
                self._draft.text = answer.text
            case _:
                return self._typed(answer)
        return None

    def _typed(self, answer: Answer) -> str | None:
        """Return what was typed with the files that were completed in it."""
        if is_command(answer.text) or not answer.text.strip():
            return answer.text
        setup = self._parts.setup
        files = [*setup.attached, *self._desk.completions.attachments(answer.text)]
        setup.attached = []  # what can't be attached is named, and not tried again
        try:
            text = with_attachments(answer.text, files, self._parts.env, setup.images)
        except UsageError as error:
            self._draft.text = answer.text
            self._desk.complain(error)
            return None
        if files:
            self._desk.say(f"attached {', '.join(file.name for file in files)}")
        if answer.instead:
            self._parts.history.rewind()
        return text

    @property
    def _guard_s(self) -> float:
        """For how long yet presses of Ctrl-C may be meant for a reply that has stopped."""
        if self._replies.stopped_at is None:
            return 0.0
        return self._replies.stopped_at + STOP_GUARD_S - time.monotonic()

    # -- talk

    def _keep_what_was_typed(self) -> None:
        kept = [self._desk.prompt.remember(text) for text in self._draft.unsent()]
        if any(kept):
            self._desk.say("What was typed and not sent is in the history: Up brings it back.")

    def _say_how_to_go_on(self) -> None:
        reply = self._parts.history.unfinished
        if reply is not None:
            self._desk.say(f"Go on with 'llmctl chat -c' or 'llmctl resume {reply.generation}'.")

    # -- signals

    def _signals(self) -> Signals:
        return (
            (signal.SIGINT, self._interrupt),
            (signal.SIGTERM, lambda: self._end(End.SIGTERM)),
            (signal.SIGHUP, lambda: self._end(End.SIGHUP)),
            (signal.SIGTSTP, self._suspend),
            (signal.SIGCONT, self._continued),
            (signal.SIGWINCH, self._resized),
        )

    def _interrupt(self) -> None:
        if self._replies.live is not None:
            self._replies.live.interrupt()
        else:
            self._desk.prompt.interrupt()

    def _suspend(self) -> None:
        if self._editor.runs:
            self._editor.suspend()
        elif self._replies.live is not None:
            self._replies.live.suspend()
        else:
            self._desk.prompt.suspend()

    def _resized(self) -> None:
        self._desk.screen.resized()
        if self._replies.live is not None:
            self._replies.live.paint()

    def _continued(self) -> None:
        if self._replies.live is not None:
            self._replies.live.continued()

    def _end(self, end: End) -> None:
        self._desk.leaving = end.exit_code
        self._editor.end()
        if self._replies.live is not None:
            self._replies.live.session.stop(end)
        else:
            self._cancel_prompt()

    def _cancel_prompt(self) -> None:
        """End the prompt; one that is only just beginning, as soon as it can be ended."""
        if self._asking:
            self._desk.prompt.cancel()
            asyncio.get_running_loop().call_later(CANCEL_AGAIN_S, self._cancel_prompt)
