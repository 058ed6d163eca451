"""The FastAPI pieces under a real server, with real clients that really hang up."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

APP = Path(__file__).with_name("_served_app.py")
ROOT = APP.parents[2]


class Server:
    """The application in a process of its own."""

    def __init__(self, grace: float = 1.0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRACE": str(grace)}
        self.process = subprocess.Popen(
            [sys.executable, str(APP), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self._wait_until_it_listens()
        self._seen = ""

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
            else:
                return

    def says(self, words: str) -> None:
        """Read its output until it has said so, for ten seconds at most."""
        deadline = time.monotonic() + 10
        while words not in self._seen:
            assert self.process.stdout is not None
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            assert ready, f"the server never said {words!r}; it said {self._seen!r}"
            self._seen += os.read(self.process.stdout.fileno(), 65536).decode()
        self._seen = self._seen.replace(words, "", 1)

    def stop(self) -> str:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=30)
        return self._seen + out.decode()

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
        status, _, content = asyncio.run(_ask(self.port, path, method, body))
        return status, json.loads(content) if content[:1] in (b"{", b'"') else content


async def _open(port: int, path: str, method: str = "GET", length: int = 0, extra: str = "") -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{extra}"
        "connection: close\r\n\r\n".encode()
    )
    await writer.drain()
    return reader, writer


async def _ask(port: int, path: str, method: str = "GET", body: bytes = b"") -> Any:
    async with asyncio.timeout(20):
        reader, writer = await _open(port, path, method, len(body))
        writer.write(body)
        raw = await reader.read()
        writer.close()
    head, _, content = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, content


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    said = server.stop()
    assert "Traceback" not in said, said
    assert server.process.returncode in (0, -signal.SIGTERM)


def test_nothing_of_ours_becomes_a_parameter() -> None:
    sys.path.insert(0, str(APP.parent))
    try:
        app = import_module("_served_app").app
    finally:
        sys.path.remove(str(APP.parent))
    paths = app.openapi()["paths"]
    found = {
        (path, parameter["name"])
        for path, methods in paths.items()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
    }
    assert found == {("/decorated", "number"), ("/stream/{name}", "name")}


@pytest.mark.parametrize("path", ["/limited", "/decorated?number=9", "/late"])
def test_its_own_limit_is_a_504_with_a_json_body(server: Server, path: str) -> None:
    status, body = server.ask(path)
    assert status == 504
    assert body["detail"].endswith("was cancelled (timeout: after 0.05 s)")


def test_who_is_in_time_is_answered(server: Server) -> None:
    assert server.ask("/decorated?number=0") == (200, "decorated")
    assert server.ask("/text")[0] == 200
    assert server.ask("/empty")[0] == 200


def test_the_body_arrives_whole(server: Server) -> None:
    body = bytes(range(256)) * 4096
    status, answer = server.ask("/upload", "POST", body)
    assert (status, answer) == (200, {"size": len(body), "sum": sum(body) % 65521})
    server.says(f"upload ended {len(body)} True")


def test_a_client_that_leaves_during_the_upload(server: Server) -> None:
    async def leave() -> None:
        _, writer = await _open(server.port, "/upload", "POST", length=100)
        writer.write(b"x" * 40)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    asyncio.run(leave())
    server.says("upload ended 40 True")


def test_a_client_that_leaves_a_stream(server: Server) -> None:
    async def leave() -> None:
        reader, writer = await _open(server.port, "/stream/left")
        await reader.readuntil(b"tick\n")
        writer.transport.abort()

    asyncio.run(leave())
    server.says("stream ended left")


def test_a_client_that_leaves_a_thread(server: Server) -> None:
    async def leave() -> None:
        _, writer = await _open(server.port, "/thread")
        await asyncio.sleep(0.05)
        writer.transport.abort()

    asyncio.run(leave())
    server.says("thread ended")


def test_background_tasks_outlive_the_client(server: Server) -> None:
    assert server.ask("/background") == (200, "answered")
    server.says("background done")


def test_a_websocket(server: Server) -> None:
    websockets = pytest.importorskip("websockets.sync.client")
    with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        client.send("hello")
        assert client.recv() == "HELLO"
        client.send(b"\x00\x01")
        assert client.recv() == b"\x00\x01"
        assert json.loads(client.recv()) == {"now": "waiting"}
    server.says("websocket ended True cancelled")
    with websockets.connect(f"ws://127.0.0.1:{server.port}/ws-limited"):
        server.says("websocket timed out")


def test_a_thousand_requests_half_of_them_cut(server: Server) -> None:
    async def statistics_until(running: int) -> dict[str, int]:
        async with asyncio.timeout(30):
            while True:
                content = (await _ask(server.port, "/statistics"))[2]
                found = json.loads(content)
                if found["running"] == running:
                    return dict(found["ended"])

    async def cut_half() -> None:
        opened = [await _open(server.port, "/hold") for _ in range(1000)]
        before = await statistics_until(running=1000)
        for _, writer in opened[::2]:
            writer.transport.abort()
        after = await statistics_until(running=500)
        assert after["cancelled"] - before.get("cancelled", 0) == 500
        await _ask(server.port, "/release")
        answers = await asyncio.gather(*(reader.read() for reader, _ in opened[1::2]))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        for _, writer in opened[1::2]:
            writer.close()
        await statistics_until(running=0)

    asyncio.run(cut_half())


def test_two_hundred_streams_and_a_stop() -> None:
    server, grace = Server(grace=1.0), 1.0

    async def watch() -> float:
        opened = [await _open(server.port, f"/stream/{number}") for number in range(200)]
        for reader, _ in opened:
            await reader.readuntil(b"tick\n")
        started = time.monotonic()
        server.process.terminate()
        await asyncio.gather(*(reader.read() for reader, _ in opened))
        for _, writer in opened:
            writer.close()
        return started

    started = asyncio.run(watch())
    said = server.stop()
    took = time.monotonic() - started
    assert grace <= took < grace + 2, f"{took:.2f} s"
    ended = {line.split()[-1] for line in said.splitlines() if line.startswith("stream ended")}
    assert len(ended) == 200, said
