"""``llmctl config``: show what is in force and where it comes from, and change the file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from llmctl.cli.invocation import Invocation, here, new_app
from llmctl.config import Config, config_path, problems, read_text, setting_names
from llmctl.config_edit import with_setting
from llmctl.environment import write_private
from llmctl.keys import key_place

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from llmctl.errors import UsageError
    from llmctl.profiles import Profile

app = new_app(no_args_is_help=True, help="Show and change the configuration.")


@app.command()
def show(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show every setting, its value and where that was said; never a key."""
    invocation = here(context)
    config = invocation.config()
    facts = _facts(config, invocation)
    invocation.env.say(json.dumps(facts, indent=2) if as_json else _as_text(facts))


@app.command("set")
def set_(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A setting, or profiles.NAME.SETTING.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What it is to be.")],
) -> None:
    """Write one setting into the configuration file; its comments stay."""
    invocation = here(context)
    path = config_path(invocation.env, invocation.config_file)
    text = read_text(path)
    known = problems(text, path).keys() - {key}  # those others stay, and hinder nothing
    write_private(path, _first_valid(with_setting(text, key, value), path, known))


@app.command()
def path(context: typer.Context) -> None:
    """Print the configuration file's path, whether or not it exists."""
    invocation = here(context)
    invocation.env.say(str(config_path(invocation.env, invocation.config_file)))


def _first_valid(texts: list[str], path: Path, known: Collection[str]) -> str:
    """Return the first text with no problem but at known settings; else raise the first one's."""
    fresh: list[UsageError] = []
    for text in texts:
        new = [problem for where, problem in problems(text, path).items() if where not in known]
        if not new:
            return text
        fresh += new
    raise fresh[0]


def _facts(config: Config, invocation: Invocation) -> dict[str, Any]:
    known = {name: getattr(config, name) for name in setting_names()}
    return {
        "file": str(config.file),
        "data": str(invocation.env.data),
        "models": str(invocation.env.models),
        "settings": {
            name: {"value": value, "from": config.origins.get(name, "default")}
            for name, value in known.items()
        },
        "profiles": {
            name: _profile_facts(profile, invocation) for name, profile in config.profiles.items()
        },
    }


def _profile_facts(profile: Profile, invocation: Invocation) -> dict[str, Any]:
    facts = asdict(profile)
    del facts["name"], facts["api_key_cmd"]  # a command may have a secret among its words
    facts["base_url"] = _without_password(profile.base_url)
    return facts | {"key_from": key_place(profile, invocation.env)}


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _as_text(facts: Mapping[str, Any]) -> str:
    lines = [f"{name} {facts[name]}" for name in ("file", "data", "models")]
    lines += ["", "settings"]
    lines += [
        f"  {name} = {_word(entry['value'])}  ({entry['from']})"
        for name, entry in facts["settings"].items()
    ]
    lines += ["", "profiles"]
    lines += [
        f"  {name}  {entry['base_url']}  ({_key_words(entry)})"
        for name, entry in facts["profiles"].items()
    ]
    return "\n".join(lines)


def _word(value: object) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _key_words(entry: Mapping[str, Any]) -> str:
    if entry["key_from"] is not None:
        return f"key from {entry['key_from']}"
    return "no key" if entry["requires_key"] else "no key needed"
