"""The options that several commands share, as types: ``seed: options.Seed = None``.

Every value leaves this module parsed: durations are seconds, ``key=value`` lists are
turned into mappings by `key_values` and `body_fields`. Whether an option was given at
all stays visible (None, or an empty list), because the configuration stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl import strict_json
from llmctl.config import OnPause, Pace
from llmctl.durations import parse_duration
from llmctl.errors import UsageError
from llmctl.events import Guarantee
from llmctl.profiles import Api


def duration(help_text: str, name: str) -> Any:  # noqa: ANN401  (typer's own return type)
    """Make an option that takes a duration and gives seconds; its errors name it."""

    def parse(text: str) -> float:
        try:
            return parse_duration(text)
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", error.hint) from error

    return typer.Option(name, parser=parse, metavar="DURATION", help=help_text)


# Which model.
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        help="local, local:PATH.gguf or PROFILE/NAME; with --base-url the server's own name.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Talk to this server."),
]
BaseUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--base-url", metavar="URL", help="Talk to this server; repeat it to share the work."
    ),
]
ApiName = Annotated[
    Api | None,
    typer.Option("--api", help="The protocol to speak at --base-url, or with a profile's server."),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="VAR", help="The environment variable that holds the key for --base-url."),
]

# What is asked for.
System = Annotated[
    str | None,
    typer.Option("-s", "--system", metavar="TEXT", help="System message."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "-t", "--template", metavar="NAME", help="Start from a template ('llmctl prompts list')."
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "-V", "--var", metavar="KEY=VALUE", help="A variable of the template; repeatable."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0.0, help="Sampling temperature."),
]
TopP = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Nucleus sampling mass."),
]
Seed = Annotated[
    int | None,
    typer.Option(help="The sampler's seed."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Bound on the whole reply, in tokens."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End the reply where the model writes this; repeatable."),
]
Schema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A JSON schema that the reply must satisfy."),
]
Attach = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Send this file along; repeatable."),
]
BodyFields = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="A further field of the request body (JSON if it parses); repeatable.",
    ),
]

# Pausing.
Markers = Annotated[
    list[str] | None,
    typer.Option(
        "--marker",
        metavar="TEXT[=ACTION]",
        help="Listen for this marker; the action is pause, stop or ask; repeatable.",
    ),
]
NoMarkers = Annotated[
    bool,
    typer.Option("--no-markers", help="Listen for no markers."),
]
OnPauseMode = Annotated[
    OnPause | None,
    typer.Option("--on-pause", help="What a pause does to the generation."),
]
PaceName = Annotated[
    Pace | None,
    typer.Option("--pace", help="'page' shows a screenful at a time; the model runs ahead."),
]
PauseAfter = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Pause when this many tokens have been delivered."),
]
Require = Annotated[
    Guarantee | None,
    typer.Option(help="The weakest guarantee that a resume may have."),
]

# Time limits, in seconds once parsed.
ConnectTimeout = Annotated[
    float | None, duration("Give up connecting after this long.", "--connect-timeout")
]
FirstTokenTimeout = Annotated[
    float | None, duration("Give up waiting for the first token.", "--first-token-timeout")
]
IdleTimeout = Annotated[
    float | None, duration("Give up waiting for the next token.", "--idle-timeout")
]
Timeout = Annotated[
    float | None, duration("This process's share of the reply may take this long.", "--timeout")
]

# How it is told.
Json = Annotated[bool, typer.Option("--json", help="Write events, one JSON object a line.")]
NoStore = Annotated[bool, typer.Option("--no-store", help="Keep nothing on disk.")]


def key_values(given: Iterable[str] | None, option: str) -> dict[str, str]:
    """Split ``key=value`` words; a later one of the same key wins.

    >>> key_values(["a=1", "b=x=y"], "-V")
    {'a': '1', 'b': 'x=y'}

    Raises:
        UsageError: a word has no key or no ``=``.
    """
    pairs = {}
    for word in given or ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            example = f"Write {option} {key or 'KEY'}=VALUE."
            raise UsageError(f"{option} takes KEY=VALUE, not '{word}'.", example)
        pairs[key] = value
    return pairs


def body_fields(given: Iterable[str] | None) -> dict[str, Any]:
    """Read ``--option`` words: a value is JSON if it parses, else a string.

    >>> body_fields(["top_k=40", "user=me"])
    {'top_k': 40, 'user': 'me'}

    Raises:
        UsageError: a word has no key or no ``=``.
    """
    return {key: _json_or_text(text) for key, text in key_values(given, "--option").items()}


def _json_or_text(text: str) -> Any:  # noqa: ANN401  (a JSON value)
    try:
        return strict_json.loads(text)
    except ValueError:
        return text
