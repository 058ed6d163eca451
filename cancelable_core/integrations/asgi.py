"""Cancelation for ASGI servers: every request is an operation.

Pure ASGI, so it works under any framework and needs none. What the middleware does to a
request:

* reads one message ahead of the application, so that it notices a client that left, and
  hands every message on, in order and unchanged;
* runs the application as an operation that a lost client, a time limit, a shutdown, or
  anybody with the registry can cancel;
* leaves the application alone once the last byte was handed to the server: background tasks
  outlive the client;
* answers for an application that was stopped before it answered: 504 after a time limit,
  503 otherwise.
"""

from __future__ import annotations

import json
import logging
import math
import signal
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from cancelable_core._background import Background
from cancelable_core._errors import CancelationError
from cancelable_core._loops import in_main_thread
from cancelable_core._operation import Cancelable
from cancelable_core._registry import OperationRegistry
from cancelable_core._signals import SignalHub, signal_hub
from cancelable_core._sources import TimeoutSource
from cancelable_core._token import CancelationToken
from cancelable_core._types import CancelationReason, Cause, Seconds, to_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping

    Message: TypeAlias = MutableMapping[str, Any]
    Scope: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
    Lifespan: TypeAlias = Callable[[Any], Any]

__all__ = ("CancelationMiddleware", "GracefulShutdown", "request_operation")

SCOPE_KEY = "cancelable_core.operation"
CLIENT_GONE = "the client disconnected"
READ_AHEAD = 64
"""Messages of a WebSocket that wait for the application at most."""

logger = logging.getLogger("cancelable_core.asgi")


def request_operation(scope: Scope) -> Cancelable | None:
    """The operation of the request that an ASGI scope describes, under the middleware."""
    operation: Cancelable | None = scope.get(SCOPE_KEY)
    return operation


class GracefulShutdown:
    """Ends a server's work in two phases when the process is told to stop.

    On a signal, new requests get 503 with ``Retry-After``; running ones are asked to end and,
    after the grace, stopped. The server's own handlers are called as ever.

    Args:
        grace: Seconds between asking and stopping.
        retry_after: Seconds that clients are told to wait.
        signals: What counts as being told to stop.

    Example:
        >>> from fastapi import FastAPI
        >>> shutdown = GracefulShutdown(grace=20)
        >>> app = FastAPI(lifespan=shutdown.lifespan)
        >>> app.add_middleware(CancelationMiddleware, shutdown=shutdown)
    """

    def __init__(
        self,
        *,
        grace: Seconds = 30.0,
        retry_after: int = 5,
        signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT),
        hub: SignalHub = signal_hub,
    ) -> None:
        """Wait for :meth:`lifespan` before listening to signals."""
        self.grace = to_seconds(grace)
        self.retry_after = retry_after
        self.token = CancelationToken(name="shutdown")
        self._signals = signals
        self._hub = hub

    @property
    def is_shutting_down(self) -> bool:
        """Whether new requests are refused."""
        return self.token.is_cancelled

    def begin(
        self, message: str = "the server is shutting down", signum: int | None = None
    ) -> None:
        """Start to shut down; from any thread or signal handler."""
        reason = CancelationReason.MANUAL if signum is None else CancelationReason.SIGNAL
        self.token.cancel_with(
            Cause(
                reason=reason, message=message, origin="shutdown", grace=self.grace, signum=signum
            )
        )

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None, None]:
        """An ASGI framework's lifespan that listens to the signals.

        Outside the main thread, as under a test client, there are none to listen to.
        """
        del app
        if not in_main_thread():
            yield
            return
        with self._hub.subscribe(self._signals, self._on_signal):
            yield

    def around(self, lifespan: Lifespan) -> Lifespan:
        """A lifespan that does this and what ``lifespan`` does."""

        @asynccontextmanager
        async def both(app: object) -> AsyncGenerator[Any, None]:
            async with self.lifespan(app), lifespan(app) as state:
                yield state

        return both

    def _on_signal(self, signum: int) -> None:
        self.begin(signal.Signals(signum).name, signum)


