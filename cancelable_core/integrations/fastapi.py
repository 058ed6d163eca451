# ruff: noqa: ANN401  (the framework's own arguments are passed on)
# ruff: noqa: SLF001  (the modules of this package are friends)
"""Cancelation for FastAPI: dependencies, responses and WebSockets that end in time.

Add :class:`CancelationMiddleware` to the application; everything else here hangs on the
operation that it runs each request as.

Example:
    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> app.add_middleware(CancelationMiddleware, timeout=30)
    >>> @app.get("/slow")
    ... async def slow(cancel: Cancelable = Depends(cancelable_dependency(timeout=5))) -> str:
    ...     async with cancel:
    ...         return "in time"
"""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, overload

import anyio
from fastapi.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from cancelable_core._background import Background
from cancelable_core._errors import CancelationError
from cancelable_core._operation import Cancelable
from cancelable_core._sources import TimeoutSource
from cancelable_core._stream import CancelableStream
from cancelable_core._stream_limits import cancelable_stream
from cancelable_core._types import CancelationReason

from .asgi import (
    CLIENT_GONE,
    READ_AHEAD,
    CancelationMiddleware,
    GracefulShutdown,
    request_operation,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from starlette.types import Message, Receive, Scope, Send

    from cancelable_core._types import Seconds

__all__ = (
    "CancelableStreamingResponse",
    "CancelableWebSocket",
    "CancelationMiddleware",
    "GracefulShutdown",
    "cancelable_dependency",
)


class CancelableDependency:
    """Gives a route an operation that ends with its request; enter it in the route.

    ``Depends(cancelable_dependency)`` or ``Depends(cancelable_dependency(timeout=5))``.
    A ``def`` route does not enter it: it calls ``check()`` in its thread.
    """

    def __init__(self, timeout: Seconds | None = None) -> None:
        """Make operations with a limit of ``timeout`` seconds."""
        self._sources = () if timeout is None else (TimeoutSource(timeout),)
        # FastAPI reads the signature here, and asks __call__ whether it has to be awaited.
        # So nothing of ours becomes a parameter of the route, and no thread is involved.
        self.__signature__ = inspect.signature(self._open)
        vars(self)["__call__"] = self._open

    @overload
    def __call__(self, *, timeout: Seconds | None = None) -> CancelableDependency: ...
    @overload
    def __call__(self, connection: HTTPConnection) -> Any: ...
    def __call__(
        self, connection: HTTPConnection | None = None, *, timeout: Seconds | None = None
    ) -> Any:
        """Be called by FastAPI; or make a dependency with a time limit."""
        return CancelableDependency(timeout) if connection is None else self._open(connection)

    async def _open(self, connection: HTTPConnection) -> Cancelable:
        request = request_operation(connection.scope)
        name = f"{connection.scope.get('method', 'WEBSOCKET')} {connection.scope['path']}"
        return Cancelable(name=name, parent=request, sources=self._sources)


CancelableDependency._open.__annotations__.update(  # FastAPI wants types, not their names
    connection=HTTPConnection, **{"return": Cancelable}
)
cancelable_dependency = CancelableDependency()
"""The dependency without a limit of its own; called, one with a limit."""


class CancelableStreamingResponse(StreamingResponse):
    """A streaming response whose source is closed however it ends.

    Nothing is sent before the first chunk is there, so a limit that strikes earlier can still
    be answered with 504.

    Args:
        content: Chunks, as for ``StreamingResponse``.
        cancel: An operation that has not been entered; the response enters it.
    """

    def __init__(self, content: Any, cancel: Cancelable | None = None, **options: Any) -> None:
        """Stream ``content`` under ``cancel``; ``options`` are Starlette's."""
        super().__init__(content, **options)
        self._operation = cancel or Cancelable(name="response")
        self._stopped: CancelationError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. What stopped it comes out as it is.

        Starlette takes a time limit's error, which is an ``OSError``, for a client that left
        (under ASGI 2.4), or (before 0.46) groups it.
        """
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            if self._stopped is not None:
                raise self._stopped from self._stopped.__cause__
            raise

    async def stream_response(self, send: Send) -> None:
        """Send the chunks."""
        try:
            await self._send_chunks(send)
        except CancelationError as error:
            self._stopped = error
            raise

    async def _send_chunks(self, send: Send) -> None:
        start: Message | None = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        stream: CancelableStream[Any]
        async with self._operation as operation:
            async with cancelable_stream(self.body_iterator, operation) as stream:
                async for chunk in stream:
                    if start is not None:
                        await send(start)
                        start = None
                    body = chunk if isinstance(chunk, bytes) else str(chunk).encode(self.charset)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            if start is not None:
                await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class CancelableWebSocket:
    """A WebSocket whose block ends when the client leaves, whatever it is waiting for.

    Example:
        >>> async def serve(websocket: WebSocket) -> None:
        ...     async with CancelableWebSocket(websocket) as connection:
        ...         while True:
        ...             await connection.send_text(await connection.receive_text())
    """

    def __init__(self, websocket: WebSocket, *, timeout: Seconds | None = None) -> None:
        """Wrap ``websocket``, optionally for at most ``timeout`` seconds."""
        self.websocket = websocket
        self.operation = Cancelable(
            name=f"WEBSOCKET {websocket.scope['path']}",
            parent=request_operation(websocket.scope),
            sources=() if timeout is None else (TimeoutSource(timeout),),
            when_cancelled="raise",
        )
        self._stack = AsyncExitStack()
        self._put, self._inbox = anyio.create_memory_object_stream[Any](READ_AHEAD)

    @property
    def disconnected(self) -> bool:
        """Whether the client has left."""
        cause = self.operation.cause
        return cause is not None and cause.root.message == CLIENT_GONE

    async def __aenter__(self) -> Self:
        """Accept the connection, if that was not done, and start to listen."""
        if self.websocket.client_state.name == "CONNECTING":
            await self.websocket.accept()
        await self._stack.enter_async_context(self.operation)
        background = await self._stack.enter_async_context(Background())
        background.start_soon(self._listen)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        """Stop listening. A client that left ends the block without an error."""
        try:
            return await self._stack.__aexit__(exc_type, exc, tb)
        except CancelationError:
            if not self.disconnected:
                raise
            return True
        finally:
            self._put.close()
            self._inbox.close()

    async def receive(self) -> Message:
        """The next message of the client."""
        message: Message = await self._inbox.receive()
        return message

    async def receive_text(self) -> str:
        """The next message, as text."""
        return str((await self.receive())["text"])

    async def receive_bytes(self) -> bytes:
        """The next message, as bytes."""
        return bytes((await self.receive())["bytes"])

    async def send_text(self, data: str) -> None:
        """Send text."""
        await self.websocket.send_text(data)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        await self.websocket.send_bytes(data)

    async def send_json(self, data: object) -> None:
        """Send an object as JSON text."""
        await self.websocket.send_json(data)

    async def _listen(self) -> None:
        while True:
            try:
                message = await self.websocket.receive()
            except (WebSocketDisconnect, RuntimeError):
                return
            if message["type"] == "websocket.disconnect":
                self.operation.cancel(CancelationReason.EXTERNAL, CLIENT_GONE)
                return
            await self._put.send(message)
