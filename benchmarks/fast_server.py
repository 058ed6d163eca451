"""A server that is faster than any client: the same reply to every request, a token a write.

``python benchmarks/fast_server.py TOKENS [TEXT]`` prints its URL and serves until its stdin
closes. TEXT is a token's, with its number in place of ``{}``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(delta: dict[str, str], finish: str | None, usage: object = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {
        "id": "chatcmpl-0123456789abcdefghijklmnopqrs",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "fast-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [choice],
        "usage": usage,
        "obfuscation": "0123456789abcdef",
    }
    return _chunked(b"data: " + json.dumps(chunk).encode() + b"\n\n")


class Server(asyncio.Protocol):
    """One connection."""

    streaming: set[Server] = set()  # noqa: RUF012  (all of the process)
    tokens = 0
    text = " token"
    token = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self.buffer = b""
        self.left = 0
        self.full = False

    def data_received(self, data: bytes) -> None:
        """Take a request, whose body ends where its length says."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        if len(body) >= length:
            self.buffer = body[length:]
            self.left = self.tokens
            self.transport.write(HEAD + _event({"role": "assistant", "content": ""}, None))
            self.streaming.add(self)

    def tick(self) -> None:
        """Send one token, unless the client is behind."""
        if self.full:
            return
        self.left -= 1
        if self.left >= 0:
            self.transport.write(self.token or _numbered(self.text, self.tokens - self.left))
            return
        self.streaming.discard(self)
        self.transport.write(END)

    def pause_writing(self) -> None:
        """The client is behind."""
        self.full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.full = False

    def connection_lost(self, _: Exception | None) -> None:
        """Forget it."""
        self.streaming.discard(self)


def _numbered(text: str, number: int) -> bytes:
    return _event({"content": text.replace("{}", str(number))}, None)


async def _serve(tokens: int, text: str) -> None:
    global END  # noqa: PLW0603  (set once)
    Server.tokens, Server.text = tokens, text
    Server.token = b"" if "{}" in text else _numbered(text, 0)
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10}
    END = _event({}, "stop", usage) + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    closed = loop.run_in_executor(None, sys.stdin.read)
    while not closed.done():
        for stream in list(Server.streaming):
            stream.tick()
        await asyncio.sleep(0 if Server.streaming else 0.001)


END = b""


@contextmanager
def serving(tokens: int, text: str = Server.text) -> Iterator[str]:
    """Serve a reply of so many tokens in a process of its own; give the URL."""
    server = subprocess.Popen(  # noqa: S603
        [sys.executable, __file__, str(tokens), text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None  # noqa: S101
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), (*sys.argv[2:], Server.text)[0]))
