"""A batch on an oracle server, run from outside: its files, and what they must say.

::

    with OracleServer(vllm(delay_s=0.01)) as server:
        batch = Batch(tmp_path, server, items=20)
        done = batch.run("--concurrency", "4")
        batch.assert_complete()
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.oracle_server import OracleProcess, OracleServer, Settings
from tests.support.oracle_wire import Feature, Prefill
from tests.support.processes import Cli, CliProcess, Finished

__all__ = ["Batch", "content", "prompt", "vllm"]

CONFIG = """
[profiles.oracle]
preset = "vllm"
base_url = "{url}"
"""


def vllm(*, tokens: bool = True, **settings: Any) -> Settings:
    """Return the settings of a server like vLLM; ``tokens``: it goes on behind token ids."""
    features = {Feature.USAGE, Feature.CONTINUOUS_USAGE, Feature.TOKEN_IDS}
    features |= {Feature.TOKEN_PROMPTS} if tokens else set()
    return Settings(prefill=Prefill.CONTINUE_FINAL_MESSAGE, features=tuple(features), **settings)


def prompt(number: int, length: int) -> str:
    """Return the question of an item; the reply has that many tokens."""
    return f"question {number} length={length}"


class Batch:
    """One input, one output, run any number of times."""

    def __init__(
        self, folder: Path, server: OracleServer | OracleProcess, *, items: int, length: int = 30
    ) -> None:
        """Write the input: OpenAI batch lines ``row-0`` …, with the model left out."""
        self.cli = Cli(folder)
        self.server = server
        self.items = items
        self.length = length
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.errors_file = folder / "out.jsonl.errors.jsonl"
        self.state = folder / "out.jsonl.llmctl"
        self.write(range(items))
        home = Path(self.cli.env["LLMCTL_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(CONFIG.format(url=server.base_url))

    def write(self, numbers: Iterable[int], **body: Any) -> None:
        """Write these items as the input."""
        rows = [self.row(number, **body) for number in numbers]
        self.input.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def row(self, number: int, **body: Any) -> dict[str, Any]:
        """Return one line of the input."""
        messages = [{"role": "user", "content": prompt(number, self.length)}]
        return {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": messages, **body},
        }

    def words(self, *more: str) -> list[str]:
        """Return the command line."""
        return ["batch", str(self.input), "-o", str(self.output), "-m", "oracle/oracle", *more]

    def run(self, *more: str, **settings: Any) -> Finished:
        """Run it to its end."""
        return self.cli.run(*self.words(*more), **settings)

    def start(self, *more: str, **settings: Any) -> CliProcess:
        """Start it."""
        return self.cli.start(*self.words(*more), **settings)

    def rows(self) -> list[dict[str, Any]]:
        """Return the output's lines."""
        return _lines(self.output)

    def errors(self) -> list[dict[str, Any]]:
        """Return the errors file's lines."""
        return _lines(self.errors_file)

    def contents(self) -> dict[str, str]:
        """Return each complete item's text."""
        return {row["custom_id"]: content(row) for row in self.rows()}

    def expected(self, numbers: Iterable[int] | None = None) -> dict[str, str]:
        """Return the texts of an uninterrupted run."""
        wanted = range(self.items) if numbers is None else numbers
        return {f"row-{n}": self.server.expected(prompt(n, self.length)) for n in wanted}

    def assert_complete(self, numbers: Iterable[int] | None = None) -> None:
        """See that every item is there exactly once, with the right text."""
        rows = self.rows()
        assert len(rows) == len({row["custom_id"] for row in rows})
        assert self.contents() == self.expected(numbers)


def content(row: Mapping[str, Any]) -> str:
    """Return the text of an output line."""
    return str(row["response"]["body"]["choices"][0]["message"]["content"])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
