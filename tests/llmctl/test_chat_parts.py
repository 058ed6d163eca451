"""The pure parts of the chat back end: bodies, replies, counts, seams, error bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.backends.chat_body import Beginning, chat_body
from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.error_bodies import context_tokens, is_context_full, retry_after_s, sentence
from llmctl.backends.seam import Seam
from llmctl.backends.surrogates import SurrogateJoiner, is_well_formed
from llmctl.backends.token_counts import TokenCounter
from llmctl.conversation import Message, Options, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk, Usage
from llmctl.profiles import PRESETS, PrefixDialect, Profile, TokenCounts

ASK = Request("m", (Message("system", "s"), Message("user", "u")))
MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
UNKNOWN = Profile(name="x", base_url="http://x/v1")


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
NAMES = [
    "choices",
    "delta",
    "content",
    "index",
    "usage",
    "logprobs",
    "token_ids",
    "type",
    "text",
    "thinking",
    "timings",
    "reasoning",
    "bytes",
    "error",
    "finish_reason",
]


def grown(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    objects = st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    return objects | st.lists(inner, max_size=2)


def reader(**known: Any) -> ReplyReader:
    return ReplyReader(TokenCounter(**known))


def read(target: ReplyReader, *events: dict[str, Any] | str) -> list[Chunk]:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return [chunk for text in texts for chunk in target.read(text)]


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"choices": [{**choice, **more}]}


# The body.


def test_nothing_is_sent_that_nobody_chose() -> None:
    assert chat_body(UNKNOWN, ASK, usage=False) == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
    }


def test_every_option_has_its_field_and_extra_fields_win() -> None:
    schema = {"type": "object"}
    options = Options(
        temperature=0.0,
        top_p=0.5,
        seed=7,
        max_tokens=9,
        stop=("END",),
        schema=schema,
        extra={"temperature": 1, "min_p": 0.1},
    )
    body = chat_body(UNKNOWN, Request("m", ASK.messages, options), usage=True)
    named = {"name": "reply", "schema": schema, "strict": True}
    assert body == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1,
        "top_p": 0.5,
        "seed": 7,
        "max_tokens": 9,
        "stop": ["END"],
        "response_format": {"type": "json_schema", "json_schema": named},
        "min_p": 0.1,
    }
    assert list(body)[-1] == "min_p"


def test_openai_bounds_completion_tokens() -> None:
    body = chat_body(PRESETS["openai"], ASK.with_options(max_tokens=5), usage=True)
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    ("dialect", "message", "fields"),
    [
        (PrefixDialect.TRAILING_ASSISTANT, {}, {}),
        (PrefixDialect.PREFIX_FLAG, {"prefix": True}, {}),
        (PrefixDialect.PARTIAL_FLAG, {"partial": True}, {}),
        (
            PrefixDialect.CONTINUE_FINAL_MESSAGE,
            {},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
    ],
)
def test_prefix_dialects(
    dialect: PrefixDialect, message: dict[str, Any], fields: dict[str, Any]
) -> None:
    profile = Profile(name="x", base_url="http://x", prefix=dialect)
    body = chat_body(profile, ASK, usage=False, after=Beginning("Once"))
    assert body == {
        "model": "m",
        "messages": [*MESSAGES, {"role": "assistant", "content": "Once", **message}],
        "stream": True,
        **fields,
    }


@pytest.mark.parametrize(
    ("counts", "fields"),
    [
        (TokenCounts.TIMINGS, {"timings_per_token": True}),
        (TokenCounts.IDS, {"return_token_ids": True}),
        (TokenCounts.LOGPROBS, {"logprobs": True}),
        (
            TokenCounts.USAGE,
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
        (None, {}),
    ],
)
def test_counts_are_asked_for_where_they_are_known(
    counts: TokenCounts | None, fields: dict[str, Any]
) -> None:
    profile = Profile(name="x", base_url="http://x", token_counts=counts)
    body = chat_body(profile, ASK, usage=True)
    plain = {"stream_options": {"include_usage": True}}
    assert body == {"model": "m", "messages": MESSAGES, "stream": True, **plain, **fields}


# The reply.


def test_text_reasoning_usage_and_end() -> None:
    target = reader()
    chunks = read(
        target,
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"reasoning": "m"}}]},
        delta("Hi"),
        delta(" you", "stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
        "[DONE]",
    )
    assert [(c.channel, c.text) for c in chunks] == [
        (Channel.REASONING, "hm"),
        (Channel.REASONING, "m"),
        (Channel.CONTENT, "Hi"),
        (Channel.CONTENT, " you"),
    ]
    assert target.done
    assert list(target.last()) == [Chunk(finish_reason="stop", usage=Usage(3, 2, 5))]


def test_only_the_first_choice_and_no_tool_calls() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0}]}, "finish_reason": "tool_calls"}]}
    target = reader()
    assert read(target, other) == []
    assert not target.ended
    assert read(target, call) == []
    assert target.finish_reason == "tool_calls"


@pytest.mark.parametrize("missing", [{}, {"choices": None}, {"choices": [{}]}, {"usage": None}])
def test_what_servers_leave_out(missing: dict[str, Any]) -> None:
    assert read(reader(), missing) == []


def test_done_alone_is_an_end() -> None:
    target = reader()
    read(target, delta("a"), "[DONE]")
    assert [c.finish_reason for c in target.last()] == ["stop"]


def test_an_end_for_want_of_context() -> None:
    target = reader()
    read(target, delta("", "model_length"))
    assert next(target.last()).context_full


@pytest.mark.parametrize("garbage", ["{", "7", '"text"', "null", "[]"])
def test_garbage_is_a_value_error(garbage: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(reader(), garbage)


@settings(deadline=None)
@given(st.recursive(LEAVES, grown, max_leaves=8))
def test_json_of_any_shape_is_a_reply_an_error_or_a_value_error(event: object) -> None:
    try:
        chunks = reader(trusts_usage=True).read(json.dumps({"choices": [{"delta": event}]}))
        chunks += reader(trusts_usage=True).read(json.dumps(event))
    except (ValueError, ErrorEvent):
        return
    assert all(isinstance(chunk.text, str) for chunk in chunks)


def test_content_in_parts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thought, {"type": "text", "text": "Hi"}]
    chunks = read(reader(), {"choices": [{"delta": {"content": parts}}]})
    assert chunks == [Chunk("hm", Channel.REASONING), Chunk("Hi")]


def test_error_events() -> None:
    with pytest.raises(ErrorEvent) as caught:
        read(reader(), {"error": {"message": "no"}})
    assert caught.value.body == {"message": "no"}
    with pytest.raises(ErrorEvent):
        reader().read('{"message": "no"}', "error")


# Surrogates.


def test_a_pair_split_over_two_events_joins() -> None:
    target = reader()
    chunks = read(
        target,
        '{"choices":[{"delta":{"content":"a\\ud83d"}}]}',
        '{"choices":[{"delta":{"content":"\\ude00b"}}]}',
    )
    assert [c.text for c in chunks] == ["a", "😀b"]


def test_a_half_at_the_end_is_not_lost() -> None:
    target = reader()
    read(target, '{"choices":[{"delta":{"content":"\\ud83d"},"finish_reason":"stop"}]}')
    assert [c.text for c in target.last()] == ["\ufffd", ""]


@settings(deadline=None)
@given(st.text(st.sampled_from("aé😀\ud83d\ude00\udbff\udc00")), st.lists(st.integers(0, 9)))
def test_joining_does_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    whole = SurrogateJoiner()
    expected = whole.join(text) + whole.flush()
    pieces = SurrogateJoiner()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    joined = [pieces.join(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
    joined.append(pieces.flush())
    assert all(map(is_well_formed, joined))
    assert "".join(joined) == expected


# Counts.


def entries(*tokens: bytes) -> dict[str, Any]:
    return {"content": [{"token": "?", "bytes": list(token)} for token in tokens]}


def test_log_probabilities_give_exact_ends() -> None:
    emoji = "😀".encode()
    target = reader()
    chunks = read(
        target,
        delta("He", logprobs=entries(b"H", b"e")),
        delta("", logprobs=entries(emoji[:2])),
        delta("😀!", logprobs=entries(emoji[2:], b"!")),
        delta(None, "stop", logprobs=entries(b"")),
    )
    assert [(c.tokens, c.ends) for c in chunks] == [(2, (1, 2)), (3, (1, 1, 2))]


def test_bytes_that_do_not_spell_the_text_count_nothing() -> None:
    chunks = read(reader(), delta("other", logprobs=entries(b"text")))
    assert [(c.tokens, c.ends) for c in chunks] == [(None, None)]


def test_an_entry_without_bytes_is_spelled_by_its_token() -> None:
    chunks = read(reader(), delta("hé", logprobs={"content": [{"token": "hé", "bytes": None}]}))
    assert [(c.tokens, c.ends) for c in chunks] == [(1, (2,))]


@settings(deadline=None)
@given(st.text("aé語😀", min_size=1, max_size=8), st.data())
def test_every_tokenization_in_every_chunking(text: str, data: st.DataObject) -> None:
    """However bytes are cut into tokens and these into chunks, no end is before its token's."""
    raw = text.encode()
    token_cuts = data.draw(st.sets(st.integers(1, len(raw)))) | {len(raw)}
    chunk_cuts = data.draw(st.sets(st.sampled_from(sorted(token_cuts)))) | {len(raw)}
    events, done, said = [], 0, 0
    for cut in sorted(chunk_cuts):
        ends = [end for end in sorted(token_cuts) if done < end <= cut]
        tokens = [raw[a:b] for a, b in zip([done, *ends], ends, strict=False)]
        whole = raw[:cut].decode(errors="ignore")
        events.append(delta(whole[said:], logprobs=entries(*tokens)))
        done, said = cut, len(whole)
    chunks = read(reader(), *events)
    starts = [sum(len(c.text) for c in chunks[:i]) for i in range(len(chunks))]
    got = [start + end for start, c in zip(starts, chunks, strict=True) for end in c.ends or ()]
    assert got == [
        len(raw[:end].decode(errors="ignore")) + _cuts(raw, end) for end in sorted(token_cuts)
    ]


