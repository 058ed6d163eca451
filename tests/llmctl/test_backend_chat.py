"""The chat back end against servers: a strict one that goes wrong on demand, and canned bytes."""

from __future__ import annotations

import gzip
import json
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.chat_stream import ChatStream
from llmctl.backends.openai_errors import BROKEN_STREAM, Explainer
from llmctl.backends.token_counts import TokenCounter
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import (
    ConnectTimedOut,
    ContextFull,
    Denied,
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    StrategyUnavailable,
    Unreachable,
    UsageError,
)
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.profiles import PRESETS, PrefixDialect, Profile, TokenCounts
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature, Prefill

pytestmark = pytest.mark.anyio

KEY = "sk-" + "s3cr3t" * 4
ASK = Request("oracle", (Message("user", "hello length=40"),), Options(temperature=0.0))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


def profile(base_url: str, **known: Any) -> Profile:
    return Profile(name="test", base_url=base_url, **known)


@asynccontextmanager
async def back_end(
    base_url: str, *, key: str | None = None, **known: Any
) -> AsyncIterator[ChatBackEnd]:
    made = ChatBackEnd(profile(base_url, **known), key=key)
    try:
        yield made
    finally:
        await made.aclose()


async def reply(made: ChatBackEnd, request: Request = ASK, **how: Any) -> list[Chunk]:
    async with made.open(request, **how) as stream:
        return [chunk async for chunk in stream]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


