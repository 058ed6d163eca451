"""Files of results made one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from llmctl.batch.lease import BatchBusy, Owner
from llmctl.batch.merge import merge
from llmctl.errors import UsageError

COMPLETE = {"response": {"status_code": 200, "body": {}}, "error": None}
FAILED = {"response": None, "error": {"kind": "refused"}}


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


def failed(output: Path, *ids: str) -> Path:
    path = output.with_name(f"{output.name}.errors.jsonl")
    path.write_text("".join(json.dumps({"custom_id": i, **FAILED}) + "\n" for i in ids))
    return path


@pytest.mark.parametrize(
    "held", ["other results", "other text of the same", "notes", "a torn line"]
)
def test_what_only_the_output_has_is_not_overwritten(tmp_path: Path, held: str) -> None:
    source, output = rows(tmp_path / "a.jsonl", "a", "b"), tmp_path / "out.jsonl"
    match held:
        case "other results":
            rows(output, "a", "z")
        case "other text of the same":
            output.write_text(source.read_text().replace("{}", '{"other": 1}'))
        case "notes":
            output.write_text("my only note\n")
        case _:
            output.write_text(source.read_text()[:-20])
    before = output.read_bytes()
    with pytest.raises(UsageError, match="not among the files to merge") as told:
        merge([source], output)
    assert output.read_bytes() == before
    assert str(output) in told.value.message
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


def test_failed_items_that_only_the_output_has_are_not_overwritten(tmp_path: Path) -> None:
    source, output = rows(tmp_path / "a.jsonl", "a"), tmp_path / "out.jsonl"
    errors = failed(output, "z")
    with pytest.raises(UsageError, match=r"out.jsonl.errors.jsonl"):
        merge([source], output)
    assert not output.exists()
    assert merge([source, errors], output).failed == 1


def test_the_same_merge_again_when_shards_have_gone_on(tmp_path: Path) -> None:
    one, two = rows(tmp_path / "1.jsonl", "a"), rows(tmp_path / "2.jsonl", "b")
    errors, output = failed(two, "c"), tmp_path / "out.jsonl"
    output.touch()
    assert merge([one, two], output).failed == 1
    rows(two, "b", "c")
    errors.write_text("")
    done = merge([one, two], output)
    assert (done.complete, done.failed) == (3, 0)
    assert len(output.read_text().splitlines()) == 3


@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "folder", "errors"])
def test_only_a_file_is_written_over(tmp_path: Path, kind: str) -> None:
    source, output = rows(tmp_path / "a.jsonl", "a"), tmp_path / "out.jsonl"
    match kind:
        case "fifo":
            os.mkfifo(output)
        case "link to a fifo":
            os.mkfifo(tmp_path / "target")
            output.symlink_to("target")
        case "folder":
            output.mkdir()
        case _:
            os.mkfifo(tmp_path / "out.jsonl.errors.jsonl")
    before = sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"is no regular file|is a folder"):
        merge([source], output)
    assert sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir()) == before


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="fifo is no regular file"):
        merge([tmp_path / "fifo"], tmp_path / "out.jsonl")


def test_an_output_that_a_process_appends_to_is_left_to_it(tmp_path: Path) -> None:
    source, output = rows(tmp_path / "a.jsonl", "a"), rows(tmp_path / "out.jsonl", "b")
    folder = tmp_path / "out.jsonl.llmctl"
    folder.mkdir()
    (folder / "lease").write_text(json.dumps(asdict(Owner("t", "elsewhere", 4711, 0.0))))
    with pytest.raises(BatchBusy, match="pid 4711 on elsewhere"):
        merge([source, output], output)
