"""The FastAPI pieces in the test's own process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect


@pytest.fixture(scope="module")
def client() -> Any:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        app = import_module("_served_app").app
    finally:
        sys.path.pop(0)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/limited", "/late", "/decorated?number=9"])
def test_a_limit_is_a_504(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/json"
    assert "timeout: after 0.05 s" in answer.json()["detail"]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_late_stream_is_a_504_under_every_server(client: TestClient, spec_version: str) -> None:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        scope["asgi"] = {"version": "3.0", "spec_version": spec_version}
        await client.app(scope, receive, send)

    answer = TestClient(served).get("/late")
    assert answer.status_code == 504
    assert "timeout: after 0.05 s" in answer.json()["detail"]


def test_streams_of_text_and_of_nothing(client: TestClient) -> None:
    assert client.get("/text").text == "one two"
    assert client.get("/empty").text == ""


def test_a_body_arrives_whole(client: TestClient) -> None:
    body = bytes(range(256)) * 100
    assert client.post("/upload", content=body).json()["size"] == len(body)


def test_a_websocket_speaks_and_ends_with_its_client(client: TestClient, capsys: Any) -> None:
    with client.websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "HELLO"
        websocket.send_bytes(b"\x00")
        assert websocket.receive_bytes() == b"\x00"
        assert websocket.receive_json() == {"now": "waiting"}
    assert "websocket ended True cancelled" in capsys.readouterr().out


def test_a_websocket_with_a_limit(client: TestClient) -> None:
    with (
        client.websocket_connect("/ws-limited") as websocket,
        pytest.raises(WebSocketDisconnect) as caught,
    ):
        websocket.receive_text()
    assert caught.value.code == 4000
