"""``llmctl resume``: go on with an unfinished reply."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli import options
from llmctl.cli.invocation import here, new_app

app = new_app(help="Go on with an unfinished reply.")


@app.command()
def resume(  # noqa: PLR0913  (each parameter is an option)
    context: typer.Context,
    id_: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A reply, a conversation (its last reply), or a unique prefix."
        ),
    ] = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Print the whole reply once, not only the rest.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the unfinished replies instead.")
    ] = False,
    max_tokens: options.MaxTokens = None,
    marker: options.Markers = None,
    no_markers: options.NoMarkers = False,
    on_pause: options.OnPauseMode = None,
    pause_after: options.PauseAfter = None,
    require: options.Require = None,
    connect_timeout: options.ConnectTimeout = None,
    first_token_timeout: options.FirstTokenTimeout = None,
    idle_timeout: options.IdleTimeout = None,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> int:
    """Go on with an unfinished reply and print only what follows.

    Without ID it is the one with the newest activity. stderr says how exact the resume is.
    """
    from llmctl.cli.asking import markers_from  # noqa: PLC0415  (start-up)
    from llmctl.cli.conversations import list_unfinished  # noqa: PLC0415
    from llmctl.errors import UsageError  # noqa: PLC0415
    from llmctl.foreground import Manner  # noqa: PLC0415
    from llmctl.unfinished import resume  # noqa: PLC0415

    invocation = here(context)
    if list_ and id_ is not None:
        raise UsageError("--list lists all unfinished replies; it takes no ID.", "Leave one out.")
    if list_:
        return list_unfinished(invocation.env, as_json=as_json)
    config = invocation.config(
        on_pause=on_pause, require=require, connect_timeout=connect_timeout,
        first_token_timeout=first_token_timeout, idle_timeout=idle_timeout, timeout=timeout,
    )  # fmt: skip
    markers = markers_from(marker, {}, no_markers=no_markers)
    manner = Manner(
        json=as_json,
        full=full,
        pause_after=pause_after,
        markers=markers if marker or no_markers else None,
        verbose=invocation.verbose,
        key_for=invocation.key_for,
    )
    return resume(id_, manner, config, invocation.env, max_tokens=max_tokens)
