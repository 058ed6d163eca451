"""The object that a server would have sent unstreamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.backends.fold import Fold
from llmctl.backends.row_reader import ResponsesRowReader, RowReader
from llmctl.backends.token_counts import TokenCounter

HEAD = {"id": "c-1", "created": 5, "model": "m", "object": "chat.completion.chunk"}


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return json.dumps({**HEAD, "choices": [choice]})


def read(*events: str, choices: int = 1) -> tuple[RowReader, str]:
    reader = RowReader(TokenCounter(), choices=choices)
    text = []
    for event in events:
        quick = reader.quick(event)
        text.append(quick if quick is not None else "".join(c.text for c in reader.read(event)))
    return reader, "".join(text)


def body(reader: RowReader, text: str, **more: Any) -> dict[str, Any]:
    finish = reader.finish_reason or "stop"
    return reader.fold.body(text, "", finish, more.get("usage"), api="chat")


def test_plain_text() -> None:
    reader, text = read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        "[DONE]",
    )
    assert reader.done
    made = body(reader, text)
    message = {"role": "assistant", "content": "Hello"}
    assert made["choices"] == [
        {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    ]
    assert (made["id"], made["object"]) == ("c-1", "chat.completion")


def test_tool_calls_and_log_probabilities() -> None:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    reader, text = read(
        chunk({"role": "assistant", "content": None, "tool_calls": [call]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        chunk({"content": ""}, logprobs={"content": [{"token": "x"}]}),
        chunk({}, "tool_calls", logprobs={"content": [{"token": "y"}]}),
    )
    (choice,) = body(reader, text)["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }
    assert choice["finish_reason"] == "tool_calls"
    assert choice["logprobs"] == {"content": [{"token": "x"}, {"token": "y"}]}


def test_several_choices_end_when_all_have() -> None:
    reader, text = read(
        chunk({"role": "assistant", "content": "a"}),
        chunk({"role": "assistant", "content": "b"}, index=1),
        chunk({"content": "a"}, "stop"),
        choices=2,
    )
    assert not reader.ended
    reader.read(chunk({"content": "b"}, "length", index=1))
    assert reader.ended
    choices = body(reader, text)["choices"]
    assert [c["message"]["content"] for c in choices] == ["aa", "bb"]
    assert [c["finish_reason"] for c in choices] == ["stop", "length"]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_called_what_the_server_calls_it(name: str) -> None:
    head = chunk({"role": "assistant", "content": ""})
    reader, _ = read(head, chunk({name: "Hm"}), chunk({"content": "x"}), chunk({}, "stop"))
    again = Fold.from_json(json.loads(json.dumps(reader.fold.as_json())))
    for fold in (reader.fold, again):
        (choice,) = fold.body("x", "Hm", "stop", None, api="chat")["choices"]
        assert choice["message"] == {"role": "assistant", "content": "x", name: "Hm"}


def test_a_refusal_is_no_content() -> None:
    reader, text = read(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I"}),
        chunk({"refusal": " won't"}),
        chunk({}, "stop"),
    )
    (choice,) = body(reader, text)["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "I won't"}


@pytest.mark.parametrize(
    "event",
    [
        chunk({"content": "x"}, logprobs={"content": []}),
        chunk({"content": "x", "refusal": None}),
        chunk({"content": "x"}, token_ids=[1]),
        chunk({"reasoning_content": "x"}),
        chunk({"content": "x"}, "stop"),
        '{"error": {"message": "x"}}',
        "[DONE]",
        "{",
    ],
)
def test_what_is_not_plain_takes_the_long_way(event: str) -> None:
    assert RowReader(TokenCounter()).quick(event) is None


def test_half_a_character_ends_the_quick_way() -> None:
    high, low = '"\\ud83d"', '"\\ude00"'
    event = chunk({"content": "X"})
    _, text = read(event.replace('"X"', high), event.replace('"X"', low), event)
    assert text == "😀X"


def test_json_keeps_it() -> None:
    reader, text = read(
        chunk({"role": "assistant", "content": "a", "refusal": None}), chunk({}, "stop")
    )
    again = Fold.from_json(json.loads(json.dumps(reader.fold.as_json())))
    assert again.body(text, "", "stop", None, api="chat") == body(reader, text)


def test_responses() -> None:
    reader = ResponsesRowReader()
    (piece,) = reader.read(json.dumps({"type": "response.output_text.delta", "delta": "Hi"}))
    assert piece.text == "Hi"
    response = {"id": "r", "output": [1], "usage": {"input_tokens": 3, "output_tokens": 1}}
    assert not reader.read(json.dumps({"type": "response.completed", "response": response}))
    assert (reader.done, reader.finish_reason) == (True, "stop")
    assert reader.usage is not None
    assert reader.usage.prompt_tokens == 3
    whole = reader.fold.body("Hi", "", "stop", response["usage"], api="responses")
    assert whole == response
