"""A strict double of llama-server's native endpoints whose model is the oracle.

In-process, in a thread::

    with LlamaDouble(LlamaSettings(slots=4)) as server:
        ...                                       # talk to server.base_url
        server.lose(after=9)                      # the next reply loses its connection there

Its arithmetic depends on how its cache came about, as the real one's does: a cell that was
evaluated together with others has a mark of that batch, and the marks go into every draw. So a
reply that is prefilled again goes on differently, and one whose state was restored does not.
With several slots nothing repeats, and a restart (``restart()``) may change the arithmetic.

Stricter than the real one in one way: a field that is unknown there is an error here.
Everything else (words, shapes, lost ids, the ring, what ``DELETE`` does) is as observed on
xllamacpp 2026.10.11549.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support._http import HttpConnection, Request
from tests.support._loop_thread import LoopThread
from tests.support.oracle import VOCABULARY, Message, Oracle, Plan, Rng, Sampling, Special, render
from tests.support.oracle_wire import Piece, PieceCutter

__all__ = ["LlamaDouble", "LlamaSettings", "Sabotage"]

Json = dict[str, Any]

SEED_CHANGES = 12

_DIRECTIVE = re.compile(r"\blength=(\d+)\b")
_SPECIAL = re.compile(r"<\|im_(\w+)\|>")
_FIELDS: Mapping[str, set[str]] = {
    "/apply-template": {"messages"},
    "/tokenize": {"content", "add_special", "parse_special"},
    "/detokenize": {"tokens"},
    "/slots/0": {"filename"},
    "/completion": {
        "prompt", "n_predict", "temperature", "top_p", "seed", "stop", "stream", "return_tokens",
        "timings_per_token", "return_progress", "cache_prompt", "presence_penalty",
        "repeat_penalty",
    },
    "/v1/chat/completions": {
        "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "stream",
        "timings_per_token", "return_progress", "cache_prompt", "continue_final_message",
        "add_generation_prompt",
    },
}  # fmt: skip
_SAMPLER = {
    "seed": 2**32 - 1, "temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0.0, "mirostat": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sabotage:
    """What the server does wrong without a word; each must be seen by whoever compares.

    Attributes:
        seed: another seed than was asked for from the `SEED_CHANGES`-th token on, from the second
            reply on.
        id: the last id of a prompt that goes on with a reply is another one.
        state: a restored state is another one.
        chunk: an event is missing in what is read on.
    """

    seed: bool = False
    id: bool = False
    state: bool = False
    chunk: bool = False


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """The model, the build and the pace. Times are in seconds."""

    rng: Rng = Rng.STATEFUL
    canonical: bool = False
    length: int | None = None
    reasoning: int = 0
    context: int = 1 << 16
    batch: int = 64
    slots: int = 1
    loses_ids: bool = True
    keeps_runs: bool = True
    saves_slots: bool = True
    tells_process: bool = True
    ring: int = 4 << 20
    sampler: Mapping[str, Any] = field(default_factory=dict)
    tokens_per_event: int | tuple[int, ...] = 1
    bytes_per_write: int | None = None
    delay_s: float = 0.0
    api_key: str | None = None
    hangs_up: bool = False  # on the request behind a stream, on the same connection
    sabotage: Sabotage = field(default_factory=Sabotage)


class _Wrong(Exception):
    """An answer in llama-server's error shape."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"code": status, "message": message, "type": kind}


@dataclass(frozen=True, slots=True)
class _Cell:
    """A token in the cache, and the batch it was evaluated in (0: alone)."""

    token: int
    batch: int = 0


@dataclass(slots=True)
class _Run:
    """What one request generates, and what of it is still kept."""

    name: str | None
    limit: int
    data: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    base: tuple[_Cell, ...] = ()
    places: list[int] = field(default_factory=list)
    done: bool = False
    ids: list[int] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    last_token_ns: int = 0

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def place(self, pieces: int) -> int:
        """Return behind which byte so many pieces stand."""
        return self.places[pieces - 1] if pieces <= len(self.places) else 1 << 62

    def add(self, data: bytes, *, piece: bool = False) -> None:
        self.data += data
        if piece:
            self.places.append(self.dropped + len(self.data))
        over = len(self.data) - self.limit
        if over > 0:
            del self.data[:over]
            self.dropped += over
        self.wake()

    def wake(self) -> None:
        self.more.set()
        self.more = asyncio.Event()


