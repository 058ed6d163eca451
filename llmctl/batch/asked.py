"""What a command line says about every row, remembered to tell its changes from lines'. Pure.

A row is its id and its effective request, and a request is made of both the line and the command
line. Where requests are not what they were, people want to know which of the two has changed. The
state therefore has a word on each part of the last run's `Recipe`: the model by name, the rest as
digests, since only whether it is the same is of interest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from llmctl.batch.forms import Recipe

MODEL = "-m"


def asked_by(recipe: Recipe) -> dict[str, str]:
    """Return a word for each part of a command line that is part of requests, by its option."""
    options, template = recipe.options, recipe.template
    parts = {
        "--api": recipe.path,
        "--override-model": recipe.override_model or None,
        "-s": recipe.system,
        "-t": None if template is None else (template.body, template.role, template.defaults),
        "-V": recipe.variables,
        "--attach": recipe.attached,
        "--marker": recipe.markers,
        "--temperature": options.temperature,
        "--top-p": options.top_p,
        "--seed": options.seed,
        "--max-tokens": options.max_tokens,
        "--stop": options.stop,
        "--schema": options.schema,
        "--option": options.extra,
    }
    said = {option: _digest(value) for option, value in parts.items() if value not in _NOTHING}
    return said if recipe.model is None else {MODEL: recipe.model, **said}


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the options that differ, for people; empty if none does.

    >>> difference({"-m": "a", "-s": "1f"}, {"-m": "b"})
    "-m (was 'a', is 'b'), -s"
    """
    differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(_named(name, before.get(name), now.get(name)) for name in differ)


def _named(name: str, before: str | None, now: str | None) -> str:
    if name != MODEL:
        return name
    was, is_ = (repr(model) if model else "not given" for model in (before, now))
    return f"{name} (was {was}, is {is_})"


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_NOTHING: tuple[object, ...] = (None, "", (), {})
