"""The fast wire: bodies in any split, connections kept, closed and broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from llmctl.backends.chunked import BadBody, ByLength, InChunks, ToTheEnd, body_of
from llmctl.backends.wire import Wire, WireBroken

BODY = b"data: one\n\ndata: two\n\n"
CHUNKED = b"b\r\ndata: one\n\n\r\nB;x=y\r\ndata: two\n\n\r\n0\r\nTrailer: x\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize("cut", range(len(CHUNKED)))
def test_chunks_in_any_split(cut: int) -> None:
    body, buffer, got = InChunks(), bytearray(), b""
    for part in (CHUNKED[:cut], CHUNKED[cut:]):
        buffer += part
        got += body.take(buffer)
    assert (got, body.complete, bytes(buffer)) == (BODY, True, b"")


def test_other_bodies() -> None:
    by_length = ByLength(4)
    buffer = bytearray(b"ab")
    assert (by_length.take(buffer), by_length.complete) == (b"ab", False)
    buffer += b"cdNEXT"
    assert (by_length.take(buffer), by_length.complete, buffer) == (b"cd", True, bytearray(b"NEXT"))
    assert body_of({"content-length": "0"}).complete
    assert isinstance(body_of({}), ToTheEnd)
    with pytest.raises(BadBody):
        InChunks().take(bytearray(b"xyz\r\n"))


@pytest.mark.parametrize("data", [b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nab\r\n0\r\n\r\n"])
@pytest.mark.parametrize("cut", range(5, 9))
def test_a_chunk_is_as_long_as_it_says(data: bytes, cut: int) -> None:
    """Bytes that were slipped in or lost on the way are found out at the chunk's end."""
    body, buffer = InChunks(), bytearray(data[:cut])
    with pytest.raises(BadBody):
        for more in (b"", data[cut:]):
            buffer += more
            body.take(buffer)


async def no_gate() -> None:
    """Let everything through."""


@asynccontextmanager
async def wired(answer: Answer) -> AsyncGenerator[Wire]:
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()
        await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    wire = Wire(f"http://127.0.0.1:{port}/v1", connect_timeout_s=5, gate=no_gate)
    try:
        yield wire
    finally:
        await wire.aclose()
        server.close()
        await asyncio.gather(*served, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def ask(wire: Wire) -> bytes:
    host, port = wire._url.hostname, wire._url.port
    response = await wire.post(f"http://{host}:{port}/v1/x?y=1", {"A": "b"}, b"{}")
    try:
        return await response.aread()
    finally:
        await response.aclose()


def test_a_connection_is_kept_and_a_closed_one_replaced() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            request = await request_of(reader)
            assert request.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")
            interim = b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(interim + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED)

    async def main() -> None:
        async with wired(answer) as wire:
            for _ in range(4):
                assert await ask(wire) == BODY
                await asyncio.sleep(0)
        assert connections == 2

    asyncio.run(main())


def test_ends_that_are_none_and_ends_that_are() -> None:
    heads = [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b"\r\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + heads.pop(0) + b"abc")

    async def main() -> None:
        async with wired(answer) as wire:
            for _ in range(2):
                with pytest.raises(WireBroken):
                    await ask(wire)
            assert await ask(wire) == b"abc"

    asyncio.run(main())


def test_what_is_not_http() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"SSH-2.0-x\r\n\r\n")

    async def main() -> None:
        async with wired(answer) as wire:
            with pytest.raises(WireBroken, match="not HTTP"):
                await ask(wire)

    asyncio.run(main())


def test_a_trickle_is_read_in_few_reads() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Content-Length: 50\r\n\r\n")
        for _ in range(50):
            writer.write(b"x")
            await asyncio.sleep(0.004)

    async def main() -> None:
        async with wired(answer) as wire:
            host, port = wire._url.hostname, wire._url.port
            response = await wire.post(f"http://{host}:{port}/v1/x", {}, b"{}")
            parts = [part async for part in response.aiter_raw()]
            assert b"".join(parts) == b"x" * 50
            assert len(parts) < 25
            await response.aclose()

    asyncio.run(main())
