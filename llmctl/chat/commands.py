"""Slash commands: one method each; its docstring's first line is its help.

An unknown word is not sent to the model; the nearest known one is suggested.
"""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

from llmctl.chat.history import History
from llmctl.chat.keyboard import Draft
from llmctl.chat.setup import Setup
from llmctl.clocks import Limits
from llmctl.config import Config
from llmctl.durations import parse_duration
from llmctl.environment import Environment
from llmctl.errors import LlmctlError, UsageError
from llmctl.events import Finished, Guarantee
from llmctl.markers import parse_markers
from llmctl.profiles import Selection, nearest, resolve_model
from llmctl.talk import at
from llmctl.templates import all_templates, load_template

UNDO_S = 5.0
"""Seconds in which a stop can be taken back."""

_LIMITS = {"first-token": "first_token", "idle": "idle", "total": "total"}


class ChatPort(Protocol):
    """What commands need of the chat."""

    setup: Setup
    history: History
    draft: Draft
    env: Environment
    config: Config
    leaving: int | None
    last: Finished | None
    stopped_at: float | None

    def say(self, text: str) -> None:
        """Show lines of talk."""

    def complain(self, error: LlmctlError) -> None:
        """Show an error."""

    def clear(self) -> None:
        """Clear the screen."""

    def go_plain(self) -> bool:
        """Switch plain output on or off; say whether it is on."""

    async def send(self, prompt: str) -> None:
        """Ask for a reply."""

    async def resume(self, require: Guarantee | None = None) -> None:
        """Go on with the unfinished reply."""

    async def use(self, selection: Selection) -> None:
        """Talk to another model from now on."""


