"""A strict OpenAI-compatible chat-completions server whose model is the oracle.

In-process, in a thread::

    with OracleServer(Settings(length=100)) as server:
        server.enqueue(Script(fault=Fault("cut", after_tokens=40)))   # for the next request
        ...                                                           # talk to server.url
        assert server.counters.disconnects == 0

In a process of its own, with the same methods (for timing tests: no shared interpreter lock)::

    with OracleProcess(Settings(delay_s=0.01)) as server: ...

By hand: ``python -m tests.support.oracle_server --port 8000 --length 500 --delay 0.02``.

What it promises beyond speaking the protocol:

- generation stops within one event-loop turn of a client's disconnect, and never because a client
  does not read: the socket is watched, and writes never wait;
- every request is recorded as it came (``server.requests``) with the tokens generated for it and
  the monotonic times of its first token, last token, end and disconnect;
- ``length=N`` in the last user message (``"tell me length=500"``) fixes the reply's length, so
  that a program under test can ask for it; a ``Script`` for the request comes before it, and
  ``Settings`` after it.

``tokens`` in counters and faults are those of the model, the end-of-text token excluded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import http.client
import itertools
import json
import random
import re
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from tests.support._http import HttpConnection, Request
from tests.support._late import be_late
from tests.support._loop_thread import LoopThread
from tests.support.oracle import (
    VOCABULARY,
    Message,
    Oracle,
    Plan,
    Rng,
    Sampling,
    Special,
    content_before,
    render,
    text_of,
)
from tests.support.oracle_responses import Events, Keeping, parse_responses
from tests.support.oracle_runs import Ended, Run, Runs
from tests.support.oracle_schema import instance
from tests.support.oracle_settings import (
    Counters,
    Fault,
    FaultKind,
    Record,
    Script,
    Settings,
    script_from_json,
    settings_from_json,
    total,
)
from tests.support.oracle_wire import (
    ApiError,
    CallEncoder,
    ChatRequest,
    CompletionEncoder,
    Encoder,
    Feature,
    Json,
    PieceCutter,
    Prefill,
    bare,
    parse_chat,
    parse_completion,
)

__all__ = [
    "Counters",
    "Fault",
    "FaultKind",
    "OracleProcess",
    "OracleServer",
    "Record",
    "Script",
    "Settings",
]

T = TypeVar("T")

_BATCH_PIECES = 64  # pieces generated between two looks at the socket when there is no delay
_DIRECTIVE = re.compile(r"\blength=(\d+)\b")
_POLL_S = 0.002


class _Reply:
    """One accepted chat request on its way out."""

    def __init__(
        self, settings: Settings, oracle: Oracle, request: ChatRequest, script: Script, number: int
    ) -> None:
        self.request = request
        self.fault = script.fault
        self.hold_at = script.hold_at
        self.delay_s = _first(script.delay_s, settings.delay_s)
        self.first_token_delay_s = _first(script.first_token_delay_s, settings.first_token_delay_s)
        goes_on = request.continue_final
        heard = request.messages
        if request.prompt_ids is None:
            prompt = render(heard, continue_final=goes_on, trim=settings.trim)
        else:
            prompt = list(request.prompt_ids[settings.truncates :])
            heard = (Message("user", _last_question(prompt)),)
        self.prompt_tokens = len(prompt)
        spare_seed = _no_secret(f"{settings.seed}/{number}").getrandbits(31)
        self.cutter = PieceCutter(
            oracle.generate(
                prompt,
                sampling=request.sampling(spare_seed),
                plan=_shaped(_plan(settings, heard, script), request, prompt),
            ),
            _sizes(script.tokens_per_chunk or settings.tokens_per_chunk, settings.seed),
            max_tokens=_bound(settings, request, len(prompt)),
            stops=request.stops,
            edges=frozenset(filter(None, (self.hold_at, self._fault_at()))),
            thinking=goes_on and _is_thinking(request.messages[-1]),
        )
        about: dict[str, Any] = {
            "reply_id": f"chatcmpl-{number}",
            "created": int(time.time()),
            "prompt": prompt,
        }
        if request.prompt_ids is not None:
            self.encoder: Encoder = CompletionEncoder(request, **about)
        elif request.tools and script.call_at is not None:
            self.encoder = CallEncoder(request, call_at=script.call_at, **about)
        else:
            self.encoder = Encoder(request, **about)
        self.echoed = request.messages[-1].content if settings.echo and goes_on else ""

    def _fault_at(self) -> int | None:
        return self.fault.after_tokens if self.fault else None

    def fault_is_due(self) -> bool:
        """Tell whether the fault strikes after the tokens so far."""
        return self.fault is not None and self.fault.after_tokens == self.cutter.count


def _bound(settings: Settings, request: ChatRequest, prompt_tokens: int) -> int:
    room = settings.context - prompt_tokens
    if room <= 0:
        text = (
            f"This model's maximum context length is {settings.context} tokens. However, "
            f"your messages resulted in {prompt_tokens} tokens."
        )
        raise ApiError(400, text, param="messages", code="context_length_exceeded")
    return room if request.max_tokens is None else min(room, request.max_tokens)


def _plan(settings: Settings, messages: Sequence[Message], script: Script) -> Plan:
    return Plan(
        length=_first(script.length, _directed_length(messages), settings.length),
        eos_every=settings.eos_every,
        text=script.text,
        inserts=script.inserts,
        reasoning=_first(script.reasoning, settings.reasoning) or 0,
    )


def _shaped(plan: Plan, request: ChatRequest, prompt: Sequence[int]) -> Plan:
    """Have the reply satisfy the request's schema. Whatever stands before it, it begins anew."""
    if request.schema is None:
        return plan
    document = instance(request.schema, seed=str(len(prompt)))
    start = content_before(prompt)
    return Plan(length=start + len(VOCABULARY.encode(document)), inserts={start: document})


