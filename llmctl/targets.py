"""How a journal remembers where a reply came from, so that a resume finds it again.

A configured back end is remembered by its name, so that a changed address or key is
followed; one given on the command line by its address; a protocol that was given there too.
Keys are never remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.profiles import Api, Selection, resolve_model


def target_of(selection: Selection, config: Config) -> dict[str, Any]:
    """Return what a journal keeps of a selection."""
    if selection.profile is None or config.base_url is None:
        path = None if selection.path is None else str(selection.path)
        api = {} if config.api is Api.AUTO else {"api": str(config.api)}
        return {"spec": str(selection), "path": path, **api}
    return {
        "model": selection.model,
        "base_url": config.base_url,
        "api": str(config.api),
        "api_key_env": config.api_key_env,
    }


def selection_of(target: Mapping[str, Any], config: Config, env: Environment) -> Selection:
    """Return the selection that a journal kept.

    Raises:
        UsageError: the back end is not configured any more.
    """
    api = Api(target.get("api", Api.AUTO))
    if "base_url" not in target:
        return resolve_model(target["spec"], replace(config, base_url=None, api=api), env)
    there = replace(
        config,
        base_url=target["base_url"],
        api=api,
        api_key_env=target["api_key_env"],
    )
    return resolve_model(target["model"], there, env)