class CancelationMiddleware:
    """Runs every HTTP request and WebSocket as an operation.

    Args:
        app: The application.
        timeout: Seconds until the last byte must have been handed to the server.
        registry: Lists the operations.
        shutdown: Ends them when the process is told to stop.
    """

    def __init__(
        self,
        app: App,
        *,
        timeout: Seconds | None = None,
        registry: OperationRegistry | None = None,
        shutdown: GracefulShutdown | None = None,
    ) -> None:
        """Wrap ``app``."""
        self._app = app
        self._sources = () if timeout is None else (TimeoutSource(timeout),)
        self._registry = registry
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        if self._shutdown is not None and self._shutdown.is_shutting_down:
            await exchange.refuse(503, "the server is shutting down", self._shutdown.retry_after)
            return
        operation = Cancelable(
            name=f"{scope.get('method', 'WEBSOCKET')} {scope['path']}",
            sources=self._sources,
            linked_to=() if self._shutdown is None else (self._shutdown.token,),
            registry=self._registry,
        )
        try:
            await exchange.run(self._app, operation)
        except CancelationError as error:
            await self._answer(exchange, error)

    async def _answer(self, exchange: _Exchange, error: CancelationError) -> None:
        logger.info("%s: %s", exchange.label, error)
        if exchange.started or exchange.gone is not None:
            return
        if isinstance(error, TimeoutError) or error.cause.root.reason is CancelationReason.TIMEOUT:
            await exchange.refuse(504, str(error))
        else:
            retry_after = None if self._shutdown is None else self._shutdown.retry_after
            await exchange.refuse(503, str(error), retry_after)


class _Exchange:
    """One request and its response, seen from between server and application."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.label = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        self.started = False
        self.finished = False
        self.gone: Message | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_http = scope["type"] == "http"
        self._inbox: deque[Message] = deque()
        self._changed = anyio.Event()
        self._readers = 0
        self._operation = Cancelable()

    async def run(self, app: App, operation: Cancelable) -> None:
        """Run the application as ``operation``."""
        self._operation = operation
        scope = {**self._scope, SCOPE_KEY: operation}
        async with operation, Background() as background:
            background.start_soon(self._read_ahead)
            await app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        """The next message, for the application."""
        self._readers += 1
        self._wake()
        try:
            while not self._inbox:
                if self.gone is not None:
                    return self.gone
                await self._changed.wait()
        finally:
            self._readers -= 1
        self._wake()
        return self._inbox.popleft()

    async def send(self, message: Message) -> None:
        """Pass a message of the application on."""
        if message["type"] in ("http.response.start", "websocket.accept"):
            self.started = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._finish()
        await self._send(message)

    async def refuse(self, status: int, detail: str, retry_after: int | None = None) -> None:
        """Answer in the application's place."""
        if not self._is_http:
            await self._send({"type": "websocket.close", "code": 1012, "reason": detail[:120]})
            return
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if retry_after is not None:
            headers.append((b"retry-after", b"%d" % retry_after))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _finish(self) -> None:
        """The last byte is with the server: no limit and no lost client matters any more."""
        self.finished = True
        self._operation.reschedule(math.inf)

    async def _read_ahead(self) -> None:
        if self._expects_continue():
            await self._until(lambda: self._readers > 0)
        while True:
            message = await self._receive()
            if message["type"] in ("http.disconnect", "websocket.disconnect"):
                await self._lose(message)
                return
            self._inbox.append(message)
            self._wake()
            await self._until(lambda: len(self._inbox) < self._allowance())

    def _allowance(self) -> int:
        """How many messages may wait: the last of a body hides whether the client is there."""
        if not self._is_http:
            return READ_AHEAD
        last = not self._inbox or not self._inbox[-1].get("more_body", False)
        return 2 if last else 1

    async def _lose(self, message: Message) -> None:
        # A WebSocket's reader is told in the usual way and gets the time to act on it. A
        # request is cancelled, and only a reader that is shielded from that is told.
        told = not self._is_http and self._readers > 0
        self.gone = message
        try:
            if not self.finished:
                grace = 5.0 if told else 0.0
                self._operation.cancel(CancelationReason.EXTERNAL, CLIENT_GONE, grace=grace)
                if not told:
                    await anyio.sleep_forever()
        finally:
            self._wake()

    def _expects_continue(self) -> bool:
        """Whether reading would tell the client to send a body nobody asked for yet."""
        return any(name.lower() == b"expect" for name, _ in self._scope.get("headers", ()))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _wake(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()
