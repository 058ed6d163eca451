"""``llmctl run``: one reply, for scripts and pipelines."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from llmctl.cli import options
from llmctl.cli.invocation import here, new_app
from llmctl.errors import UsageError

app = new_app(help="Ask for one reply and write it to stdout.")

_EXTRACT = "--extract"
_LANGUAGE = re.compile(r"[A-Za-z][\w+#.-]*")


class _Run(TyperCommand):
    """Lets ``--extract`` stand with or without a language behind it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (Typer's own)
        """Read the words; an ``--extract`` that no single word follows takes any language."""
        words = list(args)
        for place, word in enumerate(words):
            if word == "--":
                break
            if word == _EXTRACT:
                following = words[place + 1 : place + 2]
                named = bool(following) and _LANGUAGE.fullmatch(following[0]) is not None
                words[place] = _EXTRACT if named else f"{_EXTRACT}="
        return super().parse_args(ctx, words)


@app.command(cls=_Run)
def run(  # noqa: PLR0913  (each parameter is an option)
    context: typer.Context,
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What to ask.")
    ] = None,
    *,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    api: options.ApiName = None,
    api_key_env: options.ApiKeyEnv = None,
    system: options.System = None,
    template: options.Template = None,
    variables: options.Variables = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    schema: options.Schema = None,
    attach: options.Attach = None,
    body: options.BodyFields = None,
    marker: options.Markers = None,
    no_markers: options.NoMarkers = False,
    on_pause: options.OnPauseMode = None,
    pause_after: options.PauseAfter = None,
    require: options.Require = None,
    connect_timeout: options.ConnectTimeout = None,
    first_token_timeout: options.FirstTokenTimeout = None,
    idle_timeout: options.IdleTimeout = None,
    timeout: options.Timeout = None,
    no_stdin: Annotated[bool, typer.Option("-n", "--no-stdin", help="Never read stdin.")] = False,
    as_json: options.Json = False,
    extract: Annotated[
        str | None,
        typer.Option(
            _EXTRACT,
            metavar="[LANG]",
            help="Write only the first code block (of this language).",
        ),
    ] = None,
    last: Annotated[
        bool, typer.Option("-c", "--continue", help="Go on with the last conversation.")
    ] = False,
    conversation: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on with this conversation."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep its unfinished last reply as it is.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop its unfinished last reply and question.")
    ] = False,
    no_store: options.NoStore = False,
) -> int:
    """Ask for one reply and write it to stdout; all else goes to stderr.

    A reply that is paused, cut, timed out or killed is kept; 'llmctl resume' goes on with it.
    """
    from llmctl.attachments import with_attachments  # noqa: PLC0415  (start-up)
    from llmctl.cli.asking import (  # noqa: PLC0415  (start-up)
        asks_by_itself,
        markers_from,
        options_from,
        prompt_from,
        rendered,
    )
    from llmctl.cli.conversations import chosen_conversation, unfinished_choice  # noqa: PLC0415
    from llmctl.foreground import Manner  # noqa: PLC0415
    from llmctl.images import Images  # noqa: PLC0415
    from llmctl.profiles import resolve_model  # noqa: PLC0415
    from llmctl.run import Ask, run  # noqa: PLC0415

    invocation = here(context)
    env = invocation.env
    if as_json and extract is not None:
        raise UsageError("--json and --extract exclude each other.", "Leave one out.")
    config = invocation.config(
        model=model, base_url=base_url, api=api, api_key_env=api_key_env,
        temperature=temperature, top_p=top_p, max_tokens=max_tokens,
        on_pause=on_pause, require=require, connect_timeout=connect_timeout,
        first_token_timeout=first_token_timeout, idle_timeout=idle_timeout, timeout=timeout,
    )  # fmt: skip
    if no_store and (last or conversation is not None):
        raise UsageError("A conversation is in the store.", "Leave out --no-store.")
    going_on = chosen_conversation(env, last=last, id_=conversation)
    if going_on is None and (keep or drop):
        said = "--keep and --drop are for the last reply of a conversation."
        raise UsageError(said, "Name the conversation with '-c ID'.")
    selection = resolve_model(None, config, env)
    needed = not asks_by_itself(template, env)
    if needed and extract and not prompt and (no_stdin or not env.has_input):
        said = f"There is no prompt: '{extract}' is the language for --extract."
        raise UsageError(said, "Write --extract= for any language, or the prompt before it.")
    asked = prompt_from(prompt or (), env, no_stdin=no_stdin, needed=needed)
    images = Images.of(env, stored=not no_store)
    text = with_attachments(asked, attach, env, images)
    filled = rendered(template, variables, text, env)
    ask = Ask(
        prompt=filled.prompt,
        selection=selection,
        options=options_from(
            config, filled.options, env, seed=seed, stop=stop, schema=schema, body=body
        ),
        markers=markers_from(marker, filled.markers, no_markers=no_markers),
        system=config.system_under(system, filled.system),
        conversation=going_on,
        unfinished=unfinished_choice(keep=keep, drop=drop),
        stored=not no_store,
        images=images,
    )
    manner = Manner(
        json=as_json,
        extract=extract,
        pause_after=pause_after,
        verbose=invocation.verbose,
        key_for=invocation.key_for,
    )
    return run(ask, manner, config, env)
