"""Which reply is meant, and how exactly it goes on."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.conftest import Program, told
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature, Prefill

pytestmark = pytest.mark.slow

WORDS = "one two three four five six"
KEY = "sk-secret-0123456789abcdef"


def paused(program: Program, *more: str) -> dict[str, Any]:
    """Leave a reply unfinished; return its first event."""
    done = program.told("run", "-m", program.script(WORDS), "--pause-after", "2", *more, "hi")
    assert done.end["status"] == "paused"
    return done.events[0]


def test_ids(program: Program) -> None:
    old, new = paused(program), paused(program)
    assert program.told("resume", "--pause-after", "1").end["generation"] == new["generation"]
    for name in (old["conversation"], old["generation"][:9], old["generation"]):
        done = program.told("resume", name, "--pause-after", "1")
        assert done.end["generation"] == old["generation"]
    for wrong, words in (("nothing", "Nothing has the id"), ("g", "stands for 2 ids")):
        done_wrong = program.run("resume", wrong, "--json")
        assert (done_wrong.returncode, done_wrong.text) == (2, "")
        assert words in done_wrong.errors
    # The old one was the last to be active.
    rest = program.told("resume")
    assert rest.end["generation"] == old["generation"]
    assert rest.text == " six"


def test_complete_is_nothing_to_do(program: Program) -> None:
    assert program.run("resume").returncode == 2
    first = program.told("run", "-m", program.script(WORDS), "hi")
    name = first.end["generation"]
    assert program.run("resume").returncode == 2
    done = program.run("resume", name)
    assert (done.returncode, done.text, done.errors) == (0, "", "")
    assert program.run("resume", name, "--full").text == WORDS
    again = program.told("resume", name, "--full")
    again.ended("complete", "end", 0, resumable=False)
    assert again.text == WORDS


def test_live_elsewhere_names_the_process(program: Program) -> None:
    model = program.script(WORDS, faults=[{"kind": "stall", "after": 2}])
    with program.start("run", "-m", model, "--json", "hi") as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b" two", 20)
        started = json.loads(process.stdout.data.splitlines()[0])
        done = program.run("resume", started["generation"])
        assert done.returncode == 2
        assert f"pid {process.pid}" in done.errors
        second = program.run("run", "-m", model, "-c", "again")
        assert second.returncode == 2
        assert f"pid {process.pid}" in second.errors
        assert program.run("resume").returncode == 2
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert program.run("resume", started["conversation"]).text == WORDS.removeprefix("one two")


def test_going_on_with_a_conversation_whose_reply_is_unfinished(program: Program) -> None:
    first = paused(program)
    model = program.script("ok")
    refused = program.run("run", "-m", model, "-c", "--json", "again")
    assert (refused.returncode, refused.text) == (2, "")
    assert "--keep" in refused.errors
    program.told("run", "-m", model, "-c", "--keep", "again").ended(
        "complete", "end", 0, resumable=False
    )
    said = messages(program, first["conversation"])
    assert [m["content"] for m in said] == ["hi", "one two", "again", "ok"]
    gone = program.run("resume", first["generation"])
    assert gone.returncode == 2
    words = re.search(r"llmctl (conversations fork \w+)", gone.errors)
    assert words is not None
    branch = program.run(*words[1].split()).text.strip()
    rest = program.run("resume", branch)
    assert rest.text == WORDS.removeprefix("one two")
    assert "(prefix, text)" in rest.errors
    assert [m["content"] for m in messages(program, branch)] == ["hi", WORDS]
    drawing = program.run("conversations", "show", "--tree", branch).text
    assert drawing.splitlines()[0] == "1 user: hi"

    second = paused(program)
    dropped = ("run", "-m", model, "--conversation", second["conversation"], "--drop", "again")
    assert program.run(*dropped).text == "ok"
    assert [m["content"] for m in messages(program, second["conversation"])] == ["again", "ok"]


def test_a_conversation_stands_for_its_last_reply_and_an_id_for_that_of_any_branch(
    program: Program,
) -> None:
    first = program.told("run", "-m", program.script("one two"), "hi").events[0]
    name = first["conversation"]
    done = program.run("resume", name)
    assert (done.returncode, done.text) == (0, "")
    assert program.run("resume", name[:6], "--full").text == "one two"
    program.run("run", "-m", program.script("three"), "--conversation", name, "more")
    assert program.run("resume", name, "--full").text == "three"
    assert program.run("resume", first["generation"], "--full").text == "one two"


def messages(program: Program, conversation: str) -> list[dict[str, Any]]:
    shown = program.run("conversations", "export", "--format", "json", conversation).text
    said: list[dict[str, Any]] = json.loads(shown)["messages"]
    return said


def test_conversations_show_what_is_unfinished_and_delete_it(program: Program) -> None:
    first = paused(program)
    assert "(unfinished)" in program.run("conversations", "list").text
    asked, answer = messages(program, first["conversation"])
    assert (asked["content"], answer["content"]) == ("hi", "one two")
    assert (answer["status"], answer["cause"], answer["tokens"]) == ("paused", "limit", 2)
    shown = program.run("conversations", "show", first["conversation"][:8]).text
    assert "## assistant (paused: limit, at 2 tok)\n\none two\n" in shown
    assert program.run("conversations", "delete", first["conversation"]).returncode == 0
    assert program.run("conversations", "list").text == ""
    assert program.run("resume", first["generation"]).returncode == 2
    assert not list((program.cli.data / "journals").glob("*.jsonl"))


def test_what_is_old_is_listed_and_then_deleted(program: Program) -> None:
    old, new = (
        program.told("run", "-m", program.script(WORDS), "hi").events[0]["conversation"]
        for _ in range(2)
    )
    with closing(sqlite3.connect(program.cli.data / "conversations.db")) as store, store:
        store.execute("UPDATE conversation SET updated = updated - 7200 WHERE id = ?", [old])

    def listed(*more: str) -> list[str]:
        rows = json.loads(program.run("conversations", "list", "--json", *more).text)
        return [row["id"] for row in rows]

    assert listed("--older-than", "1h") == [old]
    assert program.run("conversations", "delete", "--older-than", "1h").returncode == 0
    assert listed() == [new]


def test_nothing_had_come_yet(program: Program) -> None:
    model = program.script(WORDS, faults=[{"kind": "stall", "after": 0}])
    first = program.told("run", "-m", model, "--first-token-timeout", "200ms", "hi")
    assert (first.text, first.end["position"]) == ("", {"chars": 0, "tokens": 0})
    path = program.cli.cwd / model.removeprefix("scripted:")
    path.write_text(json.dumps({"text": WORDS}))
    assert program.told("resume").text == WORDS


# Servers.


def profile(program: Program, server: OracleServer, preset: str) -> str:
    """Configure the server under a name, as one of a known kind; return the model's name."""
    program.cli.data.mkdir(mode=0o700, exist_ok=True)
    (program.cli.data / "config.toml").write_text(
        f'[profiles.here]\npreset = "{preset}"\nbase_url = "{server.base_url}"\n'
        'api_key_env = "HERE_KEY"\n'
    )
    return "here/oracle"