def _cuts(raw: bytes, end: int) -> int:
    return int(end < len(raw) and raw[end] in range(0x80, 0xC0))


@pytest.mark.parametrize("source", ["timings", "usage"])
def test_running_totals(source: str) -> None:
    def total(text: str, count: int) -> dict[str, Any]:
        name = {"timings": "predicted_n", "usage": "completion_tokens"}[source]
        return {**delta(text), source: {name: count}}

    events = [total("a", 1), total("", 2), total("😀", 3), total("bc", 5)]
    assert [c.tokens for c in read(reader(trusts_usage=True), *events)] == [1, 2, 2]
    assert {c.tokens for c in read(reader(trusts_usage=True, in_step=False), *events)} == {None}


def test_a_usage_that_is_not_known_to_be_running_counts_nothing() -> None:
    chunk = {**delta("a"), "usage": {"completion_tokens": 1}}
    assert [c.tokens for c in read(reader(), chunk)] == [None]


def test_ids_wait_for_their_text() -> None:
    chunks = read(reader(), delta("", token_ids=[7]), delta("a", token_ids=[8, 9]))
    assert [(c.tokens, c.ids) for c in chunks] == [(3, (7, 8, 9))]


def test_totals_are_not_told_behind_reasoning() -> None:
    thought = {"choices": [{"delta": {"reasoning": "hm"}}], "timings": {"predicted_n": 1}}
    chunks = read(reader(), thought, {**delta("a"), "timings": {"predicted_n": 3}})
    assert [c.tokens for c in chunks] == [None, None]


