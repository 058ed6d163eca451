"""kill -9 at random moments, full disks, and who may read what is kept."""

from __future__ import annotations

import json
import os
import random
import resource
import shlex
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmctl.journal import read, sealed
from llmctl.replies import content_of
from tests.e2e.conftest import Program, checked, told
from tests.support.processes import HAS_PROC, Finished
from tests.support.read_only import can_be_read_only, read_only

pytestmark = pytest.mark.slow

WORDS = [f"word{n}" + ("\n" if n % 9 == 0 else " ") for n in range(400)]
TEXT = "".join(WORDS)
VERSION_1 = Path(__file__).parents[1] / "llmctl" / "data" / "version1" / "store.sql"


def journal_of(program: Program) -> Path:
    (path,) = (program.cli.data / "journals").glob("*.jsonl")
    return path


def pieces(rng: random.Random) -> list[dict[str, Any]]:
    """Cut the words into chunks of one to five, some of them late."""
    chunks, left = [], list(WORDS)
    while left:
        size = rng.randint(1, 5)
        delay = rng.choice([0.0, 0.0, 0.001, 0.004])
        chunks.append({"text": "".join(left[:size]), "delay_s": delay})
        del left[:size]
    return chunks


def killed_once(program: Program, seed: int) -> None:
    """Kill at a random byte of the output; check what is kept, and what follows."""
    rng = random.Random(seed)  # noqa: S311  (moments, no secrets)
    chunks = pieces(rng)
    model = program.script(chunks=chunks, faults=[{"kind": "stall", "after": len(chunks)}])
    form = rng.choice([(), ("--json",)])
    size = rng.randint(1, len(TEXT) - 1) * (4 if form else 1)
    size += 400 if form else 0  # behind the first event, so that a resume is one
    words = ("run", "-m", model, *form, "hi")
    with program.start(*words, kill_at=size) as process:
        done = process.wait()
    assert done.returncode == -signal.SIGKILL
    out = shown(done.text, json_form=bool(form))
    _, recorded = read(journal_of(program))
    received = "".join(chunk.text for chunk in recorded.chunks)
    kept = content_of(recorded)[0]
    assert received.startswith(out)
    assert out.startswith(kept)
    if HAS_PROC:
        program.cli.assert_no_leftovers()
    rest = program.run("resume")
    assert rest.returncode == 0, rest.errors
    assert "was killed" in rest.errors
    assert kept + rest.text == TEXT
    assert len(out) - len(kept) <= 1024  # one write, and no more, may be printed again
    assert not list((program.cli.data / "journals").glob("*.jsonl"))


