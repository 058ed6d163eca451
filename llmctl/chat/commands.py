"""Slash commands: one method each; its docstring's first line is its help.

An unknown word is not sent to the model; the nearest known one is suggested.
"""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from llmctl.chat.ending import figures
from llmctl.chat.keyboard import KEYS
from llmctl.chat.on_records import OnRecords
from llmctl.chat.on_replies import OnReplies
from llmctl.clocks import Limits
from llmctl.counts import counted
from llmctl.durations import parse_duration
from llmctl.errors import LlmctlError, UsageError
from llmctl.markers import parse_markers
from llmctl.profiles import nearest, resolve_model
from llmctl.templates import all_templates, load_template

HELP_COLUMNS = 78
"""Width of what /help says of a command: that of the narrowest common terminal."""

_LIMITS = {"first-token": "first_token", "idle": "idle", "total": "total"}


class Commands(OnReplies, OnRecords):
    """The slash commands of one chat.

    Args:
        chat: what they act on.
    """

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
            self._chat.desk.complain(error)

    def _unknown(self, word: str) -> None:
        close = nearest(word, commands())
        suggestion = f"did you mean /{close}?" if close else "/help lists what there is"
        self._chat.desk.say(f"/{word} is not a command; {suggestion} (// sends a slash)")

    # -- the commands

    def do_help(self, argument: str) -> None:
        """List the commands, or explain one: /help [COMMAND|keys].

        /help keys lists what keys do at the prompt, while a reply streams and at a pause.
        """
        name = argument.removeprefix("/")
        if name == "keys":
            self._chat.desk.say(KEYS)
        elif name:
            self._explain(name)
        else:
            width = max(map(len, commands()))
            for each, command in commands().items():
                self._chat.desk.say(f"/{each:{width}}  {_help(command).partition(chr(10))[0]}")
            self._chat.desk.say("/help COMMAND explains one, /help keys the keys.")

    def _explain(self, name: str) -> None:
        command = commands().get(name)
        if command is None:
            self._unknown(name)
        else:
            for part in _help(command).split("\n\n"):
                self._chat.desk.say(textwrap.fill(" ".join(part.split()), HELP_COLUMNS))

    async def do_model(self, argument: str) -> None:
        """Show the model, or change it: /model PROFILE/NAME."""
        if argument:
            config = replace(self._chat.config, base_url=None)
            await self._chat.models.use(resolve_model(argument, config, self._chat.env))
        self._chat.desk.say(f"model: {self._chat.setup.selection}")

    def do_system(self, argument: str) -> None:
        """Show the system message, or set it for a new conversation."""
        if argument and self._chat.history.messages:
            raise UsageError("This conversation has begun.", "Start another with 'llmctl chat'.")
        self._chat.setup.system = argument or self._chat.setup.system
        self._chat.desk.say(f"system: {self._chat.setup.system or 'none'}")

    async def do_template(self, argument: str) -> None:
        """List templates or use one: /template NAME [KEY=VALUE …] [-- TEXT].

        A template may bring a message, a system message, options and markers.
        """
        if not argument:
            templates, problems = all_templates(self._chat.env)
            for template in templates:
                self._chat.desk.say(f"{template.name}: {template.description}")
            for problem in problems:
                self._chat.desk.say(problem.message)
            return
        head, _, prompt = argument.partition(" -- ")
        try:
            name, *words = shlex.split(head)
        except ValueError as error:
            raise UsageError(f"That can't be read: {error}.", "Quotes come in pairs.") from error
        given = dict(word.partition("=")[::2] for word in words)
        await self._use_template(name, given, prompt)

    async def _use_template(self, name: str, given: Mapping[str, str], prompt: str) -> None:
        template = load_template(name, self._chat.env)
        if template.role == "user" and not (prompt or template.asks_by_itself):
            raise UsageError(f"The template '{name}' needs a text.", f"/template {name} -- TEXT")
        filled = template.render(given, prompt)
        setup = self._chat.setup
        if filled.system is not None:
            self.do_system(filled.system)
        setup.options = replace(setup.options, **filled.options)
        setup.markers = {**setup.markers, **filled.markers}
        if filled.prompt:
            await self._chat.replies.send(filled.prompt)

    def do_marker(self, argument: str) -> None:
        """Show, add or drop markers: /marker [TEXT=ACTION|none].

        An action is pause, stop or ask; without one it is pause. /marker none drops all.
        """
        setup = self._chat.setup
        if argument == "none":
            setup.markers = {}
        elif argument:
            setup.markers = {**setup.markers, **parse_markers([argument])}
        shown = ", ".join(f"{text} ({action})" for text, action in setup.markers.items())
        self._chat.desk.say(f"markers: {shown or 'none'}")

    def do_timeout(self, argument: str) -> None:
        """Show or set limits: /timeout [first-token|idle|total] DURATION|none.

        Without a name the whole reply is meant.
        """
        words = argument.split()
        if words:
            which = _LIMITS.get(words[0] if len(words) > 1 else "total")
            if which is None:
                raise UsageError(f"There is no limit '{words[0]}'.", "first-token, idle or total")
            value = None if words[-1] == "none" else parse_duration(words[-1])
            self._chat.setup.limits = replace(self._chat.setup.limits, **{which: value})
        self._chat.desk.say(f"limits: {_shown(self._chat.setup.limits)}")

    def do_stats(self, argument: str) -> None:  # noqa: ARG002
        """Show the figures of the last reply and of the conversation."""
        chat = self._chat
        spent = "" if chat.replies.spent is None else f", {chat.replies.spent} in this session"
        said, unfinished = len(chat.history.messages), chat.history.unfinished
        if unfinished is not None:
            said = len(unfinished.recorded.header.request.messages) + 1
        chat.desk.say(f"conversation {chat.history.id}: {counted(said, 'message')}{spent}")
        if chat.replies.last is not None:
            chat.desk.say(f"last reply: {', '.join(figures(chat.replies.last))}")

    def do_clear(self, argument: str) -> None:  # noqa: ARG002
        """Clear the screen; the conversation stays."""
        self._chat.desk.clear()

    def do_plain(self, argument: str) -> None:  # noqa: ARG002
        """Switch append-only output for screen readers on or off."""
        self._chat.desk.say(f"plain output is {'on' if self._chat.desk.go_plain() else 'off'}")

    def do_quit(self, argument: str) -> None:  # noqa: ARG002
        """Leave."""
        self._chat.desk.leaving = 0


Command = Callable[[Commands, str], Awaitable[None] | None]


def commands() -> dict[str, Command]:
    """Return the commands by name, in the order they are written here."""
    members = {**vars(OnReplies), **vars(OnRecords), **vars(Commands)}
    found = {name[3:]: each for name, each in members.items() if name.startswith("do_")}
    return {"help": found.pop("help"), **found}


def _help(command: Command) -> str:
    return inspect.getdoc(command) or ""


def _shown(limits: Limits) -> str:
    named = {name: getattr(limits, field) for name, field in _LIMITS.items()}
    return ", ".join(f"{name} {'none' if s is None else f'{s:g} s'}" for name, s in named.items())
