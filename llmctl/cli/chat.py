"""``llmctl chat``: the interactive session."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli import options
from llmctl.cli.invocation import here, new_app

app = new_app(help="Talk with a model; Space pauses and resumes its reply.")


@app.command()
def chat(  # noqa: PLR0913  (each parameter is an option)
    context: typer.Context,
    *,
    last: Annotated[
        bool, typer.Option("-c", "--continue", help="Open the last conversation.")
    ] = False,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Open this conversation.")
    ] = None,
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
    no_store: options.NoStore = False,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Append-only text, for screen readers and dumb terminals."),
    ] = False,
    pace: options.PaceName = None,
) -> int:
    """Talk with a model. Space pauses its reply at once and goes on at the next token.

    Ctrl-C stops a reply, never the program; Ctrl-D leaves. Nothing shown is ever lost.
    """
    from llmctl.attachments import with_attachments  # noqa: PLC0415  (start-up)
    from llmctl.chat.begin import begin  # noqa: PLC0415  (start-up)
    from llmctl.chat.setup import Setup  # noqa: PLC0415
    from llmctl.cli.asking import (  # noqa: PLC0415
        markers_from,
        options_from,
        rendered,
    )
    from llmctl.cli.conversations import chosen_conversation  # noqa: PLC0415
    from llmctl.clocks import Limits  # noqa: PLC0415
    from llmctl.images import Images  # noqa: PLC0415
    from llmctl.markers import DEFAULT_MARKERS  # noqa: PLC0415
    from llmctl.profiles import resolve_model  # noqa: PLC0415

    invocation = here(context)
    env = invocation.env
    config = invocation.config(
        model=model, base_url=base_url, api=api, api_key_env=api_key_env,
        temperature=temperature, top_p=top_p, max_tokens=max_tokens,
        on_pause=on_pause, require=require, connect_timeout=connect_timeout,
        first_token_timeout=first_token_timeout, idle_timeout=idle_timeout, timeout=timeout,
        plain=plain or None, pace=pace,
    )  # fmt: skip
    filled = rendered(template, variables, "", env)
    setup = Setup(
        selection=resolve_model(None, config, env),
        options=options_from(
            config, filled.options, env, seed=seed, stop=stop, schema=schema, body=body
        ),
        system=config.system_under(system, filled.system),
        markers=markers_from(marker, {**DEFAULT_MARKERS, **filled.markers}, no_markers=no_markers),
        limits=Limits(config.first_token_timeout, config.idle_timeout, config.timeout),
        pause_after=pause_after,
        images=Images.of(env, stored=not no_store),
        attached=list(attach or ()),
    )
    with_attachments("", attach, env, Images())  # what can't be sent is said before anything else
    return begin(
        setup,
        config,
        env,
        key_for=invocation.key_for,
        draft=filled.prompt,
        conversation=chosen_conversation(env, last=last, id_=conversation, may_be_new=True),
        model_given=model is not None or base_url is not None,
        stored=not no_store,
    )