class _Core:
    """Everything that happens in the loop."""

    def __init__(self, settings: LlamaSettings) -> None:
        self.settings = settings
        self.requests: list[tuple[str, str, Json]] = []
        self.prompts: list[list[int]] = []
        self.all_runs: list[_Run] = []
        self.connections = 0
        self.evaluated = 0
        self.lose_at: list[int] = []
        self.hold_at: list[int] = []
        self.released = asyncio.Event()
        self.process = 0
        self.arithmetic = 0
        self.files: dict[str, tuple[_Cell, ...]] = {}
        self._cells: tuple[_Cell, ...] = ()
        self._runs: dict[str, _Run] = {}
        self._oracle = Oracle(settings.rng, canonical=settings.canonical)
        self.open: set[HttpConnection] = set()
        self._after_stream: set[HttpConnection] = set()
        self._free = asyncio.Lock()

    # Serving.

    async def listen(self, port: int) -> int:
        loop = asyncio.get_running_loop()
        make = lambda: HttpConnection(self._serve)  # noqa: E731  (a factory)
        self._server = await loop.create_server(make, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for run in self.all_runs:
            self._stop(run)
        for conn in list(self.open):
            conn.transport.abort()

    async def _serve(self, conn: HttpConnection) -> None:
        self.connections += 1
        self.open.add(conn)
        try:
            while (request := await conn.read_request()) is not None:
                if conn in self._after_stream:
                    return
                try:
                    await self._answer(conn, request)
                except _Wrong as wrong:
                    _json(conn, wrong.status, {"error": wrong.error})
        finally:
            self.open.discard(conn)

    async def _answer(self, conn: HttpConnection, request: Request) -> None:
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        key = self.settings.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise _Wrong(401, "Invalid API Key", "authentication_error")
        body: Json = json.loads(request.body) if request.body else {}
        self.requests.append((request.method, request.path, body))
        match request.method, url.path:
            case "GET", "/props":
                _json(conn, 200, self._props())
            case "GET", "/v1/models":
                meta = {"n_vocab": len(VOCABULARY), "n_params": 1}
                _json(conn, 200, {"data": [{"id": "oracle", "owned_by": "llamacpp", "meta": meta}]})
            case "GET", "/v1/stream":
                await self._read_on(conn, query)
            case "DELETE", "/v1/stream":
                if (run := self._runs.pop(query["conv_id"], None)) is not None:
                    self._stop(run)
                conn.respond(204, {}, b"")
            case "POST", path if path in _FIELDS:
                shared = _FIELDS["/completion"] if path == "/apply-template" else set()
                unknown = body.keys() - _FIELDS[path] - shared - {"model"}
                if unknown:
                    raise _Wrong(400, f"Unknown field {', '.join(sorted(unknown))}")
                await self._post(conn, path, body, request.headers, query)
            case _:
                raise _Wrong(404, "File Not Found", "not_found_error")

    async def _post(
        self,
        conn: HttpConnection,
        path: str,
        body: Json,
        headers: Mapping[str, str],
        query: Mapping[str, str],
    ) -> None:
        match path:
            case "/apply-template":
                _json(conn, 200, {"prompt": _rendered(body["messages"])})
            case "/tokenize":
                _json(conn, 200, {"tokens": _tokens(**{**body, "model": None})})
            case "/detokenize":
                text = VOCABULARY.decode(body["tokens"]).decode("utf-8", "replace")
                _json(conn, 200, {"content": text})
            case "/slots/0":
                _json(conn, 200, await self._slot(query.get("action"), body["filename"]))
            case "/v1/chat/completions":
                goes_on = body.get("continue_final_message")
                if goes_on and body.get("add_generation_prompt", True):
                    raise _Wrong(400, "Cannot set both.")
                heard = [Message(m["role"], m["content"], m.get("reasoning_content"))
                         for m in body["messages"]]  # fmt: skip
                ids = [int(i) for i in render(heard, continue_final=bool(goes_on))]
                body |= {"prompt": ids, "n_predict": body.get("max_tokens", -1), "said": goes_on}
                await self._complete(conn, body, headers.get("x-conversation-id"))
            case _:
                await self._complete(conn, body, headers.get("x-conversation-id"))

    def _props(self) -> Json:
        word = f"<__media_{self.process}__>" if self.settings.tells_process else "<__media__>"
        params = {**_SAMPLER, **self.settings.sampler}
        return {
            "default_generation_settings": {"params": params, "n_ctx": self.settings.context},
            "total_slots": self.settings.slots,
            "model_path": "oracle.gguf",
            "media_marker": word,
            "chat_template": "<think>{{ messages }}"
            if self.settings.reasoning
            else "{{ messages }}",
            "build_info": "b0-double",
        }

    async def _slot(self, action: str | None, name: str) -> Json:
        if not self.settings.saves_slots:
            text = "This server does not support slots action. Start it with `--slot-save-path`"
            raise _Wrong(501, text, "not_supported_error")
        if "/" in name:
            raise _Wrong(400, "Invalid filename")
        async with self._free:  # what is generated now comes first
            if action == "save":
                self.files[name] = self._cells
                return {"id_slot": 0, "filename": name, "n_saved": len(self._cells)}
            if action != "restore":
                raise _Wrong(400, "Invalid action")
            if name not in self.files:
                raise _Wrong(400, "Unable to restore slot: No available space in KV cache")
            self._cells = self.files[name]
            if self.settings.sabotage.state:
                self._cells = (_Cell(self._cells[0].token, 999), *self._cells[1:])
            return {"id_slot": 0, "filename": name, "n_restored": len(self._cells)}

    # Generating.

    async def _complete(self, conn: HttpConnection, body: Json, name: str | None) -> None:
        prompt = _checked(body["prompt"])
        if len(prompt) >= self.settings.context:
            wrong = _Wrong(400, "too long", "exceed_context_size_error")
            wrong.error |= {"n_prompt_tokens": len(prompt), "n_ctx": self.settings.context}
            raise wrong
        kept = name if self.settings.keeps_runs else None
        if kept is not None and (old := self._runs.get(kept)) is not None:
            self._stop(old)
        spoiled = prompt[-1] >= len(Special) and self.settings.sabotage.id
        self.prompts.append([*prompt[:-1], prompt[-1] ^ 1] if spoiled else prompt)
        run = _Run(kept, self.settings.ring)
        self.all_runs.append(run)
        if kept is not None:
            self._runs[kept] = run
        run.task = asyncio.get_running_loop().create_task(self._generate(run, body, prompt))
        lose_at = self.lose_at.pop(0) if self.lose_at else None
        try:
            await self._deliver(conn, run, 0, lose_at)
        finally:
            if kept is None:
                self._stop(run)

    async def _generate(self, run: _Run, body: Json, prompt: list[int]) -> None:
        try:
            await self._generated(run, body, prompt)
        finally:
            run.done = True
            run.wake()

    async def _generated(self, run: _Run, body: Json, prompt: list[int]) -> None:
        async with self._free:
            cached = self._prefill(prompt, use=body.get("cache_prompt", True))
            self.evaluated += len(prompt) - cached
            run.base = self._cells
            chat = "messages" in body
            told = (_ToldInChat if chat else _Told)(run, cached, len(prompt) - cached)
            if body.get("return_progress"):
                run.add(told.progress())
            cutter = self._cutter(body, prompt)
            hold_at = self.hold_at.pop(0) if self.hold_at else None
            held: list[int] = []
            for piece in cutter:
                if self.settings.delay_s:
                    await asyncio.sleep(self.settings.delay_s * len(piece.ids))
                self._evaluate(run, piece)
                held += piece.ids
                if piece.text:
                    ids = self._ids_told(held)
                    run.add(told.piece(piece.text, ids, thinking=piece.thinking), piece=True)
                    held = []
                if hold_at is not None and len(run.places) >= hold_at:
                    await self.released.wait()
            run.add(told.end(cutter, full=self._is_full(prompt, cutter)))

    def _cutter(self, body: Json, prompt: list[int]) -> PieceCutter:
        asked = body.get("n_predict", -1)
        room = self.settings.context - len(prompt)
        heard = [*self._salt(), *self.prompts[-1]]
        temperature, top_p = body.get("temperature", 0.8), body.get("top_p", 0.95)
        sampling = Sampling(temperature, top_p, body.get("seed", 0))
        question = VOCABULARY.decode(prompt).decode("utf-8", "replace")
        found = _DIRECTIVE.search(question)
        length = int(found[1]) if found else self.settings.length
        plan = Plan(length=length, reasoning=self.settings.reasoning)
        tokens = self._oracle.generate(heard, sampling=sampling, plan=plan)
        if len(self.all_runs) > 1 and self.settings.sabotage.seed:
            first = list(itertools.islice(tokens, SEED_CHANGES))
            other = Sampling(temperature, top_p, sampling.seed + 1)
            rest = self._oracle.generate([*heard, *first], sampling=other, plan=plan)
            tokens = itertools.chain(first, rest)
        sizes = self.settings.tokens_per_event
        return PieceCutter(
            tokens,
            itertools.cycle((sizes,) if isinstance(sizes, int) else sizes),
            max_tokens=room if asked < 0 else min(room, asked),
            thinking=body.get("said") == "reasoning_content",
            stops=tuple(body.get("stop") or ()),
        )

    def _prefill(self, prompt: Sequence[int], *, use: bool) -> int:
        """Evaluate what the cache has not; return how much it had."""
        pairs = zip(self._cells, prompt, strict=False) if use else ()
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0].token == pair[1], pairs))
        cached = min(same, len(prompt) - 1)
        cells = list(self._cells[:cached])
        for start in range(cached, len(prompt), self.settings.batch):
            part = prompt[start : start + self.settings.batch]
            mark = 0 if len(part) == 1 else hash((start, len(part), self.arithmetic)) % 60000 + 1
            cells += [_Cell(token, mark) for token in part]
        self._cells = tuple(cells)
        return cached

    def _evaluate(self, run: _Run, piece: Piece) -> None:
        """Put into the cache what the next token needs: all but the token sampled last."""
        run.ids += piece.ids
        run.last_token_ns = time.monotonic_ns()
        self._cells = (*run.base, *map(_Cell, run.ids[:-1]))

    def _salt(self) -> list[int]:
        """Return ids that stand for how the cache came about."""
        marks = [(at, cell.batch) for at, cell in enumerate(self._cells) if cell.batch]
        state = [marks, self.arithmetic, len(self.prompts) if self.settings.slots > 1 else 0]
        digest = hashlib.sha256(json.dumps(state).encode()).digest()
        return [1000 + digest[0], 1000 + digest[1], 1000 + digest[2]]

    def _ids_told(self, held: list[int]) -> list[int]:
        """Return the ids that come with a piece; those that end inside a character don't."""
        if not self.settings.loses_ids:
            return held
        data, told = b"", []
        for token in held:
            data += VOCABULARY.pieces[token]
            if not _is_open(data):
                told.append(token)
        return told

    def _is_full(self, prompt: list[int], cutter: PieceCutter) -> bool:
        return len(prompt) + cutter.count >= self.settings.context

    def _stop(self, run: _Run) -> None:
        if run.task is not None and not run.done:
            run.task.cancel()
        run.done = True
        run.wake()

    # Delivering.

    async def _deliver(
        self, conn: HttpConnection, run: _Run, at: int, lose_at: int | None = None
    ) -> None:
        headers = {"Content-Type": "text/event-stream", "Keep-Alive": "timeout=5, max=100"}
        conn.start(200, headers, chunked=True)
        while True:
            data, more, done = bytes(run.data[at - run.dropped :]), run.more, run.done
            last = None if lose_at is None else run.place(lose_at) - at
            for part in _parts(data[:last], self.settings.bytes_per_write):
                conn.send(part)
            at += len(data)
            if last is not None and last <= len(data):
                await conn.cut(reset=False)
                return
            if done:
                conn.finish()
                self._after_stream |= {conn} if self.settings.hangs_up else set()
                return
            if not data:
                await more.wait()

    async def _read_on(self, conn: HttpConnection, query: Mapping[str, str]) -> None:
        if "conv_id" not in query:
            raise _Wrong(400, "Missing conversation id in path")
        run = self._runs.get(query["conv_id"])
        if run is None:
            raise _Wrong(404, "File Not Found", "not_found_error")
        at = int(query.get("from", "0"))
        if at < run.dropped:
            raise _Wrong(400, "Stream offset lost, please restart")
        if self.settings.sabotage.chunk:
            _drop_event(run, at)
        await self._deliver(conn, run, at)

    def clear(self) -> None:
        """Empty the cache."""
        self._cells = ()

    def forget_runs(self) -> None:
        """Let go of all runs, as the time limit behind their ends does."""
        self._runs.clear()


