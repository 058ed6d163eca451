"""The pure parts of the embedded engine: its streams, requests, and state files."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.chat_reply import ErrorEvent
from llmctl.backends.engine import Engine, EngineSettings, default_threads
from llmctl.backends.engine_errors import check, refusal
from llmctl.backends.engine_reply import ChatReader, CompletionReader, Reader
from llmctl.backends.engine_request import (
    Prompt,
    by_ids,
    by_messages,
    is_greedy,
    must_be_parsed,
    sampler,
)
from llmctl.backends.engine_slot import KEPT_S, Slot, State
from llmctl.backends.processor import processor
from llmctl.conversation import Message, Options, Request
from llmctl.errors import ContextFull, Refused, StrategyUnavailable
from llmctl.events import Channel, Chunk, Usage


def timings(predicted: int, cached: int = 0) -> dict[str, int]:
    return {"cache_n": cached, "prompt_n": 10, "predicted_n": predicted}


def piece(text: str, ids: list[int], predicted: int) -> dict[str, Any]:
    return {"content": text, "tokens": ids, "stop": False, "timings": timings(predicted)}


def end(stop_type: str, predicted: int, text: str = "") -> dict[str, Any]:
    ended = {"stop": True, "stop_type": stop_type, "timings": timings(predicted, 3)}
    return {"content": text, "tokens": [], **ended}


def read(reader: Reader, *events: dict[str, Any]) -> list[Chunk]:
    return [chunk for event in events for chunk in reader.read(json.dumps(event))]


# -- /completion


def test_a_piece_is_told_with_its_token() -> None:
    reader = CompletionReader(5)
    assert reader.cached is None
    assert read(reader, piece("", [0], 0)) == []  # progress of the prompt
    assert reader.cached == 0
    assert read(reader, piece("Hi", [7], 1), piece(" 🦊", [8], 2)) == [
        Chunk("Hi", tokens=1, ends=(2,), ids=(7,)),
        Chunk(" 🦊", tokens=1, ends=(2,), ids=(8,)),
    ]
    assert not reader.ended
    assert read(reader, end("eos", 3)) == [
        Chunk(tokens=0, ids=(), finish_reason="stop", usage=Usage(13, 3, 16))
    ]
    assert reader.ended


def test_a_lost_id_makes_its_pieces_ids_unknown_and_no_count() -> None:
    chunks = read(
        CompletionReader(),
        piece("a", [1], 1),
        piece("🦊", [4], 4),
        piece("b", [5], 5),
        piece("x🦊", [8], 8),
        end("limit", 10),
    )
    assert [c.ids for c in chunks] == [(1,), None, (5,), None, ()]
    assert [c.tokens for c in chunks] == [1, 3, 1, 3, 0]
    assert [c.ends for c in chunks] == [(1,), (1, 1, 1), (1,), None, None]


def test_text_that_comes_with_the_end_was_held_back_and_its_tokens_are_unknown() -> None:
    last = read(CompletionReader(), end("word", 4, "half"))[0]
    assert (last.text, last.tokens, last.ids, last.finish_reason) == ("half", None, None, "stop")


@pytest.mark.parametrize(
    ("stop_type", "limit", "full"),
    [("limit", 8, False), ("limit", 9, True), ("limit", None, True), ("eos", None, False)],
)
def test_a_limit_before_the_one_asked_for_is_the_contexts(
    stop_type: str, limit: int | None, full: bool
) -> None:
    assert read(CompletionReader(limit), end(stop_type, 8))[0].context_full is full


def test_a_limit_is_the_contexts_where_the_server_says_so() -> None:
    ended = {**end("limit", 8), "truncated": True}
    assert read(CompletionReader(0), ended)[0].context_full
    assert not read(CompletionReader(0), {**ended, "truncated": False})[0].context_full


def test_an_error_in_the_stream_is_a_refusal() -> None:
    with pytest.raises(ErrorEvent) as found:
        read(CompletionReader(), {"error": {"message": "went wrong"}})
    assert "went wrong" in refusal(found.value.body).message


# -- /v1/chat/completions


def delta(predicted: int, **fields: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": fields, "finish_reason": None}
    return {"choices": [choice], "timings": timings(predicted, 2)}


def chat_end(reason: str, predicted: int) -> dict[str, Any]:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return {"choices": [choice], "timings": timings(predicted, 2)}


def test_reasoning_has_its_own_channel_and_makes_content_tokens_unknown() -> None:
    reader = ChatReader(4)
    chunks = read(
        reader,
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
        delta(0),
        delta(1, reasoning_content="hm"),
        delta(4, content="Yes"),
        chat_end("length", 4),
    )
    assert [(c.channel, c.text) for c in chunks] == [
        (Channel.REASONING, "hm"),
        (Channel.CONTENT, "Yes"),
        (Channel.CONTENT, ""),
    ]
    assert chunks[1].tokens is None
    assert chunks[2] == Chunk(tokens=0, finish_reason="length", usage=Usage(12, 4, 16))
    assert reader.cached == 2
    assert reader.ended


def test_content_without_reasoning_is_counted() -> None:
    chunks = read(ChatReader(), delta(1, content="a"), delta(4, content="🦊"), chat_end("stop", 5))
    assert [c.tokens for c in chunks] == [1, 3, 0]


# -- requests


REQUEST = Request("m", (Message("user", "hi"),), Options(seed=1, max_tokens=5))


def test_fields_that_make_it_a_stream_we_can_count_are_ours() -> None:
    options = Options(extra={"stream": False, "cache_prompt": True, "id_slot": 3, "min_p": 0.1})
    for body in (
        by_ids(options, (1, 2)).body,
        by_messages(Request("m", (), options), Prompt("", ()), start=None).body,
    ):
        assert (body["stream"], body["cache_prompt"], body["id_slot"]) == (True, False, 0)
        assert body["min_p"] == 0.1
    assert by_ids(options, (1,), start=State("ab", "cd", 1)).body["cache_prompt"] is True


def test_only_what_was_chosen_is_sent() -> None:
    assert set(by_ids(Options(), (1,)).body) == {
        *("prompt", "return_tokens", "stream", "timings_per_token", "return_progress"),
        *("id_slot", "cache_prompt"),
    }


def test_what_came_from_the_cache_must_fit_the_start() -> None:
    empty, state = (
        by_ids(Options(), (1,)),
        by_ids(Options(), (1,), start=State("ab", "cd", 9), cached=7),
    )
    empty.check(0)
    state.check(7)
    for asked, cached in ((empty, 1), (state, 6)):
        with pytest.raises(StrategyUnavailable):
            asked.check(cached)
    assert empty.proven(0) == {"start": "empty", "cached": 0}
    assert state.proven(7) == {"start": {"file": "ab", "sha256": "cd", "tokens": 9}, "cached": 7}


def test_the_sampler_is_everything_but_the_bound() -> None:
    defaults = {"top_k": 40, "seed": 0, "n_predict": -1, "stream": False}
    first = sampler(defaults, REQUEST.options)
    assert first == {"top_k": 40, "seed": 1}
    assert sampler(defaults, REQUEST.with_options(max_tokens=9).options) == first
    assert sampler(defaults, Options(seed=1, extra={"top_k": 1, "max_tokens": 3})) != first


def test_greedy_is_temperature_zero_and_nothing_that_remembers() -> None:
    assert is_greedy(Options(temperature=0.0, stop=("x",), top_p=0.3))
    for other in (
        Options(),
        Options(temperature=0.1),
        Options(temperature=0.0, schema={}),
        Options(temperature=0.0, extra={"repeat_penalty": 1.1}),
    ):
        assert not is_greedy(other)


def test_a_template_that_reasons_or_tools_need_the_engines_parser() -> None:
    assert must_be_parsed("... <think> ...", Options())
    assert must_be_parsed("... <|channel|>analysis ...", Options())
    assert must_be_parsed("plain", Options(extra={"response_format": {}}))
    assert not must_be_parsed("{{ message.content }}", Options(extra={"min_p": 0}))


def test_answers_that_are_no_json_are_refusals_too() -> None:
    check(200, b"")
    with pytest.raises(Refused, match="gateway"):
        check(502, b"gateway")
    full = {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}
    with pytest.raises(ContextFull, match=r"9 tokens.* 8"):
        check(400, json.dumps({"error": full}).encode())


# -- states


def slot(folder: Path) -> Slot:
    (folder / "slots").mkdir()
    return Slot(Engine(EngineSettings(), folder), 1000)


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (words(0x67677371, 4, 6, -1, 1, 3, 5, 6, 7, 99), (5, 6, 7)),
        (words(0x67677371, 3, 3, 5, 6, 7, 99), (5, 6, 7)),
        (words(0x67677371, 4, 6, -1, 1, 4, 5, 6, 7, 99), None),  # another number of tokens
        (words(0x67677371, 3, 2, 5, 6, 7, 99), None),
        (words(0x12345678, 3, 3, 5, 6, 7, 99), None),  # another kind of file
        (words(0x67677371, 3, 2_000_000_000), None),
        (b"", None),
    ],
)
def test_a_states_tokens_are_read_only_where_its_form_is_known(
    tmp_path: Path, content: bytes, ids: tuple[int, ...] | None
) -> None:
    states = slot(tmp_path)
    (tmp_path / "slots" / "ab").write_bytes(content)
    assert states.ids(State("ab", "cd", 3)) == ids


def test_a_state_is_a_file_of_its_folder_and_no_other() -> None:
    state = State("ab", "cd", 3)
    assert State.from_json({**state.as_json(), "more": 1}) == state
    for other in ("empty", None, {}, {**state.as_json(), "file": "../ab"}, {"file": "ab"}):
        assert State.from_json(other) is None


def test_old_states_are_swept_away(tmp_path: Path) -> None:
    states = slot(tmp_path)
    for name, age_s in (("old", KEPT_S + 60), ("young", 60)):
        file = tmp_path / "slots" / name
        file.touch()
        os.utime(file, (1e9 - age_s, 1e9 - age_s))
    states.sweep(1e9)
    assert {file.name for file in (tmp_path / "slots").iterdir()} == {"young"}
    Slot(Engine(EngineSettings()), 1000).sweep(1e9)


def test_the_processor_has_a_name_and_the_engine_a_fixed_number_of_threads() -> None:
    facts = processor()
    assert facts["machine"]
    assert facts["name"]
    assert facts == processor()
    assert 1 <= default_threads() <= 16
