"""What a script that imports `llmctl.batch` gets."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmctl.batch
from llmctl.batch import Job, Report, run
from llmctl.batch.attempt import Item
from llmctl.batch.watchers import Quiet
from llmctl.errors import UsageError
from tests.support.batches import Batch, vllm
from tests.support.oracle_server import OracleServer


class Listening(Quiet):
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def ended(self, item: Item, standing: str, cause: str | None) -> None:  # noqa: ARG002
        self.heard.append((item.row.id, standing))


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMCTL_HOME", str(tmp_path / "home"))
    return tmp_path


def go(batch: Batch, url: str, progress: Listening | None = None) -> Report:
    job = Job(input=batch.input, output=batch.output, base_urls=(url,), canary=0)
    return run(job, model="oracle", progress=progress)


def test_a_run_does_what_the_command_does_and_says_what_came_of_it(at_home: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(at_home, server, items=5)
        listening = Listening()
        report = go(batch, server.base_url, listening)
        assert (report.status, report.left, report.tally.complete) == (0, 0, 5)
        assert sorted(listening.heard) == [(f"row-{n}", "complete") for n in range(5)]
        batch.assert_complete()
        again = go(batch, server.base_url)
        assert (again.status, again.tally.before, again.tally.complete) == (0, 5, 0)


def test_what_can_not_be_used_is_raised(at_home: Path) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(at_home, server, items=1)
        batch.input.write_text('{"id": "a", "promt": "x"}\n')
        with pytest.raises(UsageError, match="did you mean 'prompt'"):
            go(batch, server.base_url)
        assert server.counters.requests == 0


def test_its_names_are_these() -> None:
    assert set(llmctl.batch.__all__) == {
        "Job", "Prices", "Progress", "Report", "Shard", "Tally", "run",
    }  # fmt: skip
