"""From options to what is asked: shared by the commands that begin a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.backends.surrogates import well_formed
from llmctl.cli.options import body_fields, key_values
from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.markers import parse_markers
from llmctl.templates import Rendered, load_template

INPUT_PATIENCE_S = 2.0
"""Seconds without anything on stdin after which a person is told that it is waited for."""


def prompt_from(
    words: Sequence[str], env: Environment, *, no_stdin: bool, needed: bool = True
) -> str:
    """Return the prompt: the words, what stdin brings, or both; a lone ``-`` stands for stdin.

    Raises:
        UsageError: there is neither, and one is ``needed``.
    """
    said = well_formed(" ".join(words)) if list(words) != ["-"] else ""  # words may be any bytes
    piped = ""
    if env.has_input and not no_stdin:
        if said and env.waits_for_input(INPUT_PATIENCE_S):
            env.note("waiting for stdin to end; --no-stdin does not read it")
        piped = env.read_input().removesuffix("\n")
    prompt = "\n\n".join(part for part in (said, piped) if part)
    if needed and not prompt.strip():
        raise UsageError("There is no prompt.", "Write it behind 'run', or pipe it in.")
    return prompt


def asks_by_itself(template: str | None, env: Environment) -> bool:
    """Say whether a template is a message that needs no words of the person's.

    Raises:
        UsageError: there is no such template.
    """
    return template is not None and load_template(template, env).asks_by_itself


def rendered(
    name: str | None, variables: Sequence[str] | None, prompt: str, env: Environment
) -> Rendered:
    """Return the template called ``name`` with its variables; without one, the prompt.

    Raises:
        UsageError: there is no such template, or a variable does not fit.
    """
    given = key_values(variables, "-V")
    if name is not None:
        return load_template(name, env).render(given, prompt)
    if given:
        raise UsageError("-V needs a template.", "Add -t NAME.")
    return Rendered(None, prompt, {}, {})


def options_from(  # noqa: PLR0913  (each is an option)
    config: Config,
    template: Mapping[str, Any],
    env: Environment,
    *,
    seed: int | None,
    stop: Sequence[str] | None,
    schema: Path | None,
    body: Sequence[str] | None,
) -> Options:
    """Return the generation options: the template's, under the configuration and the flags.

    Raises:
        UsageError: the schema can't be read, ``--stop`` is empty, or ``--option`` is not KEY=VALUE.
    """
    if "" in (stop or ()):
        raise UsageError("--stop needs a text.", "Leave it out to stop nowhere.")
    chosen = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
        "seed": seed,
        "stop": tuple(stop or ()) or None,
        "schema": None if schema is None else _schema(env.resolve(schema)),
        "extra": body_fields(body) or None,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return Options(**{**template, **given})


def markers_from(
    specs: Sequence[str] | None, template: Mapping[str, Action], *, no_markers: bool
) -> dict[str, Action]:
    """Return the markers to listen for.

    Raises:
        UsageError: a marker is empty, or markers are both given and ruled out.
    """
    if no_markers:
        if specs:
            raise UsageError("--marker and --no-markers exclude each other.", "Leave one out.")
        return {}
    return {**template, **parse_markers(specs or ())}


def _schema(file: Path) -> Mapping[str, Any]:
    try:
        schema = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"The schema {file} can't be read: {_why(error)}.", _A_SCHEMA) from error
    if not isinstance(schema, dict):
        raise UsageError(f"The schema {file} is not a JSON object.", _A_SCHEMA)
    named = schema.get("type", [])
    for each in named if isinstance(named, list) else [named]:
        if each not in _TYPES:
            raise UsageError(f"The schema {file} has a type that is none: {each}.", _A_SCHEMA)
    return schema


_A_SCHEMA = 'It looks like {"type": "object", "properties": {…}, "required": […]}.'
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def _why(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case json.JSONDecodeError():
            return f"line {error.lineno} is not JSON ({error.msg})"
        case _:
            return getattr(error, "strerror", None) or str(error)
