"""Files of results made one."""

from __future__ import annotations

import json
from pathlib import Path

from llmctl.batch.merge import merge

COMPLETE = {"response": {"status_code": 200, "body": {}}, "error": None}


def rows(path: Path, *ids: str) -> Path:
    path.write_text("".join(json.dumps({"custom_id": i, **COMPLETE}) + "\n" for i in ids))
    return path


def test_an_output_that_is_a_link_stays_one_and_may_be_a_source(tmp_path: Path) -> None:
    target = rows(tmp_path / "target.jsonl", "a")
    link = tmp_path / "out.jsonl"
    link.symlink_to(target)
    done = merge([link, rows(tmp_path / "more.jsonl", "b", "a")], link)
    assert link.is_symlink()
    said = [json.loads(line)["custom_id"] for line in target.read_text().splitlines()]
    assert (said, done.twice) == (["a", "b"], 1)