def _drop_event(run: _Run, at: int) -> None:
    """Take the second event behind a place away."""
    first = run.data.find(b"\n\n", at - run.dropped) + 2
    second = run.data.find(b"\n\n", first) + 2
    if first > 1 and second > 1 and b'"stop": false' in run.data[first:second]:
        del run.data[first:second]


@dataclass(slots=True)
class _Told:
    """Makes the events of a completion."""

    run: _Run
    cached: int
    evaluated: int

    def progress(self) -> bytes:
        total = self.cached + self.evaluated
        return self._event({**self._common("", [0]), "prompt_progress": {"total": total}})

    def piece(self, text: str, ids: list[int], *, thinking: bool) -> bytes:  # noqa: ARG002
        return self._event(self._common(text, ids))

    def end(self, cutter: PieceCutter, *, full: bool) -> bytes:
        limit = cutter.finish_reason == "length"
        ended = {"stop": True, "stop_type": "limit" if limit else "eos", "truncated": full}
        return self._event({**self._common("", []), **ended})

    def _common(self, text: str, ids: list[int]) -> Json:
        counts = {"cache_n": self.cached, "prompt_n": self.evaluated}
        timings = {**counts, "predicted_n": self.run.tokens}
        return {"index": 0, "content": text, "tokens": ids, "stop": False, "timings": timings}

    def _event(self, value: Json) -> bytes:
        return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class _ToldInChat(_Told):
    """Makes the events of a chat completion."""

    def progress(self) -> bytes:
        return self._event({"choices": [_choice({"role": "assistant", "content": None})]})

    def piece(self, text: str, ids: list[int], *, thinking: bool) -> bytes:  # noqa: ARG002
        part = {"reasoning_content" if thinking else "content": text}
        timings = self._common("", [])["timings"]
        return self._event({"choices": [_choice(part)], "timings": timings})

    def end(self, cutter: PieceCutter, *, full: bool) -> bytes:  # noqa: ARG002
        timings = self._common("", [])["timings"]
        return self._event({"choices": [_choice({}, cutter.finish_reason)], "timings": timings})


