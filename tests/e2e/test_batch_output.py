"""OUTPUT as people name it by mistake: told at once, and nothing is made, opened or replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batches import Batch, prompt, vllm
from tests.support.oracle_server import Fault, OracleServer, Script
from tests.support.processes import Finished

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[OracleServer]:
    with OracleServer(vllm()) as server:
        yield server


@pytest.fixture
def batch(tmp_path: Path, server: OracleServer) -> Batch:
    return Batch(tmp_path, server, items=2, length=5)


def into(batch: Batch, output: str, *more: str) -> Finished:
    words = ["batch", str(batch.input), "-m", "oracle/oracle", "-o", output, *more]
    return batch.cli.run(*words, timeout_s=20)


def told(done: Finished) -> str:
    """Return the sentence of a usage error that has one hint."""
    sentence, hint = done.errors.splitlines()
    assert (done.returncode, hint[:6]) == (2, "hint: "), done.errors
    return sentence


def device(path: Path) -> Path:
    """Make a node like /dev/full, which nothing may replace."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root makes devices")
    return path


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a fifo"])
def test_an_output_that_is_no_file_is_told_at_once(batch: Batch, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "special"
    match kind:
        case "fifo":
            os.mkfifo(output)
        case "device":
            device(output)
        case _:
            os.mkfifo(tmp_path / "target")
            output.symlink_to("target")
    before = output.lstat().st_ino, output.lstat().st_mode
    for more in ([], ["--dry-run"]):
        assert f"{output} is no regular file." in told(into(batch, str(output), *more))
    assert "is no regular file" in told(batch.cli.run("batch", "status", str(output)))
    assert (output.lstat().st_ino, output.lstat().st_mode) == before
    assert list(tmp_path.rglob("special*")) == [output]


def test_a_link_to_a_pipe_is_no_file_either(batch: Batch) -> None:
    done = into(batch, "/proc/self/fd/1")  # what /dev/stdout is
    assert "/proc/self/fd/1 is no regular file" in told(done)


def test_an_errors_file_that_is_none_is_told_before_anything_is_asked(
    batch: Batch, server: OracleServer
) -> None:
    os.mkfifo(batch.errors_file)
    asked = server.counters.requests
    assert f"{batch.errors_file} is no regular file" in told(batch.run())
    assert server.counters.requests == asked
    assert not batch.state.exists()


def test_a_link_that_leads_in_a_circle_is_told(batch: Batch) -> None:
    batch.output.symlink_to(batch.output.name)
    assert "Too many levels of symbolic links" in told(batch.run())


@pytest.mark.parametrize("output", ["folder", "", ".", "/"])
def test_a_folder_is_no_output_and_gets_no_neighbour(
    batch: Batch, tmp_path: Path, output: str
) -> None:
    (tmp_path / "folder").mkdir()
    batch.cli.cwd.mkdir(exist_ok=True)
    name = str(tmp_path / output) if output == "folder" else output
    sentence = told(into(batch, name))
    assert (
        "is a folder" if output in {"folder", "/"} else "-o needs the name of a file"
    ) in sentence
    assert not list(tmp_path.rglob("*.llmctl"))
    assert not list(batch.cli.cwd.parent.glob("*.llmctl"))


def test_a_folder_that_is_not_there_is_not_made(batch: Batch, tmp_path: Path) -> None:
    assert f"There is no folder {tmp_path / 'none'}" in told(into(batch, str(tmp_path / "none/x")))
    assert not (tmp_path / "none").exists()
    assert "Not a directory" in told(into(batch, f"{batch.input}/x"))


def test_what_ends_before_it_begins_leaves_no_state(batch: Batch, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("not mine\n")
    assert "something else than complete items" in told(into(batch, str(notes)))
    assert not list(tmp_path.glob("notes.llmctl"))
    assert into(batch, "/proc/replies.jsonl", "--state", str(tmp_path / "state")).returncode == 2
    assert not (tmp_path / "state").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    assert into(batch, str(notes), "--state", str(kept)).returncode == 2
    assert kept.exists()


def test_an_output_that_is_a_link_to_a_file_stays_one(batch: Batch, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.jsonl"
    batch.output.symlink_to(target)
    assert batch.run().returncode == 0
    batch.write(range(2), temperature=0.5)
    assert batch.run("--accept-changed").returncode == 0
    assert batch.output.is_symlink()
    assert batch.rows() == [row for row in batch.rows() if row["response"]["status_code"] == 200]
    assert len(target.read_text().splitlines()) == 2
    batch.assert_complete()


def test_failed_items_say_why_and_where_the_reasons_are(batch: Batch, server: OracleServer) -> None:
    batch.write(range(5))
    faults = {0: "no", 1: "never \x1b[31mthis\nnor that", 2: "never \x1b[31mthis\nnor that"}
    server.enqueue(
        *(
            Script(fault=Fault("http", status=400, message=said), match=prompt(n, 5))
            for n, said in faults.items()
        )
    )
    done = batch.run("--canary", "0", "--concurrency", "1")
    assert done.returncode == 8
    _, summary, why, hint = done.errors.splitlines()
    assert summary == "batch: 2 of 5 complete, 3 failed"
    assert why.startswith("llmctl: 2 of 3 items that failed: ")
    assert "never [31mthis nor that" in why
    assert hint.startswith("hint: ")
    assert str(batch.errors_file) in hint
    again = batch.run()  # what was refused is left alone, and said again
    assert again.returncode == 8
    assert again.errors.splitlines()[-2:] == [why, hint]
    done = batch.run("--retry-failed")
    assert done.returncode == 0
    assert "hint" not in done.errors


def test_one_failed_item_is_one_item(batch: Batch, server: OracleServer) -> None:
    batch.write([0])
    server.enqueue(Script(fault=Fault("http", status=400, message="no"), match=prompt(0, 5)))
    done = batch.run()
    assert done.returncode == 8
    assert done.errors.splitlines()[0] == "batch: 1 item"
    assert "llmctl: 1 item failed: " in done.errors
    said = batch.run("--json").text.splitlines()[-1]
    assert '"errors_file"' in said
    assert '"reason"' in said
