"""``llmctl models probe``: what a server and a model can really do."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from llmctl.cli import options
from llmctl.cli.invocation import here
from llmctl.events import Guarantee, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmctl.capabilities import Capabilities
    from llmctl.cli.invocation import Invocation
    from llmctl.config import Config
    from llmctl.profiles import Profile, Selection

Ways = dict[Strategy, Guarantee]


def probe(  # noqa: PLR0913  (each parameter is an option)
    context: typer.Context,
    *,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    api: options.ApiName = None,
    api_key_env: options.ApiKeyEnv = None,
    connect_timeout: options.ConnectTimeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Find out, with at most seven tiny replies, what a server and a model can do.

    It is remembered for replies from there, so that they can be gone on with.
    """
    from llmctl.profiles import resolve_model  # noqa: PLC0415  (start-up)

    invocation = here(context)
    config = invocation.config(
        model=model, base_url=base_url, api=api, api_key_env=api_key_env,
        connect_timeout=connect_timeout,
    )  # fmt: skip
    selection = resolve_model(None, config, invocation.env)
    found = None
    if selection.profile is not None:
        found = _found(invocation, config, selection.profile, selection.model)
    ways = _ways(invocation, config, selection)
    if as_json:
        invocation.env.say(json.dumps(_facts(selection, found, ways), indent=2))
        return
    for name, value in _table(selection, found, ways):
        invocation.env.say(f"{name:<15} {value}")


def _found(invocation: Invocation, config: Config, profile: Profile, model: str) -> Capabilities:
    from llmctl.backends.probe import probe as ask  # noqa: PLC0415  (start-up)
    from llmctl.capabilities import Memory  # noqa: PLC0415  (start-up)

    key = invocation.key_for(profile)
    wait_s = config.connect_timeout
    found = anyio.run(partial(ask, profile, model, key=key, connect_timeout_s=wait_s))
    Memory.of(invocation.env).remember(profile.base_url, model, found)
    return found


def _ways(invocation: Invocation, config: Config, selection: Selection) -> Ways:
    """Return how replies from there can be gone on with, as the program will see it."""
    from llmctl.backends.choose import back_end_for  # noqa: PLC0415  (start-up)

    back_end = back_end_for(
        selection,
        env=invocation.env,
        connect_timeout=config.connect_timeout,
        key_for=lambda _: None,
        stored=True,
    )
    supports = {Strategy.HELD: Guarantee.EXACT, **back_end.supports}
    supports[Strategy.INSTRUCT] = Guarantee.BEST_EFFORT
    return {way: supports[way] for way in Strategy if way in supports}


def _facts(selection: Selection, found: Capabilities | None, ways: Ways) -> dict[str, Any]:
    where = None if selection.profile is None else selection.profile.base_url
    facts = {"model": selection.model, "base_url": where, "goes_on_by": ways}
    return facts if found is None else {**facts, **found.as_json()}


def _table(
    selection: Selection, found: Capabilities | None, ways: Mapping[Strategy, Guarantee]
) -> Iterator[tuple[str, str]]:
    yield "model", selection.model
    if found is not None:
        yield "server", str(found.server)
        yield from _seen(found)
        yield "asked", f"{found.replies} replies of at most {_LONGEST[found.api]} tokens"
    yield "goes on by", ", ".join(f"{way} ({guarantee})" for way, guarantee in ways.items())


_SHORT = "not to be seen: the first reply was too short to cut"
_TEXT = {True: "gone on behind", False: "not seen to work", None: _SHORT}
_LONGEST = {"chat": 8, "completions": 8, "responses": 16}


def _seen(found: Capabilities) -> Iterator[tuple[str, str]]:
    """Yield what the replies showed, as far as the protocol has it."""
    match found.api:
        case "responses":
            yield "background", found.background or "not to be seen"
            return
        case "completions":
            yield "text prompts", _TEXT[found.goes_on_by_text]
        case _:
            yield from _prefixes(found)
    yield "token prompts", "gone on behind" if found.token_prompts else "not seen to work"
    yield "token counts", found.token_counts or "not told"
    yield "usage", "in the stream" if found.usage_in_stream else "not told"
    yield "seed", "not refused" if found.accepts_seed else "refused"


def _prefixes(found: Capabilities) -> Iterator[tuple[str, str]]:
    for way, seen in found.outcomes.items():
        yield "prefix", f"{way}: {seen}"
    if found.prefix is None and not found.outcomes:
        yield "prefix", _SHORT
    if found.prefix is not None:
        yield "blanks at end", "kept" if found.prefix_keeps_blanks else "not known to be kept"
