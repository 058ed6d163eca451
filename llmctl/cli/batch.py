"""``llmctl batch``: many replies from a file of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmctl.cli import options
from llmctl.cli.invocation import here, new_app

_START = "start"


class _Batch(TyperGroup):
    """A group whose first word may also be the input of a new batch."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (click's own)
        """Put the command's name where only its arguments stand."""
        if not args or args[0] not in self.commands or args[0] == _START:
            args = [_START, *args]
        return super().parse_args(ctx, args)


class _Unnamed(typer.Context):
    """The context of a command whose name nobody writes."""

    @property
    def command_path(self) -> str:
        """Return how it is called."""
        return self.parent.command_path if self.parent is not None else ""


class _Start(TyperCommand):
    """Called as the group itself."""

    context_class = _Unnamed


app = new_app(cls=_Batch, help="Ask for many replies; go on where it was stopped.")


@app.command(_START, cls=_Start, hidden=True)
def start(  # noqa: PLR0913  (each parameter is an option)
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="OpenAI batch lines, short JSON lines, or a prompt a line; '-'."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUTPUT", help="Complete items, a line each."),
    ],
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the state here, not in OUTPUT.llmctl."),
    ] = None,
    model: options.Model = None,
    base_url: options.BaseUrls = None,
    api: options.ApiName = None,
    api_key_env: options.ApiKeyEnv = None,
    override_model: Annotated[
        bool, typer.Option("--override-model", help="-m replaces the model that a row names.")
    ] = False,
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
    require: options.Require = None,
    otherwise: Annotated[
        str, typer.Option(help="What to do where --require is not reached: restart or fail.")
    ] = "restart",
    concurrency: Annotated[
        str, typer.Option(metavar="N|auto", help="Requests at a time.")
    ] = "auto",
    connect_timeout: options.ConnectTimeout = None,
    first_token_timeout: options.FirstTokenTimeout = None,
    idle_timeout: options.IdleTimeout = None,
    timeout: options.Timeout = None,
    item_timeout: Annotated[
        float | None, options.duration("One item may take this long.", "--item-timeout")
    ] = None,
    deadline: Annotated[
        float | None, options.duration("The whole run may take this long.", "--deadline")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of an item that failed.")] = 5,
    rpm: Annotated[float | None, typer.Option(min=0.01, help="Requests a minute.")] = None,
    tpm: Annotated[float | None, typer.Option(min=1, help="Tokens a minute.")] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="IN,OUT", help="Dollars a million tokens, of prompt and of reply."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Dollars that this run may cost.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that may arrive in this run.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Requests that this run may send.")
    ] = None,
    max_failures: Annotated[
        str | None, typer.Option(metavar="N|P%", help="End the run when more items fail.")
    ] = None,
    canary: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many items end before the rest start.")
    ] = 1,
    wait_ready: Annotated[
        float | None,
        options.duration("Wait this long for an endpoint that is gone.", "--wait-ready"),
    ] = None,
    grace: Annotated[
        float | None, options.duration("After SIGTERM, what runs may go on this long.", "--grace")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only this part of the input; OUTPUT has {shard}."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="Who asks: this process, or workers under Ray."),
    ] = "local",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also try again what was refused.")
    ] = False,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Lines that changed are new work.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the input, count and estimate; ask nothing.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Ask for a reply to every line of INPUT.

    The same command goes on where it was stopped. 'batch status OUTPUT' looks at it,
    'batch merge' puts shards together.
    """
    from llmctl.attachments import with_attachments  # noqa: PLC0415  (start-up)
    from llmctl.batch.job import GRACE_S, LOCAL, RAY, Job  # noqa: PLC0415  (start-up)
    from llmctl.batch.lines import Shard  # noqa: PLC0415
    from llmctl.cli.asking import (  # noqa: PLC0415
        markers_from,
        options_from,
    )
    from llmctl.cli.batch_parts import (  # noqa: PLC0415
        a_file,
        choice,
        failures_of,
        number_or_auto,
        prices_of,
        run_job,
        spooled,
    )
    from llmctl.templates import load_template  # noqa: PLC0415

    invocation = here(context)
    env = invocation.env
    config = invocation.config(
        model=model, api=api, api_key_env=api_key_env,
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, require=require,
        connect_timeout=connect_timeout, first_token_timeout=first_token_timeout,
        idle_timeout=idle_timeout, timeout=timeout,
    )  # fmt: skip
    used = None if template is None else load_template(template, env)
    most, share = failures_of(max_failures)
    with spooled(source, env, sharded=shard is not None) as file:
        job = Job(
            input=file,
            output=a_file(output, env),
            state=None if state is None else env.resolve(state),
            base_urls=tuple(base_url or ()),
            override_model=override_model,
            system=system,
            template=template,
            variables=options.key_values(variables, "-V"),
            attached=with_attachments("", attach, env, None),
            options=options_from(
                config, used.options if used else {}, env,
                seed=seed, stop=stop, schema=schema, body=body,
            ),
            markers=markers_from(marker, used.markers if used else {}, no_markers=no_markers),
            concurrency=number_or_auto(concurrency),
            item_timeout_s=item_timeout,
            deadline_s=deadline,
            retries=retries,
            rpm=rpm,
            tpm=tpm,
            prices=prices_of(price, config),
            max_cost=max_cost,
            max_output_tokens=max_output_tokens,
            max_requests=max_requests,
            max_failures=most,
            max_share=share,
            canary=canary,
            wait_ready_s=wait_ready,
            grace_s=GRACE_S if grace is None else grace,
            restart=choice(otherwise, "--otherwise", ("restart", "fail")) == "restart",
            retry_failed=retry_failed,
            accept_changed=accept_changed,
            shard=Shard() if shard is None else Shard.parse(shard),
            engine=choice(engine, "--engine", (LOCAL, RAY)),
        )  # fmt: skip
        return run_job(job, config, invocation, as_json=as_json, dry_run=dry_run)


@app.command()
def status(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The batch's output.")],
    *,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Its state, if not in OUTPUT.llmctl.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Say how a batch stands, also while it runs."""
    import json  # noqa: PLC0415  (start-up)

    from llmctl.batch.status import status_of  # noqa: PLC0415  (start-up)
    from llmctl.cli.batch_parts import status_words  # noqa: PLC0415

    env = here(context).env
    found = status_of(env.resolve(output), None if state is None else env.resolve(state))
    env.say(json.dumps(found.as_json()) if as_json else status_words(found))


@app.command()
def merge(
    context: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Outputs of shards, or OpenAI's result files."),
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUTPUT", help="Complete items, a line each.")
    ],
    order: Annotated[
        str,
        typer.Option("--order", metavar="ORDER", help="'input' sorts as --input has the items."),
    ] = "files",
    source: Annotated[
        Path | None, typer.Option("--input", metavar="INPUT", help="The batch's input.")
    ] = None,
) -> int:
    """Put files of results together: every item once, complete ones before others."""
    from llmctl.batch.merge import merge as merged  # noqa: PLC0415  (start-up)
    from llmctl.cli.batch_parts import a_file, merge_words, ordering  # noqa: PLC0415

    env = here(context).env
    came = merged(
        [env.resolve(path) for path in sources],
        a_file(output, env),
        order=ordering(order, source, env),
    )
    env.note(merge_words(came))
    return 8 if came.failed or came.missing else 0
