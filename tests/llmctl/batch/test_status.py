"""How a batch stands, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.batch.status import status_of
from llmctl.cli.batch_parts import status_words


def batch(folder: Path, items: list[str], usages: dict[str, Any]) -> Path:
    """Make the files of a batch with these items and complete rows."""
    output, state = folder / "out.jsonl", folder / "out.jsonl.llmctl"
    state.mkdir()
    (state / "items.jsonl").write_text("".join(f'["{id_}","00"]\n' for id_ in items))
    rows = [
        {"custom_id": id_, "response": {"status_code": 200, "body": {"usage": usage}}}
        for id_, usage in usages.items()
    ]
    output.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return output


def test_rows_of_lines_that_are_gone_do_not_count(tmp_path: Path) -> None:
    usage = {"completion_tokens": 5}
    output = batch(tmp_path, ["a", "b"], dict.fromkeys(["a", "x", "b", "y"], usage))
    status = status_of(output)
    assert (status.items, status.complete, status.tokens) == (2, 2, 10)
    assert status_words(status) == "2 of 2 complete, 10 tokens"


def test_without_a_state_all_rows_count(tmp_path: Path) -> None:
    output = batch(tmp_path, [], {"a": {"output_tokens": 2}, "b": {"completion_tokens": 1}})
    (tmp_path / "out.jsonl.llmctl" / "items.jsonl").unlink()
    assert status_words(status_of(output)) == "2 complete, 3 tokens"


def test_tokens_that_no_server_counted_are_not_0(tmp_path: Path) -> None:
    status = status_of(batch(tmp_path, ["a", "b"], {"a": None}))
    assert status_words(status) == "1 of 2 complete"
    assert status.as_json()["completion_tokens"] is None


def test_tokens_of_which_some_were_not_counted_are_at_least_so_many(tmp_path: Path) -> None:
    usages = {"a": {"completion_tokens": 1}, "b": {"completion_tokens": None}}
    status = status_of(batch(tmp_path, ["a", "b"], usages))
    assert status_words(status) == "2 of 2 complete, at least 1 token"
    assert status.as_json()["completion_tokens"] is None


def test_nothing_complete_took_no_tokens(tmp_path: Path) -> None:
    status = status_of(batch(tmp_path, ["a"], {}))
    assert status_words(status) == "0 of 1 complete, 0 tokens"
    assert status.as_json()["completion_tokens"] == 0