@pytest.fixture
def vllm() -> Iterator[OracleServer]:
    features = tuple(set(Feature) - {Feature.TIMINGS})
    settings = Settings(
        length=40, prefill=Prefill.CONTINUE_FINAL_MESSAGE, features=features, api_key=KEY
    )
    with OracleServer(settings) as running:
        yield running


def test_a_lost_connection_is_mended_and_never_printed_twice(
    program: Program, vllm: OracleServer
) -> None:
    model = profile(program, vllm, "vllm")
    vllm.enqueue(Script(fault=Fault("cut", after_tokens=12)))
    vllm.enqueue(Script(fault=Fault("cut", after_tokens=9, reset=True)))
    done = program.told("run", "-m", model, "hi", env={"HERE_KEY": KEY})
    done.ended("complete", "end", 0, resumable=False)
    assert done.text == vllm.expected("hi")
    ways = {(e["strategy"], e["guarantee"]) for e in done.of("resumed")}
    assert len(done.of("resumed")) == len(done.of("retrying")) == 2
    assert ways <= {("prefix", "text"), ("tokens", "token")}


def test_the_key_is_nowhere(program: Program, vllm: OracleServer) -> None:
    model = profile(program, vllm, "vllm")
    vllm.enqueue(Script(fault=Fault("http", status=401, message=f"Bad key {KEY}.")))
    vllm.enqueue(Script(length=9))
    key = {"HERE_KEY": KEY}
    runs = [program.cli.run("--verbose", "run", "-m", model, "hi", env=key) for _ in range(2)]
    assert [done.returncode for done in runs] == [3, 0]
    for done in runs:
        assert KEY.encode() not in done.stdout + done.stderr
    for path in program.cli.home.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_refused_resume_keeps_the_reply(program: Program, vllm: OracleServer) -> None:
    model = profile(program, vllm, "vllm")
    key = {"HERE_KEY": KEY}
    vllm.enqueue(Script(hold_at=10))
    with program.start("run", "-m", model, "--json", "hi", env=key) as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b'"delta"', 20)
        process.send_signal(signal.SIGINT)
        first = told(process.wait())
    wrong = program.told("resume", env={"HERE_KEY": "wrong"})
    wrong.ended("failed", "refused", 3, resumable=True)
    rest = program.told("resume", env=key)
    rest.ended("complete", "end", 0, resumable=False)
    assert first.text + rest.text == vllm.expected("hi")