class Commands:
    """The slash commands of one chat.

    Args:
        chat: what they act on.
    """

    def __init__(self, chat: ChatPort) -> None:
        self._chat = chat

    async def run(self, line: str) -> None:
        """Run one line that begins with a slash."""
        word, _, argument = line[1:].partition(" ")
        command = commands().get(word)
        if command is None:
            self._unknown(word)
            return
        try:
            done = command(self, argument.strip())
            if done is not None:
                await done
        except LlmctlError as error:
            self._chat.complain(error)

    def _unknown(self, word: str) -> None:
        close = nearest(word, commands())
        suggestion = f"did you mean /{close}?" if close else "/help lists what there is"
        self._chat.say(f"/{word} is not a command; {suggestion} (// sends a slash)")

    # -- the commands

    def do_help(self, argument: str) -> None:  # noqa: ARG002
        """List the commands and keys."""
        width = max(map(len, commands()))
        for name, command in commands().items():
            summary = (inspect.getdoc(command) or "").partition("\n")[0]
            self._chat.say(f"/{name:{width}}  {summary}")
        self._chat.say("While a reply streams: Space pauses and resumes, Ctrl-C stops it,")
        self._chat.say("typing begins the next message, Enter queues it, Ctrl-Z suspends.")

    async def do_resume(self, argument: str) -> None:
        """Go on with the stopped reply; '/resume best-effort' if nothing better works."""
        if self._chat.history.unfinished is None:
            raise UsageError("No reply is unfinished.")
        await self._chat.resume(_guarantee(argument) if argument else None)

    async def do_undo(self, argument: str) -> None:  # noqa: ARG002
        """Take back a stop within five seconds: the reply goes on."""
        stopped = self._chat.stopped_at
        if stopped is None or time.monotonic() - stopped > UNDO_S:
            raise UsageError("There is no stop to take back.", "/resume goes on all the same.")
        await self.do_resume("")

    async def do_retry(self, argument: str) -> None:  # noqa: ARG002
        """Ask the last question again; the old reply stays in the records."""
        question = self._chat.history.rewind()
        if question is None:
            raise UsageError("There is no question yet.")
        await self._chat.send(question)

    def do_keep(self, argument: str) -> None:  # noqa: ARG002
        """Keep the stopped reply as it stands."""
        self._need_unfinished()
        self._chat.history.keep()
        self._chat.say("kept")

    def do_drop(self, argument: str) -> None:  # noqa: ARG002
        """Forget the stopped reply; its question is back in the input."""
        reply = self._need_unfinished()
        self._chat.draft.text = reply
        self._chat.history.drop()
        self._chat.say("dropped")

    async def do_model(self, argument: str) -> None:
        """Show the model, or change it: /model PROFILE/NAME."""
        if argument:
            config = replace(self._chat.config, base_url=None)
            await self._chat.use(resolve_model(argument, config, self._chat.env))
        self._chat.say(f"model: {self._chat.setup.selection}")

    def do_system(self, argument: str) -> None:
        """Show the system message, or set it for a new conversation."""
        if argument and self._chat.history.messages:
            raise UsageError("This conversation has begun.", "Start another with 'llmctl chat'.")
        self._chat.setup.system = argument or self._chat.setup.system
        self._chat.say(f"system: {self._chat.setup.system or 'none'}")

    async def do_template(self, argument: str) -> None:
        """List templates, or use one: /template NAME key=value … [-- PROMPT]."""
        if not argument:
            for template in all_templates(self._chat.env):
                self._chat.say(f"{template.name}: {template.description}")
            return
        head, _, prompt = argument.partition(" -- ")
        name, *words = shlex.split(head)
        given = dict(word.partition("=")[::2] for word in words)
        await self._use_template(name, given, prompt)

    async def _use_template(self, name: str, given: Mapping[str, str], prompt: str) -> None:
        filled = load_template(name, self._chat.env).render(given, prompt)
        setup = self._chat.setup
        if filled.system is not None:
            self.do_system(filled.system)
        setup.options = replace(setup.options, **filled.options)
        setup.markers = {**setup.markers, **filled.markers}
        if filled.prompt:
            await self._chat.send(filled.prompt)

    def do_marker(self, argument: str) -> None:
        """Show the markers, add one (/marker TEXT=pause|stop|ask), or /marker none."""
        setup = self._chat.setup
        if argument == "none":
            setup.markers = {}
        elif argument:
            setup.markers = {**setup.markers, **parse_markers([argument])}
        shown = ", ".join(f"{text} ({action})" for text, action in setup.markers.items())
        self._chat.say(f"markers: {shown or 'none'}")

    def do_timeout(self, argument: str) -> None:
        """Show the limits, or set one: /timeout [first-token|idle|total] DURATION|none."""
        words = argument.split()
        if words:
            which = _LIMITS.get(words[0] if len(words) > 1 else "total")
            if which is None:
                raise UsageError(f"There is no limit '{words[0]}'.", "first-token, idle or total")
            value = None if words[-1] == "none" else parse_duration(words[-1])
            self._chat.setup.limits = replace(self._chat.setup.limits, **{which: value})
        self._chat.say(f"limits: {_shown(self._chat.setup.limits)}")

    def do_stats(self, argument: str) -> None:  # noqa: ARG002
        """Show the figures of the last reply and of the conversation."""
        chat = self._chat
        chat.say(f"conversation {chat.history.id}: {len(chat.history.messages)} messages")
        if chat.last is not None:
            timing, first = chat.last.timing, chat.last.timing.first_token_s
            wait = "" if first is None else f", first token after {first:.2f} s"
            paused = f", paused for {timing.paused_s:.1f} s" if timing.paused_s else ""
            chat.say(
                f"last reply: {at(chat.last.position)}, {timing.duration_s:.1f} s{wait}{paused}"
            )

    def do_clear(self, argument: str) -> None:  # noqa: ARG002
        """Clear the screen; the conversation stays."""
        self._chat.clear()

    def do_plain(self, argument: str) -> None:  # noqa: ARG002
        """Switch append-only output for screen readers on or off."""
        self._chat.say(f"plain output is {'on' if self._chat.go_plain() else 'off'}")

    def do_quit(self, argument: str) -> None:  # noqa: ARG002
        """Leave."""
        self._chat.leaving = 0

    def _need_unfinished(self) -> str:
        unfinished = self._chat.history.unfinished
        if unfinished is None:
            raise UsageError("No reply is unfinished.")
        return unfinished.recorded.header.request.messages[-1].content


Command = Callable[[Commands, str], Awaitable[None] | None]


def commands() -> dict[str, Command]:
    """Return the commands by name, in the order they are written here."""
    found = {name: member for name, member in vars(Commands).items() if name.startswith("do_")}
    return {name.removeprefix("do_"): member for name, member in found.items()}


def _guarantee(word: str) -> Guarantee:
    try:
        return Guarantee(word)
    except ValueError:
        names = ", ".join(Guarantee)
        raise UsageError(f"'{word}' is no guarantee.", f"There are {names}.") from None


def _shown(limits: Limits) -> str:
    named = {name: getattr(limits, field) for name, field in _LIMITS.items()}
    return ", ".join(f"{name} {'none' if s is None else f'{s:g} s'}" for name, s in named.items())
