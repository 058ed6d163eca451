"""Just enough of an HTTP/1.1 server connection for servers that misbehave on purpose.

Two properties no ordinary server library gives: the handler learns at once that the client is gone
(the socket is watched while a reply is written), and it is never held up by a client that merely
does not read (writes go to an unbounded buffer).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from tests.support._sockets import delivered
from tests.support._sockets import reset as send_reset

__all__ = ["HttpConnection", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class HttpConnection(asyncio.Protocol):
    """One client. ``serve`` runs as a task and is cancelled when the client goes."""

    def __init__(
        self, serve: Callable[[HttpConnection], Awaitable[None]], *, old: bool = False
    ) -> None:
        """Remember the coroutine function that will serve this connection.

        ``old`` speaks HTTP/1.0: no chunks, and the connection's end is the body's.
        """
        self._serve = serve
        self._version = "HTTP/1.0" if old else "HTTP/1.1"
        self._old = old
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._chunked = False
        self._task: asyncio.Task[None] | None = None
        self.gone_ns: int | None = None
        self.gone = asyncio.Event()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        self.transport = cast("asyncio.Transport", transport)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Keep request bytes."""
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> bool:
        """Take a half-close as the end of the client, as most servers do."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Take a reset, or our own close, as the end."""
        self._leave()

    def _leave(self) -> None:
        if self.gone_ns is None:
            self.gone_ns = time.monotonic_ns()
            self.gone.set()
            self._arrived.set()
            if self._task is not None:
                self._task.cancel()

    async def _run(self) -> None:
        # Our own cancel is the message that the client has gone: it ends here.
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(self)
        self.transport.close()

    # Reading.

    async def read_request(self) -> Request | None:
        """Return the next request, or None when the client has closed."""
        head = await self._read_until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _version = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return Request(method, path, headers, await self._read_body(headers))

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._read_exactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int((await self._read_until(b"\r\n") or b"0").split(b";")[0], 16):
            body += await self._read_exactly(size)
            await self._read_until(b"\r\n")
        await self._read_until(b"\r\n")
        return body

    async def _read_until(self, mark: bytes) -> bytes | None:
        while (at := self._buffer.find(mark)) < 0:
            if self.gone_ns is not None:
                return None
            await self._more()
        data = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return data

    async def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size and self.gone_ns is None:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    # Writing. Nothing here waits for the client.

    def start(self, status: int, headers: Mapping[str, str], *, chunked: bool = False) -> None:
        """Send the status line and headers, and open a chunked body if asked."""
        self._chunked = chunked and not self._old
        fields = {**headers, **({"Transfer-Encoding": "chunked"} if self._chunked else {})}
        lines = [f"{self._version} {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not data:
            return
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End a chunked body as the protocol wants it."""
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")
            self._chunked = False
        elif self._old:
            self.transport.close()

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole response."""
        self.start(status, {**headers, "Content-Length": str(len(body))})
        self.send(body)

    # Endings that no server means.

    async def cut(self, *, reset: bool) -> None:
        """Close in the middle of the body: what was sent arrives, then FIN or RST."""
        await delivered(self.transport)
        if reset:
            send_reset(self.transport)
        self.transport.abort()
