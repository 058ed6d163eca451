"""Put a chat together on this process's terminal, run it, and give the terminal back."""

from __future__ import annotations

from contextlib import ExitStack

import anyio

from llmctl._version import __version__
from llmctl.backends.choose import back_end_for, fetch
from llmctl.chat.app import Chat
from llmctl.chat.commands import commands
from llmctl.chat.completion import Completions
from llmctl.chat.desk import Desk
from llmctl.chat.editor import Editor
from llmctl.chat.history import Forgotten, History, Remembered, last_target
from llmctl.chat.keyboard import Draft, as_typed
from llmctl.chat.models import Models
from llmctl.chat.parts import Parts
from llmctl.chat.replies import Replies
from llmctl.chat.setup import Setup
from llmctl.config import Config, OnPause
from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.foreground import KeyFor
from llmctl.journal import JournalBusy
from llmctl.output import Output
from llmctl.ports import BackEnd
from llmctl.profiles import Selection
from llmctl.records import Records
from llmctl.session import GIVE_UP_FLUSH_S
from llmctl.targets import selection_of
from llmctl.templates import load_template
from llmctl.terminal.prompt_line import PromptLine
from llmctl.terminal.screen import PlainScreen, Screen, Surface
from llmctl.terminal.tty import Terminal
from llmctl.tracing import Tracing


def begin(  # noqa: PLR0913  (each is said by its name)
    setup: Setup,
    config: Config,
    env: Environment,
    *,
    key_for: KeyFor,
    draft: str,
    conversation: str | None,
    model_given: bool,
    stored: bool,
) -> int:
    """Run a chat and return the exit status.

    Args:
        setup: what the first reply is asked with.
        config: the settings in force.
        env: the process.
        key_for: finds a server's key.
        draft: what the input begins with.
        conversation: the conversation to open; None begins one.
        model_given: the person named the model; else a conversation keeps its own.
        stored: remember the conversation.

    Raises:
        UsageError: this is no terminal.
        JournalBusy: the conversation's last reply is live in another process.
        LlmctlError: the model can't be used.
    """
    if not (env.is_a_tty(env.stdin) and env.is_a_tty(env.stdout)):
        raise UsageError("chat needs a terminal.", "'llmctl run' is for pipes and scripts.")

    def make_back_end(selection: Selection) -> BackEnd:
        return back_end_for(
            selection,
            env=env,
            connect_timeout=config.connect_timeout,
            key_for=key_for,
            stored=stored,
            images=setup.images,
            ends_runs=config.on_pause is OnPause.CUT,
        )

    with ExitStack() as stack:
        setup.tracing = Tracing.of(env)
        stack.callback(setup.tracing.close)
        records = stack.enter_context(Records(env.data)) if stored else None
        history: History = Forgotten() if records is None else Remembered(records, conversation)
        _refuse_if_live(history)
        target = last_target(history)
        if target is not None and not model_given:
            setup.selection = selection_of(target, config, env)
        anyio.run(fetch, setup.selection, env)
        models = Models(setup, config, env, make_back_end)
        output = Output(env.stdout)
        stack.callback(output.close)
        stack.callback(output.drain, GIVE_UP_FLUSH_S)
        terminal = Terminal(env.stdin, env.stdout)

        color = config.wants_color(env, env.stdout)

        def make_screen(plain: bool) -> Surface:
            if plain:
                return PlainScreen(output, terminal)
            return Screen(output, terminal, color=color)

        plain = config.plain or env.variable("TERM") == "dumb"
        completions = Completions(commands(), setup=setup, history=history, config=config, env=env)
        prompt = PromptLine(
            history=env.data / "history" if stored else None,
            complete=completions.suggest,
            last_message=lambda: as_typed(_last_question(history)),
            on_suspend=terminal.suspend,
            plain=plain,
            color=color,
        )
        desk = Desk(terminal, prompt, output, completions, make_screen=make_screen, plain=plain)
        typed, editor = Draft(draft), Editor(terminal, env)
        replies = Replies(
            setup,
            history,
            typed,
            desk,
            models,
            config=config,
            editor=editor,
            instruction=load_template("continuation", env).body,
        )
        chat = Chat(Parts(env, config, setup, history, typed, desk, models, replies), editor)
        desk.say(_greeting(setup.selection, config, env))
        if setup.attached:
            names = ", ".join(file.name for file in setup.attached)
            desk.say(f"{names} goes along with your first message")
        with desk.terminal:
            prompt.type_ahead(terminal.typed_early())
            return anyio.run(chat.run)


def _refuse_if_live(history: History) -> None:
    reply = history.unfinished
    if reply is not None and reply.pid is not None:
        raise JournalBusy(reply.generation, reply.pid)


def _last_question(history: History) -> str:
    if history.unfinished is not None:
        return history.unfinished.recorded.header.request.messages[-1].content
    asked = [message.content for message in history.messages if message.role == "user"]
    return asked[-1] if asked else ""


def _greeting(selection: Selection, config: Config, env: Environment) -> str:
    """Name the model, whether it costs money, and the back ends whose keys are here."""
    price = "billed" if selection.billed else "free"
    keys = [
        name
        for name, profile in config.profiles.items()
        if profile.api_key_env is not None and env.variable(profile.api_key_env) is not None
    ]
    found = f" · keys found for {', '.join(keys)}" if keys else ""
    return f"llmctl {__version__} · {selection} ({price}){found} · /help"