class Canned:
    """Answers request after request with prepared bytes, and remembers what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[str] = []
        self.bodies: list[Any] = []
        self.greeting = b""
        self.url = ""

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.send(self.greeting)
            while self.answers:
                head, body = await _request(stream)
                self.heads.append(head)
                self.bodies.append(json.loads(body))
                await stream.send(self.answers.pop(0))


async def _request(stream: anyio.abc.ByteStream) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += await stream.receive()
    return head.decode(), body


@asynccontextmanager
async def canned(*answers: bytes) -> AsyncIterator[Canned]:
    server = Canned(*answers)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  (no database)
        server.url = f"http://127.0.0.1:{port}/v1"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, server.serve)
            yield server
            tasks.cancel_scope.cancel()


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SSE = "Content-Type: text/event-stream"
JSON = "Content-Type: application/json"


def stream_of(*texts: str, end: bytes = b"data: [DONE]\n\n") -> bytes:
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + end


# A whole reply.


async def test_a_reply_its_usage_and_its_request() -> None:
    with OracleServer(Settings(api_key=KEY)) as server:
        async with back_end(server.base_url, key=KEY) as made:
            chunks = await reply(made, ASK.with_options(seed=3, max_tokens=30))
        record = server.requests[0]
    assert record.tokens == 30
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30
    assert record.body == {
        "model": "oracle",
        "messages": [{"role": "user", "content": "hello length=40"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "seed": 3,
        "max_tokens": 30,
    }


async def test_headers_nobody_asked_for_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: 1\nAuthorization: Bearer {KEY}")
    with OracleServer() as server:
        async with back_end(server.base_url) as made, back_end(server.base_url, key="k") as keyed:
            await reply(made)
            await reply(keyed)
        headers, other = (record.headers for record in server.requests)
    assert other["authorization"] == "Bearer k"
    assert set(other) == {*headers, "authorization"}
    sent = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
    assert set(headers) == sent | {"user-agent"}
    assert headers["user-agent"] == "llmctl"


async def test_connections_are_used_again() -> None:
    with OracleServer() as server:
        async with back_end(server.base_url) as made:
            texts = {text_of(await reply(made)) for _ in range(5)}
        assert server.counters.connections == 1
        assert server.counters.disconnects == 0
    assert len(texts) == 1


async def test_a_compressed_reply() -> None:
    with OracleServer() as plain, OracleServer(Settings(gzip=True)) as packed:
        async with back_end(plain.base_url) as one, back_end(packed.base_url) as other:
            assert text_of(await reply(one)) == text_of(await reply(other)) != ""


async def test_replies_side_by_side() -> None:
    with OracleServer(Settings(send_each=True)) as server:
        async with back_end(server.base_url) as made, anyio.create_task_group() as tasks:
            texts: set[str] = set()

            async def one() -> None:
                texts.add(text_of(await reply(made)))

            for _ in range(20):
                tasks.start_soon(one)
    assert len(texts) == 1


async def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    whole = {"choices": [{"message": {"content": "Hi\n"}, "finish_reason": "stop"}]}
    body = json.dumps(whole, indent=2).encode()
    async with canned(answer(body, JSON)) as server, back_end(server.url) as made:
        assert text_of(await reply(made)) == "Hi\n"


# However the bytes come.


def fake_stream(*reads: bytes, headers: dict[str, str] | None = None) -> ChatStream:
    async def body() -> AsyncIterator[bytes]:
        for read in reads:
            yield read

    response = httpx2.Response(200, headers=headers, content=body())
    client: Any = SimpleNamespace(explain=Explainer("http://x", None), broken_stream=BROKEN_STREAM)
    return ChatStream(response, client, ReplyReader(TokenCounter()), [])


async def drained(stream: ChatStream) -> tuple[str, str | None]:
    chunks = [chunk async for chunk in stream]
    await stream.aclose()
    return text_of(chunks), chunks[-1].finish_reason


REPLY = b"\xef\xbb\xbf: hi\r\n\r\n" + stream_of("Grüße ", "😀", "\ud83d", "\ude00").replace(
    b"\\ud83d\\ude00", "😀".encode()
)


async def test_every_split_into_two_reads() -> None:
    for cut in range(len(REPLY) + 1):
        assert await drained(fake_stream(REPLY[:cut], REPLY[cut:])) == ("Grüße 😀😀", "stop"), cut


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_one_byte_a_read(encoding: str) -> None:
    data = gzip.compress(REPLY) if encoding == "gzip" else REPLY
    reads = [data[i : i + 1] for i in range(len(data))]
    stream = fake_stream(*reads, headers={"content-encoding": encoding})
    assert await drained(stream) == ("Grüße 😀😀", "stop")


# How a stream ends.


async def test_text_before_a_cut_is_delivered_and_then_the_cut_is_told() -> None:
    for reset in (False, True):
        with OracleServer() as server:
            server.enqueue(Script(fault=Fault("cut", after_tokens=20, reset=reset)))
            async with back_end(server.base_url) as made, made.open(ASK) as stream:
                got = ""
                with pytest.raises(Disconnected, match="lost"):
                    async for chunk in stream:
                        got += chunk.text
                with pytest.raises(Disconnected):  # and told again, never an end
                    await anext(aiter(stream))
            if not reset:  # a reset may overtake the last bytes
                async with back_end(server.base_url) as made:
                    whole = text_of(await reply(made))
                assert got
                assert whole.startswith(got)


@pytest.mark.parametrize("kind", ["no_finish", "garbage"])
async def test_ends_that_are_none(kind: str) -> None:
    with OracleServer() as server:
        after = 20 if kind == "garbage" else None
        server.enqueue(Script(fault=Fault(kind, after_tokens=after)))
        async with back_end(server.base_url) as made:
            with pytest.raises(Disconnected):
                await reply(made)


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n", b"data: [DONE"])
async def test_a_body_without_an_end_is_cut_off(end: bytes) -> None:
    body = answer(stream_of("a", end=end), SSE)
    async with canned(body) as server, back_end(server.url) as made:
        with pytest.raises(Disconnected):
            await reply(made)


async def test_a_finish_reason_is_enough() -> None:
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("no_done", after_tokens=None)))
        async with back_end(server.base_url) as made:
            assert (await reply(made))[-1].finish_reason == "stop"


async def test_a_reply_that_has_ended_cannot_be_lost() -> None:
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    head = f"HTTP/1.1 200 OK\r\n{SSE}\r\nContent-Length: 9999\r\n\r\n".encode()
    async with canned(head + stream_of("a", end=end)) as server, back_end(server.url) as made:
        chunks = await reply(made)
    assert (text_of(chunks), chunks[-1].finish_reason) == ("a", "stop")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("content_filter", Refused),
        ("error", Disconnected),
        ("abort", Disconnected),
        ("insufficient_system_resource", Overloaded),
    ],
)
async def test_finish_reasons_that_are_no_end(reason: str, kind: type[LlmctlError]) -> None:
    end = json.dumps({"choices": [{"delta": {}, "finish_reason": reason}]}).encode()
    body = answer(stream_of("a", end=b"data: " + end + b"\n\ndata: [DONE]\n\n"), SSE)
    async with canned(body) as server, back_end(server.url) as made, made.open(ASK) as stream:
        chunks = aiter(stream)
        assert (await anext(chunks)).text == "a"
        with pytest.raises(kind):
            await anext(chunks)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "boom", "type": "server_error"}, Disconnected),
        ({"message": "boom", "code": 503}, Overloaded),
        ({"message": "boom", "type": "overloaded_error"}, Overloaded),
        ({"message": "boom", "code": "rate_limit_exceeded"}, Overloaded),
        ({"message": "boom", "code": "insufficient_quota"}, Denied),
        ({"message": "boom", "code": 400}, Refused),
        ({"message": "boom", "code": "context_length_exceeded"}, ContextFull),
        ("boom", Disconnected),
    ],
)
async def test_error_events(error: object, kind: type[LlmctlError]) -> None:
    end = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    body = answer(stream_of("a", end=end), SSE)
    async with canned(body) as server, back_end(server.url) as made, made.open(ASK) as stream:
        chunks = aiter(stream)
        assert (await anext(chunks)).text == "a"
        with pytest.raises(LlmctlError) as caught:
            await anext(chunks)
    assert type(caught.value) is kind


# Leaving.


async def seen(what: Callable[[], int | None]) -> int:
    with anyio.fail_after(5):
        while (value := what()) is None:  # noqa: ASYNC110  (the server is in another thread)
            await anyio.sleep(0.002)
    return value


async def test_leaving_is_seen_by_the_server_at_once() -> None:
    with OracleServer(Settings(send_each=True)) as server:
        server.enqueue(Script(hold_at=5, length=40))
        async with back_end(server.base_url) as made:
            async with made.open(ASK) as stream:
                await anext(aiter(stream))
                left_ns = time.monotonic_ns()
            seen_ns = await seen(lambda: server.requests[0].disconnected_ns)
            assert seen_ns - left_ns < 100_000_000
            assert text_of(await reply(made))  # and the next request finds a good connection


async def test_leaving_unread_closes_too() -> None:
    with OracleServer(Settings(send_each=True)) as server:
        server.enqueue(Script(hold_at=5, length=40))
        async with back_end(server.base_url) as made:
            async with made.open(ASK):
                left_ns = time.monotonic_ns()
            seen_ns = await seen(lambda: server.requests[0].disconnected_ns)
            assert seen_ns - left_ns < 100_000_000


async def test_leaving_by_cancelation_closes_too() -> None:
    with OracleServer(Settings(send_each=True)) as server:
        server.enqueue(Script(hold_at=5, length=40))
        async with back_end(server.base_url) as made:
            with anyio.CancelScope() as scope:
                async with made.open(ASK) as stream:
                    async for _ in stream:
                        scope.cancel()
            left_ns = time.monotonic_ns()
            assert scope.cancelled_caught
            seen_ns = await seen(lambda: server.requests[0].disconnected_ns)
            assert seen_ns - left_ns < 100_000_000


async def test_cancelation_while_waiting_for_the_headers_closes() -> None:
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("no_headers")))
        async with back_end(server.base_url) as made:
            await made.ready()
            with anyio.move_on_after(0.05):
                await reply(made)
            await seen(lambda: server.requests[0].disconnected_ns)


async def test_a_server_that_keeps_the_body_open_holds_nobody_up() -> None:
    head = f"HTTP/1.1 200 OK\r\n{SSE}\r\nContent-Length: 9999\r\n\r\n".encode()
    async with canned(head + stream_of("a"), b"") as server, back_end(server.url) as made:
        with anyio.fail_after(2):
            assert text_of(await reply(made)) == "a"


# Refusals.


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, Refused, "no good"),
        (401, Denied, "key"),
        (402, Denied, "quota"),
        (403, Denied, "no good"),
        (404, Denied, "no good"),
        (408, Overloaded, "HTTP 408"),
        (409, Overloaded, "HTTP 409"),
        (413, Refused, "no good"),
        (422, Refused, "no good"),
        (429, Overloaded, "HTTP 429"),
        (500, Overloaded, "no good"),
        (503, Overloaded, "HTTP 503"),
        (504, Overloaded, "HTTP 504"),
    ],
)
@pytest.mark.parametrize("html", [False, True])
async def test_status_codes(status: int, kind: type[LlmctlError], said: str, html: bool) -> None:
    with OracleServer() as server:
        fault = Fault("http", status=status, html=html, message=f"no good {KEY}", retry_after="7")
        server.enqueue(Script(fault=fault))
        async with back_end(server.base_url, key=KEY) as made:
            with pytest.raises(LlmctlError) as caught:
                await reply(made)
            assert server.counters.requests == 1  # nobody retried
    error = caught.value
    assert type(error) is kind
    assert html or said in error.message
    assert "<" not in error.message
    assert KEY not in "".join(traceback.format_exception(error))
    if isinstance(error, Overloaded):
        assert error.retry_after == 7.0


async def test_an_unknown_model_and_a_wrong_url() -> None:
    with OracleServer() as server:
        async with back_end(server.base_url) as made:
            with pytest.raises(Refused, match="`nobody` does not exist"):
                await reply(made, replace(ASK, model="nobody"))
        async with back_end(server.url + "/elsewhere") as made:
            with pytest.raises(Refused) as caught:
                await reply(made)
    assert caught.value.hint is not None


async def test_a_missing_key_and_a_wrong_one() -> None:
    with OracleServer(Settings(api_key=KEY)) as server:
        async with back_end(server.base_url) as made:
            with pytest.raises(Refused, match="wants an API key"):
                await reply(made)
        async with back_end(server.base_url, key=KEY + "x") as made:
            with pytest.raises(Refused, match="does not accept"):
                await reply(made)


@pytest.mark.parametrize("key", ["", "sk-\n", "sk-é", "a b", "sk-\x1b"])
async def test_a_key_that_cannot_be_one_is_never_quoted(key: str) -> None:
    with OracleServer() as server:
        async with back_end(server.base_url, key=key) as made:
            with pytest.raises(Refused) as caught:
                await made.ready()
    assert not key or key not in str(caught.value)


async def test_a_full_context_has_both_numbers() -> None:
    with OracleServer(Settings(context=8)) as server:
        async with back_end(server.base_url) as made:
            with pytest.raises(ContextFull, match=r"needs \d+ tokens; the context holds 8\."):
                await reply(made)


async def test_a_used_up_quota_is_not_tried_again() -> None:
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("http", status=429, code="insufficient_quota")))
        async with back_end(server.base_url) as made:
            with pytest.raises(Refused, match="quota"):
                await reply(made)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with canned(answer(stream_of("stolen"), SSE)) as elsewhere:
        moved = answer(b"", f"Location: {elsewhere.url}", status=status)
        async with canned(moved) as server, back_end(server.url, key=KEY) as made:
            with pytest.raises(Refused, match="redirects to"):
                await reply(made)
        assert elsewhere.heads == []


async def test_a_web_page_is_no_reply() -> None:
    page = answer(b"<html>Welcome</html>", "Content-Type: text/html; charset=utf-8")
    async with canned(page) as server, back_end(server.url) as made:
        with pytest.raises(Refused, match="web page"):
            await reply(made)


@pytest.mark.parametrize("status", ["400 Bad Request", "502 Bad Gateway"])
async def test_a_refusal_that_breaks_off_is_a_lost_connection(status: str) -> None:
    half = answer(b'{"error": {"message": "No, an', JSON, status=status)
    half = half.replace(b"Length: 2", b"Length: 9")
    async with canned(half) as server, back_end(server.url) as made:
        with pytest.raises(Disconnected):
            await reply(made)


async def test_garbage_in_place_of_http() -> None:
    async with canned(b"SSH-2.0-OpenSSH\r\n") as server, back_end(server.url) as made:
        with pytest.raises(Disconnected):
            await reply(made)


# The usage.


async def test_a_server_that_refuses_to_be_asked_for_usage_is_asked_without_it() -> None:
    where = {"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
    sorry = json.dumps({"detail": [where]}).encode()
    no = answer(sorry, JSON, status="422 Unprocessable Content")
    yes = answer(stream_of("a"), SSE)
    async with canned(no, yes, yes) as server, back_end(server.url) as made:
        assert text_of(await reply(made)) == "a"
        assert text_of(await reply(made)) == "a"
        asked = ["stream_options" in body for body in server.bodies]
        assert asked == [True, False, False]  # it was remembered


async def test_a_server_that_refuses_to_count_is_asked_without_it() -> None:
    sorry = b'{"error": {"message": "Unrecognized request argument: return_token_ids"}}'
    no = answer(sorry, JSON, status="400 Bad Request")
    yes = answer(stream_of("a"), SSE)
    counting: dict[str, Any] = {"token_counts": TokenCounts.IDS, "token_prompts": True}
    async with canned(no, yes, yes) as server, back_end(server.url, **counting) as made:
        assert Strategy.TOKENS in made.supports
        assert text_of(await reply(made)) == "a"
        assert text_of(await reply(made)) == "a"
        asked = ["return_token_ids" in body for body in server.bodies]
        assert asked == [True, False, False]  # it was remembered
        assert Strategy.TOKENS not in made.supports


async def test_another_refusal_is_not_tried_again() -> None:
    no = answer(b'{"error": {"message": "No."}}', JSON, status="400 Bad Request")
    async with canned(no, no) as server, back_end(server.url) as made:
        with pytest.raises(Refused, match=r"No\."):
            await reply(made)
        assert len(server.heads) == 1


# No connection.


async def test_nobody_there() -> None:
    with OracleServer() as server:
        url = server.base_url
    async with back_end(url) as made:
        with pytest.raises(Unreachable, match="Nothing answers at 127"):
            await reply(made)


async def test_tls_where_there_is_none() -> None:
    async with canned() as server, back_end(server.url.replace("http:", "https:")) as made:
        server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(Unreachable, match="TLS"):
            await reply(made)


async def test_a_connection_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "connect_tcp", never)
    made = ChatBackEnd(profile("http://127.0.0.1:9/v1"), connect_timeout_s=0.01)
    with pytest.raises(ConnectTimedOut):
        await reply(made)
    await made.aclose()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:80/v1", "http://[/v1"])
async def test_addresses_that_are_none(url: str) -> None:
    async with back_end(url) as made:
        with pytest.raises((Unreachable, UsageError)):
            await reply(made)


async def test_a_proxy_is_used_except_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    yes = answer(stream_of("a"), SSE)
    async with canned(yes) as proxy, canned(yes) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        async with back_end(server.url) as here, back_end("http://model.test/v1") as there:
            await reply(here)
            assert proxy.heads == []
            await reply(there)
        assert proxy.heads[0].startswith("POST http://model.test/v1/chat/completions ")


async def test_a_proxy_nobody_can_speak_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "gopher://proxy.test")
    async with back_end("http://model.test/v1") as made:
        with pytest.raises(UsageError, match="proxy"):
            await reply(made)


# Going on.

DIALECTS = [
    (PrefixDialect.TRAILING_ASSISTANT, Settings()),
    (PrefixDialect.PREFIX_FLAG, Settings(prefill=Prefill.PREFIX)),
    (PrefixDialect.PARTIAL_FLAG, Settings(prefill=Prefill.PREFIX, prefix_field="partial")),
    (
        PrefixDialect.CONTINUE_FINAL_MESSAGE,
        Settings(prefill=Prefill.CONTINUE_FINAL_MESSAGE),
    ),
]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(("dialect", "settings"), DIALECTS)
async def test_going_on_at_every_token(
    dialect: PrefixDialect, settings: Settings, *, echo: bool
) -> None:
    with OracleServer(replace(settings, echo=echo)) as server:
        known: dict[str, Any] = {
            "prefix": dialect,
            "prefix_echoed": echo,
            "prefix_keeps_blanks": True,
        }
        async with back_end(server.base_url, **known) as made:
            whole = await reply(made)
            for cut in range(1, len(whole) - 1):
                prefix = Prefix(text_of(whole[:cut]))
                rest = await reply(made, after=prefix, by=Strategy.PREFIX)
                assert prefix.text + text_of(rest) == text_of(whole), cut
                sent = server.requests[-1].body["messages"]
                assert sent[-1]["content"] == prefix.text
                assert sent[:-1] == [{"role": "user", "content": "hello length=40"}]


async def test_blanks_at_the_cut_are_not_sent_and_not_doubled() -> None:
    after = Prefix("Once.\n\n")
    fits = answer(stream_of("\n", "\nand so on"), SSE)
    does_not = answer(stream_of(" and so on"), SSE)
    async with (
        canned(fits, does_not) as server,
        back_end(server.url, prefix=PrefixDialect.TRAILING_ASSISTANT) as made,
    ):
        assert text_of(await reply(made, after=after, by=Strategy.PREFIX)) == "and so on"
        assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "Once."}
        with pytest.raises(StrategyUnavailable):
            async with made.open(ASK, after=after, by=Strategy.PREFIX):
                pytest.fail("what does not fit must be told on the way in")


async def test_another_address_for_going_on() -> None:
    with OracleServer() as server, OracleServer() as beta:
        known: dict[str, Any] = {
            "prefix": PrefixDialect.TRAILING_ASSISTANT,
            "prefix_base_url": beta.base_url,
        }
        async with back_end(server.base_url, **known) as made:
            await reply(made)
            await reply(made, after=Prefix("a"), by=Strategy.PREFIX)
        assert (server.counters.requests, beta.counters.requests) == (1, 1)


async def test_a_replay_is_the_same_request() -> None:
    with OracleServer() as server:
        async with back_end(server.base_url) as made:
            first = await reply(made)
            assert await reply(made, again={}, by=Strategy.REPLAY) == first
        one, two = server.requests
        assert one.body == two.body


@pytest.mark.parametrize("by", [Strategy.KV, Strategy.TOKENS, Strategy.CURSOR, Strategy.PREFIX])
async def test_what_is_not_known_to_work_is_not_tried(by: Strategy) -> None:
    with OracleServer() as server:
        async with back_end(server.base_url) as made:
            with pytest.raises(StrategyUnavailable):
                await reply(made, after=Prefix("a"), by=by)
        assert server.counters.requests == 0


def test_what_is_known_of_servers() -> None:
    asking = {Strategy.INSTRUCT: Guarantee.BEST_EFFORT}
    assert ChatBackEnd(profile("http://x/v1")).supports == asking
    assert ChatBackEnd(PRESETS["openai"]).supports == asking
    known = {Strategy.PREFIX: Guarantee.TEXT, **asking}
    assert ChatBackEnd(PRESETS["sglang"]).supports == known
    by_ids = {Strategy.TOKENS: Guarantee.TOKEN, **known}
    assert ChatBackEnd(PRESETS["vllm"]).supports == by_ids


# Counting.


@pytest.mark.parametrize(
    ("counts", "feature"),
    [
        (TokenCounts.LOGPROBS, Feature.LOGPROBS),
        (TokenCounts.IDS, Feature.TOKEN_IDS),
        (TokenCounts.USAGE, Feature.CONTINUOUS_USAGE),
        (TokenCounts.TIMINGS, Feature.TIMINGS),
    ],
)
@pytest.mark.parametrize("size", [1, (1, 5)])
async def test_tokens_are_counted(
    counts: TokenCounts, feature: Feature, size: int | tuple[int, int]
) -> None:
    settings = Settings(features=(feature, Feature.USAGE), tokens_per_chunk=size)
    with OracleServer(settings) as server:
        async with back_end(server.base_url, token_counts=counts) as made:
            chunks = await reply(made)
    assert sum(chunk.tokens or 0 for chunk in chunks) == 40
    if counts is TokenCounts.LOGPROBS:
        assert all(c.ends is not None and len(c.ends) == c.tokens for c in chunks[:-1])
