"""What is asked with: files, schemas, further fields; and what of it is no good is said first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import main
from tests.support.fake_environment import fake_environment
from tests.support.oracle_schema import satisfies
from tests.support.oracle_server import OracleServer, Settings

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}}


def call(folder: Path, *words: str) -> tuple[int, str, str]:
    """Run a command in this process; return its status, stdout and stderr."""
    with fake_environment(folder) as fake:
        return main(words, fake.env), fake.out, fake.err


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "broken.json").write_text('{"type":')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "odd.json").write_text('{"type": ["object", "objekt"]}')
    (tmp_path / "notes.txt").write_text("the note\n")
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7\n\0")
    (tmp_path / "script.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--schema nope.json", "nope.json can't be read: No such file or directory."),
        ("--schema broken.json", "broken.json can't be read: line 1 is not JSON"),
        ("--schema notes.txt", "notes.txt can't be read: line 1 is not JSON"),
        ("--schema list.json", "list.json is not a JSON object."),
        ("--schema odd.json", "odd.json has a type that is none: objekt."),
        ("--attach nope", "nope can't be attached: No such file or directory."),
        ("--attach .", ". can't be attached: Is a directory."),
        ("--attach paper.pdf", "paper.pdf can't be attached: it is a PDF document."),
        ("--option x", "--option takes KEY=VALUE, not 'x'."),
        ("--stop=", "--stop needs a text."),
        ("--temperature inf", "--temperature must be a number of 0 or more, not inf."),
        ("--option =1", "--option takes KEY=VALUE, not '=1'."),
        ("-V a=b", "-V needs a template."),
        ("-t nosuch", "There is no template 'nosuch'."),
        ("-t translate", "needs the variable 'language'."),
        ("-t translate -V langage=de", "has no variable 'langage'."),
        ("--marker =stop", "A marker can't be empty."),
        ("--marker A --no-markers", "--marker and --no-markers exclude each other."),
        ("--extract --json", "--json and --extract exclude each other."),
        ("--conversation cnone", "Nothing has the id 'cnone'."),
        ("--keep", "--keep and --drop are for the last reply of a conversation."),
    ],
)
def test_bad_input_is_one_sentence_one_hint_and_2(files: Path, words: str, sentence: str) -> None:
    status, out, told = call(files, "run", "-m", "scripted:script.txt", "-n", "hi", *words.split())
    first, *more = told.splitlines()
    assert (status, out) == (2, "")
    assert first.startswith("llmctl: ")
    assert sentence in first
    assert [line.startswith("hint: ") for line in more] == [True], told


def test_what_was_asked_for_is_what_the_server_gets(files: Path) -> None:
    with OracleServer(Settings(strict=False)) as server:
        status, out, told = call(
            files, "run", "--base-url", f"{server.url}/v1", "--api", "chat", "-m", "oracle", "-n",
            "fill it in", "--schema", "schema.json", "--attach", "notes.txt",
            "--option", "top_k=40", "--option", "user=me", "--no-store",
        )  # fmt: skip
        body = server.requests[-1].body
    assert (status, told) == (0, "")
    assert satisfies(out, SCHEMA)
    assert body["messages"] == [
        {
            "role": "user",
            "content": 'fill it in\n\n<file name="notes.txt">\nthe note\n\n</file>',
        }
    ]
    assert (body["top_k"], body["user"]) == (40, "me")
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("words", "sent"), [((), ["configured"]), (("-s", "said"), ["said"]), (("-s", ""), [])]
)
def test_a_system_message_that_is_empty_is_none(
    files: Path, words: tuple[str, ...], sent: list[str]
) -> None:
    call(files, "config", "set", "system", "configured")
    with OracleServer(Settings(strict=False)) as server:
        place = ("--base-url", f"{server.url}/v1", "--api", "chat", "-m", "oracle")
        assert call(files, "run", *place, "-n", "hello length=1", *words)[0] == 0
        messages = server.requests[-1].body["messages"]
    assert [each["content"] for each in messages if each["role"] == "system"] == sent


def test_a_batch_asks_with_the_same(files: Path) -> None:
    (files / "in.txt").write_text("first\nsecond\n")
    with OracleServer(Settings(strict=False)) as server:
        status, _, told = call(
            files, "batch", "in.txt", "-o", "out.jsonl", "--base-url", f"{server.url}/v1",
            "--api", "chat", "-m", "oracle", "--schema", "schema.json", "--attach", "notes.txt",
            "--option", "top_k=40", "--concurrency", "1",
        )  # fmt: skip
        bodies = [record.body for record in server.requests if "messages" in (record.body or {})]
    assert status == 0, told
    assert len(bodies) >= 2
    for body in bodies:
        assert body["messages"][-1]["content"].endswith(
            '\n\n<file name="notes.txt">\nthe note\n\n</file>'
        )
        assert body["top_k"] == 40
    for line in (files / "out.jsonl").read_text().splitlines():
        choice = json.loads(line)["response"]["body"]["choices"][0]
        assert satisfies(choice["message"]["content"], SCHEMA)


def test_a_template_that_asks_by_itself_needs_no_words(files: Path) -> None:
    (files / "script.txt").write_text("a summary")
    status, out, _ = call(files, "run", "-m", "scripted:script.txt", "-n", "-t", "summary")
    assert (status, out) == (0, "a summary")
    status, _, told = call(files, "run", "-m", "scripted:script.txt", "-n", "-t", "commit")
    assert status == 2
    assert "There is no prompt." in told
