"""The oracle server, seen through raw sockets and through the openai package."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import openai
import pytest

from tests.support.oracle import Message, Oracle, Plan, Sampling, render, text_of
from tests.support.oracle_server import (
    Fault,
    OracleProcess,
    OracleServer,
    Script,
    Settings,
)
from tests.support.oracle_settings import script_from_json, settings_from_json
from tests.support.oracle_wire import GEMINI_REJECTION, Feature, Prefill

Json = dict[str, Any]
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
EVERYTHING = tuple(Feature)


def body(**fields: Any) -> Json:
    return {"model": "oracle", "messages": HELLO, **fields}


def expected(length: int, said: str = "hello") -> str:
    return text_of(Oracle().reply(render([Message("user", said)]), plan=Plan(length=length)))


@contextmanager
def posted(
    server: OracleServer | OracleProcess, fields: Json, headers: dict[str, str] | None = None
) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(fields), headers or {})
        assert connection.sock is not None
        plug = connection.sock
        with connection.getresponse() as answer:
            yield answer, plug


def openai_client(server: OracleServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)


def ask(
    server: OracleServer, fields: Json, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    with posted(server, fields, headers) as (answer, _):
        return answer.status, json.loads(answer.read())


def events(server: OracleServer | OracleProcess, fields: Json) -> list[Json]:
    with posted(server, {**fields, "stream": True}) as (answer, _):
        lines = answer.read().decode().split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def content(chunks: list[Json], name: str = "content") -> str:
    return "".join(
        choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"]
    )


def finish_reasons(chunks: list[Json]) -> list[str]:
    return [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]


# --- Replies --------------------------------------------------------------------------------------


def test_streamed_whole_and_oracle_agree() -> None:
    with OracleServer(Settings(length=300)) as server:
        chunks = events(server, body())
        status, whole = ask(server, body())
        assert content(chunks) == expected(300) == whole["choices"][0]["message"]["content"]
        assert status == 200
        assert finish_reasons(chunks) == ["stop"] == [whole["choices"][0]["finish_reason"]]
        assert whole["usage"] == {"prompt_tokens": 9, "completion_tokens": 300, "total_tokens": 309}
        assert len([c for c in chunks if c["choices"]]) > 200
        assert server.counters.tokens == 600


def test_the_openai_package_understands_it() -> None:
    with OracleServer(Settings(length=50)) as server, openai_client(server) as client:
        assert [model.id for model in client.models.list()] == ["oracle"]
        stream = client.chat.completions.create(
            model="oracle",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == expected(50)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 50


@pytest.mark.parametrize("size", [1, 7, (1, 9)])
def test_chunking_changes_nothing_but_the_chunks(size: int | tuple[int, int]) -> None:
    with OracleServer(Settings(length=200, tokens_per_chunk=size)) as server:
        chunks = events(server, body())
        assert content(chunks) == expected(200)
        if size != 1:
            assert len(chunks) < 120


def test_max_tokens_and_context() -> None:
    with OracleServer(Settings(length=100, context=40)) as server:
        for field in ("max_tokens", "max_completion_tokens"):
            chunks = events(server, body(**{field: 10}))
            assert finish_reasons(chunks) == ["length"]
            assert server.requests[-1].tokens == 10
        events(server, body())
        assert server.requests[-1].tokens == 40 - 9
        long = [{"role": "user", "content": "q" * 50}]
        status, error = ask(server, body(messages=long))
        assert (status, error["error"]["code"]) == (400, "context_length_exceeded")


def test_the_prompt_can_ask_for_a_length() -> None:
    with OracleServer(Settings(length=5)) as server:
        events(server, body(messages=[{"role": "user", "content": "now length=33 please"}]))
        assert server.requests[-1].tokens == 33
        server.enqueue(Script(length=2))
        events(server, body(messages=[{"role": "user", "content": "now length=33 please"}]))
        assert server.requests[-1].tokens == 2


def test_stop_strings_end_the_reply_and_are_not_sent() -> None:
    with OracleServer() as server:
        server.enqueue(*[Script(text="one two!!STOP three")] * 2)
        for fields in (body(stop="!!STOP"), body(stop=["x9", "!!STOP"])):
            chunks = events(server, fields)
            assert (content(chunks), finish_reasons(chunks)) == ("one two", ["stop"])


def test_seed_and_temperature_reach_the_model() -> None:
    with OracleServer(Settings(length=30, rng="positional")) as server:
        texts = [
            content(events(server, body(**fields)))
            for fields in (
                {"seed": 1},
                {"seed": 1},
                {"seed": 2},
                {"seed": 1, "temperature": 0.3},
                {},
                {},
            )
        ]
        assert texts[0] == texts[1]
        assert len(set(texts)) == 5


def test_tokens_can_be_counted_in_every_way() -> None:
    with OracleServer(Settings(length=60, tokens_per_chunk=3, features=EVERYTHING)) as server:
        asked = body(
            logprobs=True,
            top_logprobs=2,
            timings_per_token=True,
            return_token_ids=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
        chunks = events(server, asked)
        parts = [c for c in chunks if c["choices"] and c["choices"][0]["logprobs"]]
        tokens = [t for c in parts for t in c["choices"][0]["logprobs"]["content"]]
        assert len(tokens) == 60
        assert bytes(b for t in tokens for b in t["bytes"]).decode() == expected(60)
        assert all(len(t["top_logprobs"]) == 2 for t in tokens)
        assert sum(len(c["choices"][0]["token_ids"]) for c in parts) == 60
        assert parts[-1]["timings"]["predicted_n"] == 60
        assert [c["usage"]["completion_tokens"] for c in parts] == list(range(3, 61, 3))
        assert chunks[-1]["usage"]["completion_tokens"] == 60


def test_reasoning_is_streamed_before_the_content() -> None:
    with OracleServer(Settings(length=20, reasoning=15)) as server:
        chunks = events(server, body())
        kinds = [name for c in chunks[1:] for name in c["choices"][0]["delta"]]
        assert kinds == sorted(kinds, reverse=True)
        assert content(chunks, "reasoning_content")
        assert content(chunks)


def test_the_expected_reply_can_be_asked_for() -> None:
    with OracleServer(Settings(length=40, reasoning=5, rng="positional")) as server:
        script = Script(inserts={7: "!!STOP"})
        server.enqueue(script, script)
        text = content(events(server, body(temperature=0)))
        assert text == server.expected("hello", script=script)
        text = content(events(server, body(seed=3)))
        assert text == server.expected("hello", script=script, sampling=Sampling(seed=3))


# --- Requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"made_up": 1}, "made_up"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "prefix": True}]}, "messages[0].prefix"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"timings_per_token": True}, "timings_per_token"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused(fields: Json, param: str) -> None:
    with OracleServer() as server:
        status, error = ask(server, body(**fields))
        assert (status, error["error"]["param"]) == (400, param)
        assert error["error"]["type"] == "invalid_request_error"
        assert set(error["error"]) == {"message", "type", "param", "code"}


def test_a_lenient_server_ignores_what_it_does_not_know() -> None:
    with OracleServer(Settings(strict=False, length=3)) as server:
        assert ask(server, body(made_up=1))[0] == 200


def test_keys_and_models_are_checked() -> None:
    with OracleServer(Settings(api_key="good", length=3)) as server:
        assert ask(server, body())[0] == 401
        assert ask(server, body(), {"Authorization": "Bearer bad"})[0] == 401
        good = {"Authorization": "Bearer good"}
        assert ask(server, body(), good)[0] == 200
        status, error = ask(server, body(model="other"), good)
        assert (status, error["error"]["code"]) == (404, "model_not_found")
        assert server.requests[0].status == 401


def test_requests_are_recorded_as_sent() -> None:
    with OracleServer(Settings(length=3)) as server:
        ask(server, body(seed=7), {"X-Test": "yes"})
        (record,) = server.requests
        assert record.body == body(seed=7)
        assert record.headers["x-test"] == "yes"
        assert record.first_token_ns is not None
        assert record.ended_ns is not None
        assert record.arrived_ns < record.first_token_ns <= record.ended_ns


# --- Trailing assistant messages ------------------------------------------------------------------


def resumed(server: OracleServer, text: str, **fields: Any) -> str:
    last: Json = {"role": "assistant", "content": text, **fields.pop("last", {})}
    return content(events(server, body(messages=[*HELLO, last], **fields)))


def test_continue_goes_on_at_every_cut() -> None:
    ids = Oracle().reply(render([Message("user", "hello")]), plan=Plan(length=60))
    with OracleServer(Settings(length=60)) as server:
        for cut in range(0, 61, 3):
            begun = text_of(ids[:cut])
            assert begun + resumed(server, begun) == text_of(ids)


def test_continue_final_message_needs_both_flags() -> None:
    with OracleServer(Settings(length=40, prefill=Prefill.CONTINUE_FINAL_MESSAGE)) as server:
        full = content(events(server, body()))
        flags = {"continue_final_message": True, "add_generation_prompt": False}
        assert full[:0] + resumed(server, "", **flags) == full
        begun = text_of(Oracle().reply(render([Message("user", "hello")]), max_tokens=9))
        assert begun + resumed(server, begun, **flags) == full
        assert begun + resumed(server, begun) != full
        status, error = ask(
            server,
            body(
                messages=[*HELLO, {"role": "assistant", "content": "x"}],
                continue_final_message=True,
            ),
        )
        assert status == 400
        assert "add_generation_prompt" in error["error"]["message"]


@pytest.mark.parametrize("flag", ["prefix", "partial"])
def test_a_flag_on_the_message(flag: str) -> None:
    with OracleServer(Settings(length=40, prefill="prefix", prefix_field=flag)) as server:
        full = content(events(server, body()))
        begun = text_of(Oracle().reply(render([Message("user", "hello")]), max_tokens=9))
        assert begun + resumed(server, begun, last={flag: True}) == full
        status, _ = ask(server, body(messages=[*HELLO, {"role": "assistant", "content": begun}]))
        assert status == 400


def test_ignored_starts_a_new_answer() -> None:
    with OracleServer(Settings(length=40, prefill=Prefill.IGNORED)) as server:
        full = content(events(server, body()))
        again = resumed(server, full[:20])
        assert full[:20] + again != full
        assert server.requests[-1].tokens == 40


def test_rejected_in_the_words_of_the_server() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "x"}]
    for settings, words in (
        (Settings(prefill="rejected"), "must end with a user message"),
        (Settings(prefill="rejected", rejection=GEMINI_REJECTION), "model turn"),
    ):
        with OracleServer(settings) as server:
            status, error = ask(server, body(messages=messages))
            assert status == 400
            assert words in error["error"]["message"]


def test_echo_and_trim() -> None:
    with OracleServer(Settings(length=20, echo=True)) as server:
        assert resumed(server, "It is").startswith("It is")
    with OracleServer(Settings(length=20, trim=True)) as server:
        assert resumed(server, "It is") == resumed(server, "It is \n")
    with OracleServer(Settings(length=20)) as server:
        assert resumed(server, "It is") != resumed(server, "It is \n")


# --- Faults ---------------------------------------------------------------------------------------


def read_all(answer: http.client.HTTPResponse) -> tuple[str, str]:
    """Return what can be read and the name of the error that ended it."""
    parts = []
    error = ""
    try:
        while part := answer.read1():
            parts.append(part)
    except (http.client.HTTPException, OSError) as caught:
        error = type(caught).__name__
    return b"".join(parts).decode(), error


def text_in(data: str) -> str:
    lines = [line for line in data.split("\n\n") if line.startswith('data: {"id"')]
    return content([json.loads(line[6:]) for line in lines])


@pytest.mark.parametrize("after", [0, 1, 100, 163])
@pytest.mark.parametrize("reset", [False, True])
def test_cut_after_exactly_so_many_tokens(after: int, reset: bool) -> None:
    with OracleServer(Settings(length=300, tokens_per_chunk=4)) as server:
        server.enqueue(Script(fault=Fault("cut", after_tokens=after, reset=reset)))
        with posted(server, body(stream=True)) as (answer, _):
            data, error = read_all(answer)
        ids = Oracle().reply(render([Message("user", "hello")]), plan=Plan(length=300))
        assert text_in(data) == text_of(ids[:after])
        assert error == ("ConnectionResetError" if reset else "IncompleteRead")
        assert "[DONE]" not in data
        record = server.requests[0]
        assert (record.tokens, record.disconnected_ns) == (after, None)
        assert content(events(server, body())) == expected(300)


def test_stall_then_the_client_leaves() -> None:
    with OracleServer(Settings(length=300)) as server:
        server.enqueue(Script(fault=Fault("stall", after_tokens=20, ping_s=0.01)))
        with posted(server, body(stream=True)) as (answer, plug):
            data = b""
            while data.count(b": ping") < 3:
                data += answer.read1()
            left_ns = time.monotonic_ns()
            plug.shutdown(socket.SHUT_RDWR)
        assert text_in(data.decode().replace(": ping\n\n", "")) == text_of(
            Oracle().reply(render([Message("user", "hello")]), max_tokens=20)
        )
        seen = server.wait_until(lambda c: c.disconnects == 1)
        assert seen.tokens == 20
        assert seen.last_disconnect_ns is not None
        assert seen.last_disconnect_ns - left_ns < 1e9


def test_streams_that_end_badly() -> None:
    with OracleServer(Settings(length=20)) as server:
        for fault, reasons, done in (
            (Fault("no_finish", after_tokens=None), [], False),
            (Fault("no_finish", after_tokens=5), [], False),
            (Fault("no_done"), ["stop"], False),
            (Fault("error_event", after_tokens=5), [], False),
            (None, ["stop"], True),
        ):
            server.enqueue(Script(fault=fault))
            with posted(server, body(stream=True)) as (answer, _):
                data, error = read_all(answer)
            assert error == ""
            chunks = [json.loads(x[6:]) for x in data.split("\n\n") if x.startswith('data: {"id"')]
            assert finish_reasons(chunks) == reasons
            assert ("[DONE]" in data) is done
            assert ('"error"' in data) is (fault is not None and fault.kind == "error_event")


def test_garbage_is_a_line_among_good_ones() -> None:
    with OracleServer(Settings(length=20)) as server:
        server.enqueue(Script(fault=Fault("garbage", after_tokens=5, line="data: {oops")))
        with posted(server, body(stream=True)) as (answer, _):
            data, _ = read_all(answer)
        assert "data: {oops\n\n" in data
        assert text_in(data) == expected(20)


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_error_answers(status: int) -> None:
    with OracleServer() as server:
        fault = Fault("http", status=status, retry_after="0.25", message="no", code="why")
        server.enqueue(Script(fault=fault), Script(fault=Fault("http", status=status, html=True)))
        with posted(server, body()) as (answer, _):
            assert answer.status == status
            assert answer.headers["Retry-After"] == "0.25"
            error = json.loads(answer.read())["error"]
            assert (error["message"], error["code"]) == ("no", "why")
        with posted(server, body()) as (answer, _):
            assert answer.headers["Content-Type"] == "text/html"
            assert answer.read().startswith(b"<html>")
        assert server.counters.tokens == 0


def test_no_headers_ever() -> None:
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("no_headers")))
        plug = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        data = json.dumps(body()).encode()
        plug.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data)
        )
        plug.sendall(data)
        server.wait_until(lambda c: c.requests == 1)
        plug.settimeout(0.03)
        with pytest.raises(TimeoutError):
            plug.recv(1)
        plug.close()
        server.wait_until(lambda c: c.disconnects == 1)


def test_refused_connections_then_the_same_port() -> None:
    with OracleServer(Settings(length=3)) as server:
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask(server, body())
        server.accept()
        assert ask(server, body())[0] == 200


def test_gzip_streams() -> None:
    with (
        OracleServer(Settings(length=100, gzip=True)) as server,
        openai_client(server) as client,
        client.chat.completions.with_streaming_response.create(
            model="oracle", messages=[{"role": "user", "content": "hello"}], stream=True
        ) as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"
        assert text_in("".join(answer.iter_text())) == expected(100)


def test_scripts_can_wait_for_their_request() -> None:
    with OracleServer(Settings(length=3)) as server:
        server.enqueue(Script(match="item-2", fault=Fault("http", status=500)))
        for name, status in (("item-1", 200), ("item-2", 500), ("item-2", 200)):
            assert ask(server, body(messages=[{"role": "user", "content": name}]))[0] == status


# --- Disconnects, back pressure, pace -------------------------------------------------------------


def test_generation_stops_when_the_client_leaves() -> None:
    with OracleServer(Settings(length=100_000, delay_s=0.001)) as server:
        with posted(server, body(stream=True)) as (answer, plug):
            answer.read1()
            server.wait_until(lambda c: c.tokens >= 5)
            left_ns = time.monotonic_ns()
            plug.shutdown(socket.SHUT_RDWR)
        seen = server.wait_until(lambda c: c.disconnects == 1)
        time.sleep(0.02)  # long enough for twenty more tokens
        after = server.counters
        assert after.tokens == seen.tokens < 5000
        assert after.last_token_ns is not None
        assert after.last_token_ns - left_ns < 100_000_000


def test_generation_goes_on_when_the_client_does_not_read() -> None:
    with OracleServer(Settings(length=30_000)) as server:
        with posted(server, body(stream=True)) as (answer, _):
            counters = server.wait_until(lambda c: c.tokens == 30_000)
            assert counters.disconnects == 0
            data, _ = read_all(answer)
        assert text_in(data) == expected(30_000)


def test_a_held_reply_waits_for_its_release() -> None:
    with OracleServer(Settings(length=50)) as server:
        server.enqueue(Script(hold_at=20))
        with posted(server, body(stream=True)) as (answer, _):
            held = server.wait_until(lambda c: c.held == 1)
            assert held.tokens == 20
            assert server.release() == 1
            assert text_in(read_all(answer)[0]) == expected(50)


def test_delays() -> None:
    with OracleServer(Settings(length=10, delay_s=0.002, first_token_delay_s=0.03)) as server:
        began = time.monotonic_ns()
        events(server, body())
        (record,) = server.requests
        assert record.first_token_ns is not None
        assert record.last_token_ns is not None
        assert record.first_token_ns - began >= 30e6
        assert record.last_token_ns - record.first_token_ns >= 18e6


def test_many_clients_at_once() -> None:
    with OracleServer(Settings(length=40, delay_s=0.001)) as server:
        plugs = []
        data = json.dumps(body(stream=True)).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data)
        for _ in range(50):
            plug = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
            plug.sendall(head + data)
            plugs.append(plug)
        assert server.wait_until(lambda c: c.tokens == 50 * 40).connections == 50
        for plug in plugs:
            plug.close()


def test_speed() -> None:
    """A generous floor; about 100,000 tokens a second on an idle machine."""
    with OracleServer() as server:
        assert any(tokens_a_second(server) > 10_000 for _ in range(5))


def tokens_a_second(server: OracleServer) -> float:
    ask_for = body(stream=True, messages=[{"role": "user", "content": "length=20000"}])
    began = time.monotonic()
    with posted(server, ask_for) as (answer, _):
        while answer.read1(1 << 20):
            pass
    return 20_000 / (time.monotonic() - began)


# --- In its own process ---------------------------------------------------------------------------


def test_a_process_has_the_same_handle() -> None:
    settings = Settings(length=30, tokens_per_chunk=(1, 3), features=EVERYTHING)
    with OracleProcess(settings) as server:
        server.enqueue(Script(hold_at=5, inserts={10: "!!PAUSE"}))
        with posted(server, body(stream=True)) as (answer, _):
            server.wait_until(lambda c: c.held == 1)
            assert server.release() == 1
            assert "!!PAUSE" in text_in(read_all(answer)[0])
        assert server.requests[0].body == body(stream=True)
    assert server.process.returncode is not None


def test_settings_and_scripts_survive_json() -> None:
    settings = Settings(prefill="prefix", tokens_per_chunk=(1, 2), features=("usage",))
    script = Script(fault=Fault("cut", after_tokens=3), inserts={4: "x"}, tokens_per_chunk=(2, 3))
    assert settings_from_json(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
    assert script_from_json(json.loads(json.dumps(dataclasses.asdict(script)))) == script


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="explode"):
        Fault("explode")