def test_the_bound_holds_over_a_resume(program: Program, vllm: OracleServer) -> None:
    model = profile(program, vllm, "vllm")
    key = {"HERE_KEY": KEY}
    words = ("run", "-m", model, "--max-tokens", "20", "--pause-after", "8", "hi")
    vllm.enqueue(Script(hold_at=9))
    first = program.told(*words, env=key)
    rest = program.told("resume", env=key)
    assert rest.end["cause"] == "token-limit"
    assert vllm.expected("hi").startswith(first.text + rest.text)
    tokens = rest.end["position"]["tokens"]
    assert 19 <= tokens <= 20  # a blank that was cut off the prefix is written again
    assert vllm.requests[-1].body["max_tokens"] <= 12


def test_an_unknown_server_keeps_everything_and_says_what_it_can(program: Program) -> None:
    with OracleServer(Settings(length=40, prefill=Prefill.IGNORED)) as server:
        server.enqueue(Script(fault=Fault("cut", after_tokens=12)))
        words = ("run", "--base-url", server.base_url, "-m", "oracle", "hi")
        first = program.told(*words)
        first.ended("interrupted", "disconnect", 4, resumable=True)
        assert server.expected("hi").startswith(first.text)
        assert first.text
        below = program.told("resume")
        below.ended("failed", "below-require", 7, resumable=True)
        assert "--require best-effort" in below.done.errors
        asked = [request.body["messages"][0]["content"] for request in server.requests]
        assert asked.count("hi") == 1  # nothing was paid for twice
        server.enqueue(Script(text="and so it went on"))
        rest = program.told("resume", "--require", "best-effort")
        rest.ended("complete", "end", 0, resumable=False)
        (resumed,) = rest.of("resumed")
        assert (resumed["strategy"], resumed["guarantee"]) == ("instruct", "best-effort")
        assert resumed["position"] == first.end["position"]
        assert rest.text == "and so it went on"
        assert "best-effort" in rest.done.errors


def test_a_server_that_is_busy_is_asked_again(program: Program) -> None:
    with OracleServer(Settings(length=5)) as server:
        server.enqueue(Script(fault=Fault("http", status=503, retry_after="0.1")))
        done = program.told("run", "--base-url", server.base_url, "-m", "oracle", "hi")
        done.ended("complete", "end", 0, resumable=False)
        assert [e["delay_s"] for e in done.of("retrying")] == [0.1]
        assert done.text == server.expected("hi")