def shown(text: str, *, json_form: bool) -> str:
    if not json_form:
        return text
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return "".join(line["text"] for line in lines if line["type"] == "delta")


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_random_moment(program: Program, seed: int) -> None:
    killed_once(program, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_at_200_random_moments(program: Program, seed: int) -> None:
    killed_once(program, seed)


def test_killed_again_and_again(program: Program) -> None:
    """Each process is killed in its turn; at the end the reply is whole, and --full is exact."""
    rng = random.Random(7)  # noqa: S311  (moments, no secrets)
    model = program.script(chunks=pieces(rng))
    words: tuple[str, ...] = ("run", "-m", model, "hi")
    for _ in range(3):
        with program.start(*words, kill_at=500) as process:
            assert process.wait().returncode == -signal.SIGKILL
        words = ("resume",)
    done = program.run("resume", "--full")
    assert (done.returncode, done.text) == (0, TEXT)


@pytest.mark.parametrize("late", ["a kill", "a kill behind the text", "a time limit"])
def test_a_stop_marker_that_acted_ended_the_reply_whatever_came_before_the_end_was_told(
    program: Program, late: str
) -> None:
    """Made of a paused reply: its marker is one that stops, and the process ended otherwise."""
    model = program.script(chunks=["one ", "!!M", " two"])
    assert program.run("run", "-m", model, "--marker", "!!M", "hi").returncode == 5
    records = [json.loads(line) for line in journal_of(program).read_text().splitlines()]
    kept = []
    for record in records:
        del record["crc"]
        match record["type"]:
            case "header":
                record["markers"] = {"!!M": "stop"}
            case "marker":
                record["action"] = "stop"
            case "ended":
                record["end"] = "TOTAL_TIMEOUT"
            case "paused":
                continue
            case "delivered" if late == "a kill":  # by another thread: before the marker, or after
                continue
        kept.append(record)
    if late != "a time limit":
        kept = kept[: [record["type"] for record in kept].index("marker") + 1]
    if late == "a kill behind the text":
        told = {"chars": 4, "model": 4, "reasoning": 0, "tokens": 1, "counted": 4, "exact": True}
        kept.append({"type": "delivered", **told})
    journal_of(program).write_bytes(b"".join(map(sealed, kept)))
    done = program.told("resume")
    done.ended("complete", "marker", 0, resumable=False)
    assert done.text == ("one " if late == "a kill" else "")
    (row,) = json.loads(program.run("conversations", "list", "--json").text)
    shown = program.run("conversations", "export", row["id"], "--format", "json").text
    assert json.loads(shown)["messages"][-1]["content"] == "one "


def test_a_reader_that_left_gets_the_rest_or_all(program: Program) -> None:
    command = shlex.join(program.cli.command("run", "-m", program.script(text=TEXT * 20), "hi"))
    script = f"{command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=program.cli.env,
        cwd=program.cli.cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    assert done.stdout == b"word0\n141\n"
    assert done.stderr == b""
    whole = program.run("resume", "--full")
    assert whole.text == TEXT * 20


def with_small_files(
    program: Program, size: int, *words: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program where no file may be larger than so many bytes."""
    return subprocess.run(
        program.cli.command(*words),
        env={**program.cli.env, "PYTHONDONTWRITEBYTECODE": "1"},  # half a module would stay
        cwd=program.cli.cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_full_disk_costs_durability_and_nothing_else(program: Program) -> None:
    model = program.script(text=TEXT * 10)
    done = with_small_files(program, 150_000, "run", "-m", model, "hi")
    assert done.returncode == 0
    assert done.stdout.decode() == TEXT * 10
    said = done.stderr.decode()
    assert said.count("no longer being saved") == 1
    assert "Traceback" not in said
    again = program.run("resume", "--full")
    assert (again.returncode, again.text) == (0, TEXT * 10)


def test_what_was_not_saved_is_not_said_to_be_kept(program: Program) -> None:
    model = program.script(text=TEXT, delay_s=0.01)
    done = with_small_files(program, 3_000, "run", "-m", model, "--timeout", "1s", "hi")
    assert done.returncode == 124
    (row,) = json.loads(program.run("resume", "--list", "--json").text)
    *_, sentence, hint = done.stderr.decode().splitlines()
    assert sentence == "llmctl: The total time limit was reached."
    assert hint == f"hint: What was saved of it goes on with 'llmctl resume {row['generation']}'."
    rest = program.run("resume")
    assert rest.text == TEXT[row["position"]["chars"] :]
    assert "was killed, or could not save it" in rest.errors


def test_no_room_at_all(program: Program) -> None:
    """Not even the first record fits."""
    done = with_small_files(program, 0, "run", "-m", program.script("one two"), "hi")
    assert (done.returncode, done.stdout) == (0, b"one two")
    assert b"no longer being saved" in done.stderr
    assert program.run("conversations", "list").text == ""
    words = ("run", "-m", program.script("one two"), "--pause-after", "1", "--json", "hi")
    done = with_small_files(program, 0, *words)
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["resumable"]) == (5, False)
    assert b"resume" not in done.stderr
    assert list((program.cli.data / "journals").glob("*.jsonl")) == []


@pytest.mark.parametrize("umask", ["000", "077", "022", "777"])
def test_only_the_owner_reads_what_is_kept(program: Program, umask: str) -> None:
    wrap = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
    model = program.script("one two three")
    with program.start("run", "-m", model, "hi", wrap=wrap) as process:
        assert checked(process.wait()).returncode == 0
    words = ("run", "-m", model, "--pause-after", "1", "--json", "hi")
    with program.start(*words, wrap=wrap) as process:
        assert told(process.wait()).end["status"] == "paused"
    for path in (program.cli.data, *program.cli.data.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


Reading = Callable[..., Finished]


@pytest.fixture
def reading(program: Program) -> Reading:
    """Run the program, whose home can only be read."""
    if not can_be_read_only(program.cli.home):
        pytest.skip("no mount can be made read-only here")

    def run(*words: str) -> Finished:
        with program.start(*words, wrap=read_only(program.cli.home)) as process:
            return checked(process.wait())

    return run


def test_what_is_in_a_home_that_can_only_be_read_is_read(
    program: Program, reading: Reading
) -> None:
    model = program.script("one two three")
    program.run("run", "-m", model, "the question")
    half = program.told("run", "-m", model, "--pause-after", "1", "unfinished thing").events[0]
    for words, line in (
        (("conversations", "list"), "the question"),
        (("conversations", "search", "three"), "one two three"),
        (("conversations", "search", "thing"), "unfinished thing"),
        (("resume", "--list"), half["generation"]),
        (("top",), "nothing runs"),
    ):
        done = reading(*words)
        assert (done.returncode, line in done.text) == (0, True), done.errors
    more = reading("run", "-c", "--keep", "-m", model, "more")
    assert (more.returncode, more.text) == (1, "")  # it can't be kept
    more = reading("run", "-m", model, "more")
    assert (more.returncode, more.text) == (0, "one two three")
    assert "no longer being saved: Read-only file system." in more.errors
    done = reading("conversations", "delete", half["conversation"])
    assert (done.returncode, "Read-only file system" in done.errors) == (1, True)
    done = reading("config", "set", "model", "x")  # it names the file that it would replace
    assert f"{program.cli.data}/config.toml: Read-only file system." in done.errors


def test_an_older_store_that_can_only_be_read_is_read(program: Program, reading: Reading) -> None:
    program.cli.data.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(program.cli.data / "conversations.db")) as db:
        db.executescript(VERSION_1.read_text())
    for _ in range(2):
        done = reading("conversations", "search", "answer")
        assert (done.returncode, "an answer" in done.text) == (0, True), done.errors


def test_a_home_that_is_new_and_can_only_be_read(program: Program, reading: Reading) -> None:
    model = program.script("one two")
    done = reading("run", "-m", model, "hi")
    assert (done.returncode, done.text) == (0, "one two")
    assert "no longer being saved: Read-only file system." in done.errors
    for words in (("conversations", "list"), ("resume", "--list")):
        done = reading(*words)
        assert (done.returncode, done.text, done.errors) == (0, "", "")
