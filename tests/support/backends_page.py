"""The table in docs/backends.md, made from ``models probe --json`` against strict servers.

``python -m tests.support.backends_page`` prints it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.cli import main
from llmctl.profiles import PRESETS, Api
from tests.support.dialects import DIALECTS, Dialect
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import OracleServer

__all__ = ["HEAD", "probed", "rows"]

HEAD = (
    "| back end | protocol | goes on by | guarantee | what the probe saw | known from |",
    "|---|---|---|---|---|---|",
)
READ = "read; run against a strict server"
KNOWN_FROM: Mapping[tuple[str, Api], str] = {
    ("llamacpp", Api.CHAT): "run",
    ("llamacpp", Api.COMPLETIONS): "run",
    ("llamacpp", Api.RESPONSES): "run",
    ("anthropic", Api.CHAT): "read: newer models; older ones go on",
    ("gemini", Api.CHAT): "read: some models; others go on",
    ("openrouter", Api.CHAT): "unknown: whoever serves the model; probe it",
    ("ollama", Api.CHAT): "unknown: the model's template; probe it",
    ("lmstudio", Api.CHAT): "unknown: not documented; probe it",
}
"""Where the row's behaviour comes from, apart from what was read and then run on our server."""

_ALWAYS = {"held", "instruct"}


def probed(dialect: Dialect) -> dict[str, Any]:
    """Return what ``models probe --json`` says of a back end.

    Raises:
        AssertionError: If it fails.
    """
    preset = PRESETS[dialect.name]
    with OracleServer(dialect.server) as server, tempfile.TemporaryDirectory() as folder:
        lines = [f"[profiles.{dialect.name}]", f'base_url = "{server.base_url}"']
        if preset.prefix_base_url is not None:
            lines.append(f'prefix_base_url = "{server.base_url}"')
        lines.append(f'api = "{dialect.api}"')
        file = Path(folder) / "c.toml"
        file.write_text("\n".join(lines))
        words = ("--config", str(file), "models", "probe", "-m", f"{dialect.name}/oracle")
        variables = {preset.api_key_env: "key"} if preset.api_key_env is not None else {}
        with fake_environment(Path(folder), **variables) as fake:
            status = main((*words, "--json"), fake.env)
            assert status == 0, fake.err
            found: dict[str, Any] = json.loads(fake.out)
            return found


def rows() -> Iterator[str]:
    """Yield the table's rows for the back ends known by name."""
    for (name, api), dialect in DIALECTS.items():
        facts = probed(dialect)
        ways = {way: label for way, label in facts["goes_on_by"].items() if way not in _ALWAYS}
        cells = (
            name,
            str(api),
            ", ".join(ways) or "none",
            ", ".join(ways.values()) or "none",
            "; ".join(_seen(facts)),
            KNOWN_FROM.get((name, api), READ),
        )
        yield f"| {' | '.join(cells)} |"


def _seen(facts: Mapping[str, Any]) -> Iterator[str]:
    match facts["api"]:
        case "responses":
            yield f"`background`: {facts['background']}"
            return
        case "completions":
            yield "text: gone on behind" if facts["goes_on_by_text"] else "text: not"
        case _:
            outcomes = facts["outcomes"].items()
            worked = [way for way, seen in outcomes if way == facts["prefix"]]
            for way in worked:
                yield f"`{way}`: {facts['outcomes'][way]}"
            if not worked:
                yield "no dialect: " + ", ".join(sorted({seen for _, seen in outcomes}))
    if facts["token_prompts"]:
        yield "ids: gone on behind"


if __name__ == "__main__":
    sys.stdout.write("\n".join((*HEAD, *rows())) + "\n")