def _choice(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _rendered(messages: Sequence[Mapping[str, str]]) -> str:
    """Return a template's text; ``add_special`` puts the first token before it."""
    heard = [Message(m["role"], m["content"]) for m in messages]
    ids = render(heard)[1:]
    parts = [f"<|im_{Special(i).name}|>".encode() if i < len(Special) else VOCABULARY.pieces[i]
             for i in ids]  # fmt: skip
    return b"".join(parts).decode()


def _tokens(
    content: str, *, add_special: bool = False, parse_special: bool = True, **_: object
) -> list[int]:
    ids: list[int] = [Special.BOS] if add_special else []
    if not parse_special:
        return [*ids, *VOCABULARY.encode(content)]
    for at, part in enumerate(_SPECIAL.split(content)):
        ids += [Special[part]] if at % 2 else VOCABULARY.encode(part)
    return [int(token) for token in ids]


def _checked(prompt: object) -> list[int]:
    if not isinstance(prompt, list) or not prompt:
        raise _Wrong(400, '"prompt" must not be empty')
    if not all(type(token) is int and 0 <= token < len(VOCABULARY) for token in prompt):
        raise _Wrong(400, "Prompt contains invalid tokens")
    return prompt


def _is_open(data: bytes) -> bool:
    """Say whether bytes end inside a character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _parts(data: bytes, size: int | None) -> Iterator[bytes]:
    for start in range(0, len(data), size or len(data) or 1):
        yield data[start : start + (size or len(data))]


def _json(conn: HttpConnection, status: int, value: Json) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    conn.respond(status, {"Content-Type": "application/json"}, body)


class LlamaDouble:
    """The server in a thread of this process, between ``__enter__`` and ``__exit__``."""

    def __init__(self, settings: LlamaSettings | None = None) -> None:
        self.settings = settings or LlamaSettings()
        self._thread = LoopThread("llama-double")
        self._core = _Core(self.settings)

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._thread.__enter__()
        self.url = f"http://127.0.0.1:{self._thread.call(self._core.listen, 0)}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop every connection and stop."""
        with contextlib.suppress(asyncio.CancelledError):
            self._thread.call(self._core.close)
        self._thread.__exit__(kind, error, trace)

    @property
    def base_url(self) -> str:
        """The URL to give to a client (``--base-url``)."""
        return f"{self.url}/v1"

    def lose(self, after: int) -> None:
        """Close the next reply's connection behind that many pieces."""
        self._core.lose_at.append(after)

    def hold(self, at: int) -> None:
        """Generate nothing behind that many pieces of the next reply, until `release`."""
        self._core.hold_at.append(at)

    def release(self) -> None:
        """Hold nothing from now on."""
        self._thread.loop.call_soon_threadsafe(self._core.released.set)

    def forget_runs(self) -> None:
        """Let go of all runs."""
        self._core.forget_runs()

    def clear(self) -> None:
        """Empty the cache."""
        self._core.clear()

    def restart(self, *, changed: bool = False) -> None:
        """Be another process; ``changed`` gives it another arithmetic, too."""
        self._core.process += 1
        self._core.arithmetic += changed
        self._core.forget_runs()
        self._core._cells = ()

    def change_file(self) -> None:
        """Make every saved state that of another reply."""
        self._core.files = {name: cells[:-1] for name, cells in self._core.files.items()}

    def lose_files(self) -> None:
        """Keep no saved state."""
        self._core.files.clear()

    def wait_until_all_are_gone(self, timeout_s: float = 5.0) -> None:
        """Wait until no connection is open.

        Raises:
            TimeoutError: one still is.
        """
        deadline = time.monotonic() + timeout_s
        while self._core.open:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._core.open)} connections are open")
            time.sleep(0.002)

    def wait_until_generated(self, timeout_s: float = 5.0) -> None:
        """Wait until nothing is being generated.

        Raises:
            TimeoutError: something still is.
        """
        deadline = time.monotonic() + timeout_s
        while not all(run.done for run in self.runs):
            if time.monotonic() > deadline:
                raise TimeoutError("a run has not ended")
            time.sleep(0.002)

    @property
    def prompts(self) -> list[list[int]]:
        """The prompts of all completions so far."""
        return self._core.prompts

    @property
    def runs(self) -> list[_Run]:
        """What all completions have generated so far."""
        return self._core.all_runs

    @property
    def requests(self) -> list[tuple[str, str, Json]]:
        """Method, path and body of all requests so far."""
        return self._core.requests

    @property
    def connections(self) -> int:
        """How many were accepted."""
        return self._core.connections

    @property
    def evaluated(self) -> int:
        """How many tokens of prompts were evaluated."""
        return self._core.evaluated