# Seams.


def through(seam: Seam, *texts: str) -> str:
    chunks = [Chunk(text) for text in texts] + [Chunk(finish_reason="stop")]
    return "".join(new.text for chunk in chunks for new in seam.feed(chunk))


def test_an_echo_is_taken_off_whatever_its_pieces() -> None:
    text = "Once upon a time"
    for first in range(len(text)):
        for second in range(first, len(text)):
            pieces = text[:first], text[first:second], text[second:]
            assert through(Seam("Once upon", required=False), *pieces) == " a time"


@pytest.mark.parametrize("reply", ["Twice upon", "Once up", "O", ""])
def test_what_is_not_an_echo_stays(reply: str) -> None:
    assert through(Seam("Once upon", required=False), reply) == reply


def test_blanks_must_come_again() -> None:
    assert through(Seam("\n\n", required=True), "\n", "\nNext") == "Next"
    for reply in ("Next", "\nNext", ""):
        with pytest.raises(StrategyUnavailable):
            through(Seam("\n\n", required=True), reply)


def test_the_tokens_of_what_is_taken_off_go_with_it() -> None:
    chunk = Chunk(" a b", tokens=2, ends=(2, 4), ids=(1, 2))
    assert Seam(" a", required=False).feed(chunk) == [Chunk(" b", tokens=1, ends=(2,), ids=(2,))]
    assert Seam(" a", required=False).feed(Chunk(" a b", tokens=2)) == [Chunk(" b")]