def _directed_length(messages: Sequence[Message]) -> int | None:
    found = _DIRECTIVE.search(_last_user_text(messages))
    return int(found[1]) if found else None


def _last_user_text(messages: Sequence[Message]) -> str:
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def _last_question(prompt: Sequence[int]) -> str:
    """Return the last user's message of a rendered prompt, or all of a bare one."""
    if Special.USER not in prompt:
        return text_of(prompt)
    at = len(prompt) - list(reversed(prompt)).index(Special.USER)
    return text_of(list(itertools.takewhile(lambda token: token != Special.END, prompt[at:])))


def _is_thinking(message: Message) -> bool:
    return message.reasoning is not None and not message.content


def _sizes(choice: int | tuple[int, int], seed: int) -> Iterator[int]:
    if isinstance(choice, int):
        return itertools.repeat(choice)
    low, high = choice
    draw = _no_secret(seed)
    return (draw.randint(low, high) for _ in itertools.count())


def _first(*choices: T | None) -> T:
    """Return the first choice that is not None, or the last."""
    return cast("T", next((choice for choice in choices if choice is not None), None))


def _no_secret(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311  (it only has to repeat)


class _Outlet:
    """The body of an event stream: collects, compresses if asked, sends."""

    def __init__(self, conn: HttpConnection, *, compress: bool) -> None:
        self._conn = conn
        self._parts: list[bytes] = []
        self._zip = zlib.compressobj(wbits=31) if compress else None

    def start(self) -> None:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        if self._zip:
            headers["Content-Encoding"] = "gzip"
        self._conn.start(200, headers, chunked=True)

    def add(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if self._zip and data:
            data = self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        self._conn.send(data)

    def finish(self) -> None:
        self.flush()
        if self._zip:
            self._conn.send(self._zip.flush())
        self._conn.finish()


class _Ended(Exception):
    """A fault has ended the reply; the value tells whether the connection can be used again."""


class _Delivery:
    """Generates one reply and sends it, streamed or whole, with its pauses and its fault."""

    def __init__(
        self, core: _Core, conn: HttpConnection, reply: _Reply, record: Record, *, compress: bool
    ) -> None:
        self._core = core
        self._conn = conn
        self._reply = reply
        self._record = record
        self._streamed = reply.request.stream
        self._out = _Outlet(conn, compress=compress)
        self._gap = 0

    async def run(self) -> None:
        """Send the reply; return when its last byte is written."""
        if self._streamed:
            self._record.status = 200
            self._out.start()
            self._out.add(self._reply.encoder.opening())
            if self._reply.echoed:
                self._out.add(self._reply.encoder.text(self._reply.echoed))
            self._out.flush()
        async with _pinging(self._out if self._streamed else None, self._core.settings.ping_s):
            await asyncio.sleep(self._reply.first_token_delay_s)
            await self._generate()

    async def _generate(self) -> None:
        pieces = []
        await self._due()
        for piece in self._reply.cutter:
            self._count(len(piece.ids))
            if self._streamed:
                self._out.add(self._reply.encoder.piece(piece))
            else:
                pieces.append(piece)
            await self._due()
            await self._pace(len(piece.ids))
        if self._streamed:
            await self._end_stream()
        else:
            cutter = self._reply.cutter
            self._settle()
            body = self._reply.encoder.whole(pieces, self._reply.echoed, cutter)
            self._conn.respond(200, {"Content-Type": "application/json"}, body)

    def _settle(self) -> None:
        """Complete the record before the last byte is written, so that a reader finds it so."""
        self._record.finish_reason = self._reply.cutter.finish_reason
        self._record.status = 200
        self._core.end(self._record)

    def _count(self, tokens: int) -> None:
        self._record.tokens += tokens
        now = time.monotonic_ns()
        self._record.last_token_ns = now
        if self._record.first_token_ns is None:
            self._record.first_token_ns = now

    async def _pace(self, tokens: int) -> None:
        self._gap += 1
        if self._reply.delay_s:
            self._out.flush()
            await asyncio.sleep(self._reply.delay_s * tokens)
        elif self._core.settings.send_each or self._gap % _BATCH_PIECES == 0:
            self._out.flush()
            await asyncio.sleep(0)

    async def _due(self) -> None:
        if self._reply.hold_at == self._reply.cutter.count:
            self._reply.hold_at = None
            self._out.flush()
            await self._core.held()
        if self._reply.fault_is_due():
            self._out.flush()
            await self._strike(cast("Fault", self._reply.fault))

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case FaultKind.CUT:
                self._core.end(self._record)
                await self._conn.cut(reset=fault.reset)
                raise _Ended
            case FaultKind.STALL:
                async with _pinging(self._out if self._streamed else None, fault.ping_s):
                    await self._conn.gone.wait()
            case FaultKind.NO_FINISH:
                self._out.finish()
                raise _Ended
            case FaultKind.GARBAGE:
                self._out.add(fault.line.encode("utf-8", "surrogateescape") + b"\n\n")
            case FaultKind.ERROR_EVENT:
                error = ApiError(fault.status, fault.message, kind="server_error", code=fault.code)
                self._out.add(b"data: " + json.dumps(error.body).encode() + b"\n\n")
                self._out.finish()
                raise _Ended
            case _:
                pass  # the others strike before the stream or at its end

    async def _end_stream(self) -> None:
        fault = self._reply.fault
        if fault is not None and fault.after_tokens is None:
            self._out.flush()
            await self._strike(fault)
        self._settle()
        self._out.add(self._reply.encoder.ending(self._reply.cutter.finish_reason))
        if fault is None or fault.kind is not FaultKind.NO_DONE:
            self._out.add(Encoder.DONE)
        self._out.finish()


@contextlib.asynccontextmanager
async def _pinging(out: _Outlet | None, interval_s: float | None) -> AsyncIterator[None]:
    """Send a comment on the stream every ``interval_s`` for as long as the block runs."""
    if out is None or interval_s is None:
        yield
        return

    async def ping() -> None:
        while True:
            await asyncio.sleep(interval_s)
            out.add(b": ping\n\n")
            out.flush()

    task = asyncio.get_running_loop().create_task(ping())
    try:
        yield
    finally:
        task.cancel()


class _Core:
    """The server itself: everything that happens in the loop."""

    def __init__(self, settings: Settings, otherwise: Script) -> None:
        self.settings = settings
        self.otherwise = otherwise
        self.records: list[Record] = []
        self.connections = 0
        self.scripts: deque[Script] = deque()
        self._oracle = Oracle(settings.rng, canonical=settings.canonical)
        self._rules = settings.rules()
        self._server: asyncio.Server | None = None
        self._open: set[HttpConnection] = set()
        self._gates: deque[asyncio.Event] = deque()
        self._runs = Runs(Keeping(settings.keeping))

    # Listening.

    async def listen(self, port: int) -> int:
        """Start to accept connections; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpConnection(self._serve, old=self.settings.http10),
            "127.0.0.1",
            port,
            backlog=512,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def refuse(self) -> None:
        """Stop accepting: a connection attempt is refused. Open connections go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Stop accepting and drop every connection."""
        await self.refuse()
        self._runs.close()
        for conn in list(self._open):
            conn.transport.abort()

    # Serving.

    async def _serve(self, conn: HttpConnection) -> None:
        self.connections += 1
        self._open.add(conn)
        try:
            while (request := await conn.read_request()) is not None:
                await self._answer(conn, request)
        except (_Ended, Ended):
            conn.transport.close()
        finally:
            self._open.discard(conn)

    async def _answer(self, conn: HttpConnection, request: Request) -> None:
        match request.method, request.path.partition("?")[0]:
            case "POST", "/v1/chat/completions" | "/v1/completions":
                await self._chat(conn, request)
            case "POST", "/v1/responses" if Feature.RESPONSES in self._rules.features:
                await self._chat(conn, request)
            case "GET" | "POST", path if path.startswith("/v1/responses/"):
                await self._chat(conn, request)
            case "POST", "/detokenize" if Feature.TOKEN_PROMPTS in self._rules.features:
                self._detokenize(conn, request)
            case "GET", "/v1/models":
                self._models(conn, request)
            case "GET", "/_counters":
                _respond_json(conn, 200, dataclasses.asdict(self.counters()))
            case "GET", "/_requests":
                records = [dataclasses.asdict(record) for record in self.records]
                _respond_json(conn, 200, {"requests": records})
            case "POST", "/_scripts":
                self.scripts += [script_from_json(value) for value in json.loads(request.body)]
                _respond_json(conn, 200, {})
            case "POST", "/_release":
                _respond_json(conn, 200, {"released": await self.release()})
            case _:
                text = f"Invalid URL ({request.method} {request.path})"
                _respond_json(conn, 404, ApiError(404, text).body)

    def _models(self, conn: HttpConnection, request: Request) -> None:
        try:
            self._check_key(request)
        except ApiError as error:
            _respond_json(conn, error.status, error.body)
            return
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "oracle"}
            for name in self.settings.models
        ]
        _respond_json(conn, 200, {"object": "list", "data": data})

    def _detokenize(self, conn: HttpConnection, request: Request) -> None:
        body = json.loads(request.body)
        if set(body) != {"model", "tokens"}:
            _respond_json(conn, 400, ApiError(400, "Wrong fields.").body)
            return
        text = VOCABULARY.decode(body["tokens"]).decode("utf-8", "replace")
        _respond_json(conn, 200, {self.settings.spelled_as: text})

    async def _chat(self, conn: HttpConnection, request: Request) -> None:
        record = self._record(request)
        try:
            await asyncio.sleep(self.settings.headers_delay_s)
            await self._reply(conn, request, record)
        except ApiError as error:
            record.status = error.status
            _respond_json(conn, error.status, error.body)
        finally:
            if record.ended_ns is None and conn.gone_ns is not None:
                record.disconnected_ns = conn.gone_ns
            self.end(record)

    async def _reply(self, conn: HttpConnection, request: Request, record: Record) -> None:
        script = self._script_for(record.body)
        if await self._fails_first(conn, script.fault, record):
            return
        self._check_key(request)
        if request.path.startswith("/v1/responses/"):
            await self._runs.answer(conn, request, script.fault)
            return
        chat = self._parsed(request.path, record.body)
        reply = _Reply(self.settings, self._oracle, chat, script, record.number)
        record.prompt_tokens = reply.prompt_tokens
        if request.path == "/v1/responses":
            await self._respond(conn, reply, record)
            return
        compress = self.settings.gzip and "gzip" in request.headers.get("accept-encoding", "")
        await _Delivery(self, conn, reply, record, compress=compress).run()

    async def _respond(self, conn: HttpConnection, reply: _Reply, record: Record) -> None:
        name = f"resp_{record.number}"
        events = Events(reply.request, name, int(time.time()), reply.prompt_tokens)
        run = Run(reply.request, events, record)
        record.status = 200
        work = run.generate(
            reply.cutter,
            delay_s=reply.delay_s,
            hold_at=reply.hold_at,
            held=self.held,
            settle=self.end,
        )
        self._runs.start(name, run, work)
        if reply.request.stream:
            await self._runs.deliver(conn, run, fault=reply.fault)
        else:
            while not run.over:
                await run.grown()
            _respond_json(conn, 200, events.whole())

    def _parsed(self, path: str, body: object) -> ChatRequest:
        if path == "/v1/responses":
            return parse_responses(body, self._rules, Keeping(self.settings.keeping))
        if path == "/v1/chat/completions":
            return parse_chat(body, self._rules)
        if self._rules.features.isdisjoint({Feature.COMPLETIONS, Feature.TOKEN_PROMPTS}):
            raise ApiError(404, "Not Found")
        return parse_completion(body, self._rules)

    def _record(self, request: Request) -> Record:
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
        now = time.monotonic_ns()
        record = Record(len(self.records), request.method, request.path, request.headers, body, now)
        self.records.append(record)
        return record

    def end(self, record: Record) -> None:
        """Note the end of a request, once."""
        if record.ended_ns is None:
            record.ended_ns = time.monotonic_ns()

    def _script_for(self, body: object) -> Script:
        said = json.dumps(body, ensure_ascii=False)
        for script in self.scripts:
            if script.match is None or script.match in said:
                self.scripts.remove(script)
                return script
        return self.otherwise

    def _check_key(self, request: Request) -> None:
        key = self.settings.api_key
        if key is None or request.headers.get("authorization") == f"Bearer {key}":
            return
        raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    async def _fails_first(self, conn: HttpConnection, fault: Fault | None, record: Record) -> bool:
        """Do the faults that come instead of an answer."""
        if fault is None:
            return False
        if fault.kind is FaultKind.NO_HEADERS:
            await conn.gone.wait()
            return True
        if fault.kind is not FaultKind.HTTP:
            return False
        record.status = fault.status
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        if fault.html:
            page = f"<html><body><h1>{fault.status}</h1>{fault.message}</body></html>"
            conn.respond(fault.status, {**headers, "Content-Type": "text/html"}, page.encode())
        else:
            kind = "server_error" if fault.status >= 500 else "invalid_request_error"
            error = ApiError(fault.status, fault.message, kind=kind, code=fault.code)
            _respond_json(conn, fault.status, error.body, headers)
        return True

    # What tests steer and see.

    async def held(self) -> None:
        """Wait for a release."""
        gate = asyncio.Event()
        self._gates.append(gate)
        await gate.wait()

    async def release(self) -> int:
        """Let every held reply go on; return how many there were."""
        count = len(self._gates)
        while self._gates:
            self._gates.popleft().set()
        return count

    def counters(self) -> Counters:
        """Return the totals as of now."""
        return total(list(self.records), self.connections, len(self._gates))


def _respond_json(
    conn: HttpConnection, status: int, value: Json, headers: Mapping[str, str] | None = None
) -> None:
    fields = {"Content-Type": "application/json", **(headers or {})}
    conn.respond(status, fields, json.dumps(value, ensure_ascii=False).encode())


# --- Handles -------------------------------------------------------------------------------------


class _Handle:
    """What a test can do with a running server, wherever it runs."""

    url: str
    settings: Settings

    @property
    def base_url(self) -> str:
        """The URL to give to a client (``--base-url``)."""
        return f"{self.url}/v1"

    @property
    def counters(self) -> Counters:
        """Totals as of now."""
        raise NotImplementedError

    @property
    def requests(self) -> list[Record]:
        """Every chat request so far, in order of arrival; copies."""
        raise NotImplementedError

    def expected(
        self,
        *messages: Message | str,
        sampling: Sampling | None = None,
        script: Script | None = None,
    ) -> str:
        """Return the content of the uninterrupted reply, worked out without the server.

        Args:
            messages: The conversation; a string is a user's message.
            sampling: What the request says; without it, and at temperature 0, only the prefix
                counts (and always with ``rng="pure"``).
            script: The script that the request will meet.
        """
        heard = tuple(m if isinstance(m, Message) else Message("user", m) for m in messages)
        settings = self.settings
        oracle = Oracle(settings.rng, canonical=settings.canonical)
        ids = oracle.reply(
            render(heard),
            sampling=sampling or Sampling(temperature=0),
            plan=_plan(settings, heard, script or Script()),
        )
        after = ids.index(Special.THINK_END) + 1 if Special.THINK_END in ids else 0
        return text_of(ids[after:])

    def expected_completion(self, prompt: str, *, sampling: Sampling | None = None) -> str:
        """Return what an uninterrupted completion adds to a prompt, as `expected`."""
        settings, ids = self.settings, bare(prompt)
        oracle = Oracle(settings.rng, canonical=settings.canonical)
        plan = _plan(settings, (Message("user", prompt),), Script())
        return text_of(oracle.reply(ids, sampling=sampling or Sampling(temperature=0), plan=plan))

    def wait_until(
        self, condition: Callable[[Counters], bool], *, timeout_s: float = 5.0
    ) -> Counters:
        """Return the counters as soon as ``condition`` holds for them.

        Raises:
            TimeoutError: If it does not within ``timeout_s``; the message shows the counters.
        """
        deadline = time.monotonic() + timeout_s
        while not condition(counters := self.counters):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in {timeout_s} s: {counters}")
            time.sleep(_POLL_S)
        be_late()
        return counters


class OracleServer(_Handle):
    """The server in a thread of this process, between ``__enter__`` and ``__exit__``."""

    def __init__(
        self, settings: Settings | None = None, *, otherwise: Script | None = None, port: int = 0
    ) -> None:
        """Configure; ``otherwise`` is the script for requests that none was enqueued for."""
        self._thread = LoopThread("oracle-server")
        self.settings = settings or Settings()
        self._core = _Core(self.settings, otherwise or Script())
        self._port = port

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._thread.__enter__()
        self._port = self._thread.call(self._core.listen, self._port)
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop every connection and stop."""
        self._thread.call(self._core.close)
        self._thread.__exit__(kind, error, trace)

    def enqueue(self, *scripts: Script) -> None:
        """Add scripts; each serves the next request that it matches, in order."""
        self._core.scripts.extend(scripts)

    def release(self) -> int:
        """Let replies held by ``hold_at`` go on; return how many there were."""
        return self._thread.call(self._core.release)

    def refuse(self) -> None:
        """Refuse connections until ``accept()``; open ones go on."""
        self._thread.call(self._core.refuse)

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._thread.call(self._core.listen, self._port)

    @property
    def counters(self) -> Counters:
        """Totals as of now."""
        return self._core.counters()

    @property
    def requests(self) -> list[Record]:
        """Every chat request so far, in order of arrival; copies."""
        return [dataclasses.replace(record) for record in list(self._core.records)]


class OracleProcess(_Handle):
    """The server in a process of its own, gone when this one is gone."""

    def __init__(
        self, settings: Settings | None = None, *, otherwise: Script | None = None
    ) -> None:
        """Configure as for ``OracleServer``."""
        self.settings = settings or Settings()
        self._config = json.dumps(
            {
                "settings": dataclasses.asdict(self.settings),
                "otherwise": dataclasses.asdict(otherwise or Script()),
            }
        )

    def __enter__(self) -> Self:
        """Start the process and read its URL."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.oracle_server", "--json", self._config],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the oracle server did not start: exit {self.process.wait(5)}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def enqueue(self, *scripts: Script) -> None:
        """Add scripts, as ``OracleServer.enqueue``."""
        self._ask("/_scripts", json.dumps([dataclasses.asdict(s) for s in scripts]).encode())

    def release(self) -> int:
        """Let held replies go on, as ``OracleServer.release``."""
        return int(self._ask("/_release", b"{}")["released"])

    @property
    def counters(self) -> Counters:
        """Totals as of now."""
        return Counters(**self._ask("/_counters"))

    @property
    def requests(self) -> list[Record]:
        """Every chat request so far, in order of arrival; copies."""
        return [Record(**record) for record in self._ask("/_requests")["requests"]]

    def _ask(self, path: str, body: bytes | None = None) -> Json:
        address = self.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(address, timeout=5)) as connection:
            connection.request("GET" if body is None else "POST", path, body)
            return cast("Json", json.loads(connection.getresponse().read()))


# --- By hand -------------------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.oracle_server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--length", type=int, help="tokens in every reply")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds a token")
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    parser.add_argument("--reasoning", type=int, default=0, metavar="N", help="reasoning tokens")
    parser.add_argument("--rng", choices=list(Rng), default=Rng.PURE)
    parser.add_argument("--prefill", choices=list(Prefill), default=Prefill.CONTINUE)
    parser.add_argument("--api-key", help="refuse requests without it")
    parser.add_argument("--lenient", action="store_true", help="ignore unknown fields")
    parser.add_argument("--json", help=argparse.SUPPRESS)
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> tuple[Settings, Script]:
    if arguments.json:
        config = json.loads(arguments.json)
        return settings_from_json(config["settings"]), script_from_json(config["otherwise"])
    settings = Settings(
        length=arguments.length,
        delay_s=arguments.delay,
        tokens_per_chunk=arguments.tokens_per_chunk,
        reasoning=arguments.reasoning,
        rng=arguments.rng,
        prefill=arguments.prefill,
        api_key=arguments.api_key,
        strict=not arguments.lenient,
    )
    return settings, Script()


async def _serve_by_hand(arguments: argparse.Namespace) -> None:
    core = _Core(*_settings(arguments))
    port = await core.listen(arguments.port)
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    if arguments.json:  # started by OracleProcess: its pipe closes when it is gone
        await asyncio.to_thread(sys.stdin.read)
    else:
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_by_hand(_arguments()))


if __name__ == "__main__":
    main()
