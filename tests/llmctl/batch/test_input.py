"""Lines, shards, rows and what identifies them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.batch.forms import Recipe, row_of
from llmctl.batch.job import Job
from llmctl.batch.lines import LONGEST_LINE, BadLine, InputLines, Line, Shard
from llmctl.batch.row import Path as To
from llmctl.batch.row import Row
from llmctl.conversation import Options
from llmctl.errors import UsageError
from llmctl.templates import Template

RECIPE = Recipe(model="m")


def row(data: dict[str, Any] | str, recipe: Recipe = RECIPE) -> Row:
    is_json = not isinstance(data, str)
    text = json.dumps(data) if is_json else data
    return row_of(Line(7, str(text).encode()), recipe, is_json=is_json)


WHOLE = Shard()


def lines(path: Path, shard: Shard = WHOLE) -> list[tuple[int, bytes | None]]:
    return [(line.number, line.data) for line in InputLines(path, shard)]


def test_line_ends_blank_lines_and_a_bom(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\n  \nb\nlast")
    assert lines(path) == [(1, b"a"), (4, b"b"), (5, b"last")]


@pytest.mark.parametrize("count", range(1, 12))
def test_shards_have_every_line_once(tmp_path: Path, count: int) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"".join(b"x" * (n % 5) + b"\n" for n in range(40)) + b"end")
    parts = [lines(path, Shard(index, count)) for index in range(count)]
    assert [line for part in parts for line in part] == lines(path)


def test_a_file_that_grows_ends_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\n")
    source = InputLines(path)
    with path.open("ab") as file:
        file.write(b"b\n")
    assert [line.data for line in source] == [b"a"]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"x" * (LONGEST_LINE + 1) + b"\nok\n")
    first, second = InputLines(path)
    with pytest.raises(BadLine, match="longer than 64 MiB"):
        _ = first.text
    assert second.text == "ok"


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/2", "a/b", "1/0"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)


def test_what_the_row_says_wins() -> None:
    recipe = Recipe(
        model="m", system="be brief", options=Options(temperature=1.0, max_tokens=9, stop=("x",))
    )
    made = row({"id": 5, "prompt": "hi", "temperature": 0, "metadata": [1]}, recipe)
    assert made.id == "5"
    assert made.metadata == [1]
    assert made.body == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
        ],
        "temperature": 0,
        "max_tokens": 9,
        "stop": ["x"],
        "model": "m",
    }


def test_openai_lines_are_kept_as_they_are() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}], "n": 2}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    made = row(line)
    assert made.body == body
    assert made.is_exact_only


def openai(path: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": f"/v1/{path}", "body": body}


def said(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


def test_a_system_message_for_every_form_that_has_none() -> None:
    brief, own = said("be brief", "system"), said("own", "developer")
    recipe = Recipe(model="m", system="be brief")

    def words(data: dict[str, Any], name: str) -> Any:
        return row(data, recipe).body[name]

    assert words(openai("chat/completions", messages=[said("hi")]), "messages") == [
        brief,
        said("hi"),
    ]
    assert words(openai("chat/completions", messages=[own, said("hi")]), "messages")[0] == own
    assert words({"id": 1, "messages": [said("hi")]}, "messages")[0] == brief
    assert words({"id": 1, "prompt": "hi", "system": None}, "messages") == [said("hi")]
    assert words(openai("responses", input="hi"), "instructions") == "be brief"
    assert words(openai("responses", input="hi", instructions="own"), "instructions") == "own"
    assert words(openai("responses", input=[said("hi")]), "input") == [brief, said("hi")]
    with pytest.raises(BadLine, match="no place for a system message"):
        row(openai("completions", prompt="hi"), recipe)


def test_files_and_templates_are_put_around_the_prompt_of_every_form() -> None:
    template = Template(name="t", path=Path("t"), body="In {{to}}: {{prompt}}", role="user")
    recipe = Recipe(model="m", template=template, variables={"to": "French"}, attached=" +file")
    wanted = "In French: hi +file"
    parts = [{"type": "text", "text": "hi"}]
    chat = openai("chat/completions", messages=[said("x"), said("y", "assistant"), said("hi")])
    assert row(chat, recipe).body["messages"][2] == said(wanted)
    assert row(openai("completions", prompt="hi"), recipe).body["prompt"] == wanted
    assert row(openai("responses", input="hi"), recipe).body["input"] == wanted
    german = row({"id": 1, "prompt": "hi", "vars": {"to": "German"}}, recipe)
    assert german.body["messages"] == [said("In German: hi +file")]
    with pytest.raises(BadLine, match="no text of the user's"):
        row(openai("chat/completions", messages=[{"role": "user", "content": parts}]), recipe)
    with pytest.raises(BadLine, match="has no variable 'tone'"):
        row({"id": 1, "prompt": "hi", "vars": {"tone": "x"}}, recipe)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"prompt": "x", "max_tokens": "many"}, "'max_tokens' is not a number"),
        ({"prompt": "x", "max_tokens": 0}, "'max_tokens' is not a number"),
        ({"prompt": "x", "stop": 5}, "'stop' is not a text"),
        ({"prompt": 5}, "'prompt' is not a str"),
        ({"prompt": "x", "options": {"n": "two"}}, "'n' is not a number"),
        ({"prompt": "x", "temperature": "hot"}, "'temperature' is not a number"),
        ({"prompt": "x", "seed": 1.5}, "'seed' is not a whole number"),
        (openai("chat/completions", messages=[]), "no messages"),
        (openai("chat/completions", messages="x"), "not a list of messages"),
        (openai("chat/completions", messages=[5]), "not a list of messages"),
        (openai("chat/completions", messages=[said("x")], max_tokens={}), "'max_tokens' is not"),
        (openai("completions"), "no prompt"),
        (openai("responses", input="x", model=5), "'model' is not a text"),
    ],
)
def test_what_is_of_another_type_is_told(data: dict[str, Any], said: str) -> None:
    with pytest.raises(BadLine, match=said):
        row({"id": 1, **data} if "body" not in data else data)


def test_variables_need_a_template() -> None:
    job = Job(input=Path("in"), output=Path("out"), variables={"to": "French"})
    with pytest.raises(UsageError, match="-V needs a template"):
        job.check()


def test_a_template_that_asks_by_itself_needs_no_prompt() -> None:
    template = Template(name="t", path=Path("t"), body="Capital of {{of}}?", role="user")
    recipe = Recipe(model="m", template=template)
    assert row({"vars": {"of": "Peru"}}, recipe).body["messages"] == [said("Capital of Peru?")]
    with pytest.raises(BadLine, match="no 'prompt'"):
        row({"vars": {}})


def test_identity_is_the_effective_request() -> None:
    short = row({"id": "a", "prompt": "hi", "max_tokens": 3})
    same = row({"id": "a", "prompt": "hi"}, Recipe(model="m", options=Options(max_tokens=3)))
    renamed = row(
        {"id": "a", "prompt": "hi", "max_tokens": 3},
        Recipe(model="m", max_tokens_field="max_completion_tokens"),
    )
    assert short.digest == same.digest == renamed.digest
    assert row({"id": "a", "prompt": "ho", "max_tokens": 3}).digest != short.digest
    assert row({"id": "a", "prompt": "hi"}, Recipe(model="n")).digest != short.digest


def test_a_seed_of_its_own_does_not_change_what_a_row_is() -> None:
    made = row({"id": "a", "prompt": "hi"})
    seeded = made.with_seed(1)
    assert seeded.digest == made.digest
    assert seeded.body["seed"] == made.with_seed(1).body["seed"] != made.with_seed(2).body["seed"]
    assert row({"id": "a", "prompt": "hi", "seed": 4}).with_seed(1).body["seed"] == 4


def test_other_apis() -> None:
    completion = row("hi", Recipe(model="m", path=To.COMPLETIONS))
    assert completion.body == {"prompt": "hi", "model": "m"}
    response = row("hi", Recipe(model="m", path=To.RESPONSES, options=Options(max_tokens=4)))
    assert response.body["input"] == [{"role": "user", "content": "hi"}]
    assert response.body["max_output_tokens"] == 4


def test_a_request_keeps_what_no_noun_names() -> None:
    made = row({"id": "a", "prompt": "hi", "options": {"top_k": 4}, "stop": "x", "max_tokens": 3})
    request = made.as_request()
    assert request.options.extra == {"top_k": 4}
    assert (request.options.stop, request.options.max_tokens) == (("x",), 3)


def test_tools_and_odd_messages_are_not_for_the_engine() -> None:
    engine = Recipe(model="local", chat_only=True)
    assert row("hi", engine).body["model"] == "local"
    tool = {"role": "tool", "content": "x", "tool_call_id": "1"}
    for data in ({"messages": [tool]}, {"prompt": "x", "options": {"n": 2}}):
        with pytest.raises(BadLine, match="embedded engine"):
            row({"id": "a", **data}, engine)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id":"a","prompt":"x","temperature":NaN}', "not JSON (NaN is no number in JSON)"),
        ('{"id":"a","prompt":"x","options":{"k":-Infinity}}', "-Infinity is no number"),
        ('{"id":"a","prompt":"x","temperature":1e999}', "1e999 is too big"),
        ('{"id":"a","prompt":"x","prompt":"y"}', "'prompt' stands twice in one object"),
        (
            '{"custom_id":"a","url":"/v1/responses","body":{"input":"x","a":{"b":1,"b":1}}}',
            "'b' st",
        ),
        ('{"id":"","prompt":"x"}', "'id' is empty"),
        ('{"id":1.5,"prompt":"x"}', "'id' is not a text"),
        ('{"id":null,"prompt":"x"}', "no 'id'"),
        ('{"custom_id":"","url":"/v1/responses","body":{"input":"x"}}', "'custom_id' is empty"),
        ('{"url":"/v1/responses","body":{"input":"x"}}', "no 'custom_id'"),
    ],
)
def test_what_only_looks_like_a_row_is_told_as_it_is(line: str, said: str) -> None:
    with pytest.raises(BadLine) as raised:
        row_of(Line(1, line.encode()), RECIPE, is_json=True)
    assert said in str(raised.value)