# Error bodies.


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (
            (
                "This model's maximum context length is 4097 tokens. However, your messages "
                "resulted in 5000 tokens."
            ),
            (5000, 4097),
        ),
        (
            (
                "This model's maximum context length is 2048 tokens. However, you requested 2100 "
                "tokens (2000 in the messages, 100 in the completion)."
            ),
            (2100, 2048),
        ),
        (
            (
                "You passed 4097 input tokens and requested 0 output tokens. However, the model's "
                "context length is only 4096 tokens."
            ),
            (4097, 4096),
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", (210000, 200000)),
        (
            (
                "The input token count (1200000) exceeds the maximum number of tokens allowed "
                "(1048576)."
            ),
            (1200000, 1048576),
        ),
        (
            "The input (5,000 tokens) is longer than the model's context length (4,096 tokens).",
            (5000, 4096),
        ),
        (
            (
                "request (5000 tokens) exceeds the available context size (4096 tokens), try "
                "increasing it"
            ),
            (5000, 4096),
        ),
        (
            (
                "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
                "maximum context length"
            ),
            (40000, 32768),
        ),
        ("Please reduce the context length.", None),
    ],
)
def test_context_sentences(text: str, numbers: tuple[int, int] | None) -> None:
    assert is_context_full({"message": text})
    assert context_tokens({"message": text}) == numbers


def test_context_fields_of_llama_server() -> None:
    body = {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8, "message": ""}
    assert is_context_full(body)
    assert context_tokens(body) == (9, 8)
    assert not is_context_full({"message": "Invalid value for 'temperature'."})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"message": "a"}, "a"),
        ({"error": {"message": "a"}}, "a"),
        ({"error": "a"}, "a"),
        ([{"error": {"message": "a"}}], "a"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "a"}]}, "body.seed: a"),
        ({"message": {"detail": [{"loc": ["body", 0], "msg": "a"}]}}, "body.0: a"),
        ("plain\n\x1b[31mtext", "plain [31mtext"),
        ("<html>no</html>", ""),
        ({"message": "bad key sk-1, sk-1!"}, "bad key [key], [key]!"),
        (None, ""),
        ({}, ""),
        ("x" * 400, "x" * 300 + "…"),
    ],
)
def test_sentences(body: object, text: str) -> None:
    assert sentence(body, "sk-1") == text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds
