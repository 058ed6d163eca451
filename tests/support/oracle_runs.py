"""Responses that a server generates, and what it gives out of them: live, again, or whole."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from urllib.parse import parse_qs, urlsplit

from tests.support._http import HttpConnection, Request
from tests.support.oracle_responses import Events, Keeping
from tests.support.oracle_settings import Fault, FaultKind, Record
from tests.support.oracle_wire import ApiError, ChatRequest, Json, PieceCutter

__all__ = ["Ended", "Run", "Runs"]

_BREATH = 64  # events between two looks at the rest of the world when there is no delay
TOO_OLD = "This response can no longer be streamed because it is more than 5 minutes old."


class Ended(Exception):
    """A fault has ended the answer and its connection."""


class Run:
    """One response: what was generated of it so far."""

    def __init__(self, request: ChatRequest, events: Events, record: Record) -> None:
        """Begin with the events before the first text."""
        self.request = request
        self.events = events
        self.record = record
        self.sent = events.opening()
        self.tokens = [0] * len(self.sent)  # generated when the event was
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self._grown = asyncio.Event()

    async def generate(
        self,
        cutter: PieceCutter,
        *,
        delay_s: float,
        hold_at: int | None,
        held: Callable[[], Awaitable[None]],
        settle: Callable[[Record], None],
    ) -> None:
        """Generate to the end."""
        for number, piece in enumerate(cutter):
            self._count(len(piece.ids))
            self._add(self.events.piece(piece), cutter.count)
            if hold_at == cutter.count:
                await held()
            if delay_s:
                await asyncio.sleep(delay_s * len(piece.ids))
            elif number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        self.record.finish_reason = cutter.finish_reason
        settle(self.record)
        self._add(self.events.ending(cutter.finish_reason), cutter.count)
        self._end()

    def stop(self, status: str) -> None:
        """End the generation where it is."""
        if self.task is not None and not self.over:
            self.task.cancel()
            self.events.status = status
            self._end()

    async def grown(self) -> None:
        """Wait for more events, or the end."""
        self._grown.clear()
        if not self.over:
            await self._grown.wait()

    def _count(self, tokens: int) -> None:
        now = time.monotonic_ns()
        self.record.tokens += tokens
        self.record.last_token_ns = now
        self.record.first_token_ns = self.record.first_token_ns or now

    def _add(self, events: list[bytes], tokens: int) -> None:
        self.sent += events
        self.tokens += [tokens] * len(events)
        self._grown.set()

    def _end(self) -> None:
        self.over = True
        self._grown.set()


class Runs:
    """The responses of a server."""

    def __init__(self, keeping: Keeping) -> None:
        """Say what becomes of those in the background."""
        self._keeping = keeping
        self._runs: dict[str, Run] = {}

    def start(self, name: str, run: Run, work: Coroutine[None, None, None]) -> None:
        """Generate a response; remember it if it is to be kept."""
        run.task = asyncio.get_running_loop().create_task(work)
        if run.request.background and self._keeping is not Keeping.LOST:
            self._runs[name] = run

    def close(self) -> None:
        """Stop all."""
        for run in self._runs.values():
            run.stop("cancelled")

    async def deliver(
        self, conn: HttpConnection, run: Run, *, start: int = 0, fault: Fault | None = None
    ) -> None:
        """Stream a response from an event on; one that is not in the background ends with it."""
        conn.start(200, {"Content-Type": "text/event-stream; charset=utf-8"}, chunked=True)
        try:
            await self._stream(conn, run, start, fault)
        finally:
            if not run.request.background:
                run.stop("cancelled")
        conn.finish()

    async def _stream(
        self, conn: HttpConnection, run: Run, start: int, fault: Fault | None
    ) -> None:
        at = start
        while not (run.over and at == len(run.sent)):
            while at < len(run.sent):
                if _is_due(fault, run.tokens[at], run.tokens[at - 1] if at else 0):
                    await _strike(conn, fault)
                    fault = None
                conn.send(run.sent[at])
                at += 1
            await run.grown()

    async def answer(self, conn: HttpConnection, request: Request, fault: Fault | None) -> None:
        """Answer what is asked about one response.

        Raises:
            ApiError: If it is not known, or can't be given out as asked.
        """
        parts = urlsplit(request.path)
        name, _, action = parts.path.removeprefix("/v1/responses/").partition("/")
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        run = self._runs.get(name)
        if run is None:
            raise ApiError(404, f"Response with id '{name}' not found.")
        if (request.method, action) == ("POST", "cancel"):
            run.stop("cancelled")
            _json(conn, run.events.whole())
        elif action or request.method != "GET" or query.keys() - {"stream", "starting_after"}:
            raise ApiError(400, f"Unknown parameter: '{parts.query or action}'.")
        elif query.get("stream") != "true" or self._keeping is Keeping.WHOLE:
            _json(conn, run.events.whole(altered=self._keeping is Keeping.ALTERED))
        elif self._keeping in {Keeping.TOO_OLD, Keeping.ALTERED}:
            raise ApiError(400, TOO_OLD)
        else:
            start = int(query.get("starting_after", -1)) + 1
            start += self._keeping is Keeping.WITH_GAP
            start = 0 if self._keeping is Keeping.FROM_START else start
            await self.deliver(conn, run, start=start, fault=fault)


def _is_due(fault: Fault | None, tokens: int, before: int) -> bool:
    at = None if fault is None else fault.after_tokens
    return at is not None and before <= at < tokens


async def _strike(conn: HttpConnection, fault: Fault | None) -> None:
    assert fault is not None
    match fault.kind:
        case FaultKind.CUT:
            await conn.cut(reset=fault.reset)
            raise Ended
        case FaultKind.STALL:
            await conn.gone.wait()
        case FaultKind.GARBAGE:
            conn.send(fault.line.encode() + b"\n\n")
        case FaultKind.NO_FINISH:
            conn.finish()
            raise Ended
        case FaultKind.ERROR_EVENT:
            error = {"type": "error", "code": fault.code, "message": fault.message}
            conn.send(b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n")
            conn.finish()
            raise Ended
        case kind:
            raise AssertionError(f"{kind} is not for a stream of events")


def _json(conn: HttpConnection, value: Json) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    conn.respond(200, {"Content-Type": "application/json"}, body)
