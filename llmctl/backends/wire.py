"""HTTP/1.1 for a thousand streams: POST a body, read what comes, keep the connection.

What general clients do for every read (events, states, wrappers, locks over a pool of all
connections) costs more than the bytes themselves when a thousand replies stream at once.
Here a connection is one `asyncio.Protocol`. A stream that trickles is read `PACE_S` at a
time: until then its bytes wait in the socket, and one read, one decoding and one record in
the journal serve them all.

Spoken is what servers of models speak: TLS or none, bodies by length, in chunks (RFC 9112,
section 7.1) or to the end of the connection. Not spoken: proxies, compression, HTTP/2; who
needs them uses the general client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from llmctl.backends.chunked import BadBody, Body, body_of

PACE_S = 0.05
"""Seconds between two reads of a stream that brings little at a time."""

_LITTLE = 4096
_HIGH_WATER = 1 << 20
_LONGEST_HEAD = 1 << 16


Gate = Callable[[], Awaitable[None]]


class WireBroken(Exception):
    """The connection failed, or what came is not HTTP."""


class Wire:
    """The connections to one server.

    Args:
        base_url: the server's address.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        gate: awaited on a connection just before a request is written.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float | None, gate: Gate) -> None:
        self._url = urlsplit(base_url)
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        self._gate = gate
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    def serves(self, url: str) -> bool:
        """Say whether an address is on this server."""
        return _origin(urlsplit(url)) == _origin(self._url)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WireResponse:
        """Send a body and return the answer, its own body still to be read.

        Args:
            url: an address on this server.
            headers: besides those of the connection and the body's length.
            body: JSON.

        Raises:
            OSError: no connection came about (`TimeoutError`: in time).
            WireBroken: it failed before the answer began.
        """
        request = _request(urlsplit(url), headers, body)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                try:
                    return await self._ask(connection, request)
                except _NeverAnswered:
                    continue  # it was closed while nobody used it
        return await self._ask(await self._connected(), request)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in list(self._all):
            connection.close()

    async def _ask(self, connection: _Connection, request: bytes) -> WireResponse:
        try:
            await self._gate()
            connection.write(request)
            status, headers = await connection.head()
            return WireResponse(self, connection, status, headers)
        except BaseException:
            connection.close()
            raise

    async def _connected(self) -> _Connection:
        host, port = _origin(self._url)[1:]
        async with asyncio.timeout(self._connect_timeout_s):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._all), host, port, ssl=self._tls
            )
        return connection

    def give_back(self, connection: _Connection) -> None:
        """Keep a connection whose answer was read to its end."""
        if connection.is_open:
            self._idle.append(connection)


class WireResponse:
    """An answer; fits what `ChatStream` reads.

    Attributes:
        status_code: of the answer.
        headers: by their names in lower case.
    """

    def __init__(
        self, wire: Wire, connection: _Connection, status: int, headers: Mapping[str, str]
    ) -> None:
        self.status_code = status
        self.headers = headers
        self._wire = wire
        self._connection: _Connection | None = connection
        self._body: Body = body_of(headers)

    async def aiter_raw(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes.

        Raises:
            WireBroken: the connection ended before the body did.
        """
        connection, body = self._connection, self._body
        while connection is not None and not body.complete:
            try:
                data = body.take(connection.buffer)
            except BadBody as error:
                raise WireBroken(str(error)) from error
            if data:
                yield data
                connection.pace(len(data))
            elif not body.complete:
                if not connection.is_open:
                    if body.ends_with_connection:
                        return
                    raise WireBroken("the connection was closed")
                await connection.more()

    aiter_bytes = aiter_raw

    async def aread(self) -> bytes:
        """Return the whole body."""
        return b"".join([part async for part in self.aiter_raw()])

    async def aclose(self) -> None:
        """Keep the connection if the answer was read to its end, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        stays = self.headers.get("connection", "").lower() != "close"
        if self._body.complete and stays and not connection.buffer:
            self._wire.give_back(connection)
        else:
            connection.close()


class _NeverAnswered(WireBroken):
    """A kept connection was closed before a byte of the answer came."""


class _Connection(asyncio.Protocol):
    """One connection: what has come, and a way to wait for more.

    Attributes:
        buffer: bytes that nobody has taken yet.
        is_open: more may come.
    """

    def __init__(self, all_: set[_Connection]) -> None:
        self.buffer = bytearray()
        self.is_open = True
        self._all = all_
        self._reading = True
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > _HIGH_WATER:
            self._read(reading=False)
        self._wake()

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        self._all.discard(self)
        self._wake()

    def write(self, data: bytes) -> None:
        self._read(reading=True)
        self._transport.write(data)

    def close(self) -> None:
        self.is_open = False
        self._transport.close()

    async def more(self) -> None:
        """Wait for more bytes, or the connection's end."""
        self._waiter = asyncio.get_running_loop().create_future()
        if len(self.buffer) <= _HIGH_WATER and not self._paced:
            self._read(reading=True)
        try:
            await self._waiter
        finally:
            self._waiter = None

    _paced = False

    def pace(self, taken: int) -> None:
        """Let little reads add up in the socket for a moment."""
        if taken < _LITTLE and not self._paced and self.is_open:
            self._paced = True
            self._read(reading=False)
            asyncio.get_running_loop().call_later(PACE_S, self._resume)

    def _resume(self) -> None:
        self._paced = False
        self._read(reading=True)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers of an answer."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if not self.is_open:
                kind = WireBroken if self.buffer else _NeverAnswered
                raise kind("the connection was closed before the answer")
            if len(self.buffer) > _LONGEST_HEAD:
                raise WireBroken("the answer's head does not end")
            await self.more()
        first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        status = _status(first)
        if 100 <= status < 200:  # noqa: PLR2004  (interim answers)
            return await self.head()
        pairs = (line.partition(":") for line in lines)
        return status, {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _read(self, *, reading: bool) -> None:
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _status(line: str) -> int:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not code.isdecimal():
        raise WireBroken("the answer is not HTTP/1.1")
    return int(code)


def _origin(url: SplitResult) -> tuple[str, str, int]:
    port = url.port or (443 if url.scheme == "https" else 80)
    return url.scheme, url.hostname or "", port


def _request(url: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    target = url.path + (f"?{url.query}" if url.query else "")
    fields = {"Host": url.netloc.rpartition("@")[2], **headers, "Content-Length": str(len(body))}
    lines = [f"POST {target or '/'} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
