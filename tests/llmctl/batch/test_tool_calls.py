"""Half a tool call is thrown away and asked for again: nothing of it is kept or made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import llmctl.batch
from llmctl.batch import Job
from tests.support.batches import Batch, prompt, vllm
from tests.support.oracle_server import Fault, OracleServer, Script

LENGTH, CALL_AT = 14, 5
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = Script(call_at=CALL_AT)


def choice(row: Mapping[str, Any]) -> Any:
    (only,) = row["response"]["body"]["choices"]
    return only


def rows(folder: Path, monkeypatch: pytest.MonkeyPatch, cuts: bool) -> dict[str, dict[str, Any]]:
    """Run an item for every place; with ``cuts`` its connection is cut there once."""
    monkeypatch.setenv("LLMCTL_HOME", str(folder / "home"))
    folder.mkdir(exist_ok=True)
    items = LENGTH + 1
    with OracleServer(vllm(), otherwise=CALL) as server:
        batch = Batch(folder, server, items=items, length=LENGTH)
        batch.write(range(items), tools=[TOOL], temperature=0)
        for at in range(items if cuts else 0):
            fault = Fault("cut", after_tokens=at)
            server.enqueue(Script(call_at=CALL_AT, fault=fault, match=f'{prompt(at, LENGTH)}"'))
        job = Job(input=batch.input, output=batch.output, base_urls=(server.base_url,), canary=0)
        report = llmctl.batch.run(job, model="oracle")
        assert (report.status, report.tally.complete) == (0, items)
        assert server.counters.requests == items * (2 if cuts else 1)
        return {row["custom_id"]: row for row in batch.rows()}


def test_a_call_that_was_cut_anywhere_is_redone_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(tmp_path / "whole", monkeypatch, cuts=False)
    redone = rows(tmp_path / "cut", monkeypatch, cuts=True)
    for name, row in whole.items():
        message = choice(row)["message"]
        (call,) = message["tool_calls"]
        assert (choice(row)["finish_reason"], call["function"]["name"]) == ("tool_calls", "weather")
        text = message["content"] + call["function"]["arguments"]
        assert len(text) > len(message["content"]) > 0, json.dumps(row)
        assert choice(redone[name]) == choice(row)
        assert redone[name]["llmctl"]["resumes"] == []
