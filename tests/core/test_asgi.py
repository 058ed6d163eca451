"""The middleware, driven message by message; real servers are in test_fastapi_served.py."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from cancelable_core import Cancelable, CancelationReason, OperationRegistry, OperationStatus
from cancelable_core.integrations.asgi import (
    CancelationMiddleware,
    GracefulShutdown,
    request_operation,
)

pytestmark = pytest.mark.anyio
Message = MutableMapping[str, Any]
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.request", "body": b"", "more_body": False}


class Wire:
    """The server's side of one connection."""

    def __init__(self, *messages: Message, kind: str = "http", headers: Any = ()) -> None:
        self.scope = {"type": kind, "method": "GET", "path": "/x", "headers": headers}
        if kind == "websocket":
            del self.scope["method"]
        self.sent: list[Message] = []
        self.asked = 0
        self._put, self._get = anyio.create_memory_object_stream[Message](100)
        for message in messages:
            self._put.send_nowait(message)

    def hang_up(self) -> None:
        self._put.send_nowait({"type": f"{self.scope['type']}.disconnect"})

    async def receive(self) -> Message:
        self.asked += 1
        return await self._get.receive()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)

    @property
    def body(self) -> Any:
        return json.loads(b"".join(m.get("body", b"") for m in self.sent))

    async def serve(self, app: Callable[..., Awaitable[None]], **options: Any) -> None:
        try:
            await CancelationMiddleware(app, **options)(self.scope, self.receive, self.send)
        finally:
            self._put.close()
            self._get.close()


async def test_every_body_message_reaches_the_application_in_order() -> None:
    parts = [{"type": "http.request", "body": bytes([n]), "more_body": n < 3} for n in range(4)]
    wire, seen = Wire(*parts), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert request_operation(scope) is not None
        while True:
            await anyio.sleep(1)
            seen.append(message := await receive())
            assert wire.asked <= len(seen) + 2, "it reads one message ahead, not all of them"
            if not message["more_body"]:
                break
        await send(START)

    await wire.serve(app)
    assert seen == parts
    assert all(one is other for one, other in zip(seen, parts, strict=True))


@pytest.mark.parametrize("reads", [True, False])
async def test_a_lost_client_cancels_the_request_whatever_it_does(
    reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wire = Wire(LAST)
    ended: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del send
        try:
            if reads:
                await receive()
            wire.hang_up()
            await anyio.sleep_forever()
        finally:
            operation = request_operation(scope)
            assert operation is not None
            ended.append(operation.cause)

    await wire.serve(app)
    assert [(cause.reason, cause.message) for cause in ended] == [
        (CancelationReason.EXTERNAL, "the client disconnected")
    ]
    assert wire.sent == []
    assert "GET /x was cancelled (external: the client disconnected)" in caplog.text
    assert {record.levelname for record in caplog.records if "cancelable" in record.name} == {
        "INFO"
    }


async def test_a_client_lost_during_the_upload_is_reported_to_who_reads() -> None:
    wire = Wire({"type": "http.request", "body": b"half", "more_body": True})
    seen: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        seen.append(await receive())
        wire.hang_up()
        try:
            seen.append(await receive())
        finally:
            with anyio.CancelScope(shield=True):
                seen.append(await receive())

    await wire.serve(app)
    assert [message["type"] for message in seen] in (
        ["http.request", "http.disconnect"],
        ["http.request", "http.disconnect", "http.disconnect"],
    )


async def test_after_the_last_byte_nothing_is_cancelled() -> None:
    wire = Wire(LAST)
    done: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive
        await send(START)
        await send({"type": "http.response.body", "body": b"all"})
        wire.hang_up()
        await anyio.sleep(100)
        done.append(request_operation(scope))

    await wire.serve(app, timeout=5)
    assert done[0].cause is None


async def test_a_limit_is_answered_with_504_while_nothing_was_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        await anyio.sleep_forever()

    wire = Wire(LAST)
    await wire.serve(app, timeout=5)
    assert wire.status == 504
    assert wire.body == {"detail": "GET /x was cancelled (timeout: after 5 s)"}
    headers = dict(wire.sent[0]["headers"])
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(wire.sent[1]["body"])


async def test_a_limit_inside_the_application_is_answered_with_504_too() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        async with Cancelable.with_timeout(1):
            await anyio.sleep_forever()

    wire = Wire(LAST)
    await wire.serve(app)
    assert wire.status == 504


async def test_a_limit_after_the_first_byte_cuts_the_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send(START)
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await anyio.sleep_forever()

    wire = Wire(LAST)
    await wire.serve(app, timeout=5)
    assert len(wire.sent) == 2


async def test_a_request_cancelled_by_hand_is_answered_with_503() -> None:
    registry = OperationRegistry()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        assert registry.cancel_all(message="by the operator") == 1
        await anyio.sleep_forever()

    wire = Wire(LAST)
    await wire.serve(app, registry=registry)
    assert (wire.status, wire.body["detail"].split(" (")[1]) == (503, "manual: by the operator)")
    assert registry.history()[0].status is OperationStatus.CANCELLED


async def test_the_applications_errors_are_its_own() -> None:
    async def app(*_: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Wire(LAST).serve(app)


async def test_a_body_that_was_not_asked_for_is_not_called_for() -> None:
    wire = Wire(
        {"type": "http.request", "body": b"x", "more_body": False},
        headers=[(b"Expect", b"100-continue")],
    )

    async def app(_: Any, receive: Any, send: Any) -> None:
        await anyio.wait_all_tasks_blocked()
        assert wire.asked == 0
        await receive()
        await send(START)

    await wire.serve(app)
    assert wire.status == 200


async def test_other_connections_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope["type"])

    await Wire(kind="lifespan").serve(app)
    assert seen == ["lifespan"]


# -- WebSockets ------------------------------------------------------------------------


async def test_a_websocket_that_reads_is_told_and_one_that_does_not_is_cancelled() -> None:
    told = Wire({"type": "websocket.connect"}, kind="websocket")
    seen: list[Any] = []

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
            group.start_soon(_hang_up_soon, told)
            seen.append((await receive())["type"])
        seen.append(request_operation(scope).is_cancelled)  # type: ignore[union-attr]

    await told.serve(reads)
    assert seen == ["websocket.disconnect", True]

    async def writes(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await receive()
        cut.hang_up()
        while True:
            await anyio.sleep(1)
            await send({"type": "websocket.send", "text": "tick"})

    cut = Wire({"type": "websocket.connect"}, kind="websocket")
    await cut.serve(writes)
    assert anyio.current_time() < 5


async def _hang_up_soon(wire: Wire) -> None:
    await anyio.wait_all_tasks_blocked()
    wire.hang_up()


# -- shutdown --------------------------------------------------------------------------


async def test_shutting_down_refuses_the_new_and_asks_the_running() -> None:
    shutdown = GracefulShutdown(grace=5, retry_after=7, signals=(signal.SIGUSR1,))
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive
        operation = request_operation(scope)
        assert operation is not None
        signal.raise_signal(signal.SIGUSR1)
        await operation.wait()
        await anyio.sleep(2)
        await send(START)
        await send({"type": "http.response.body", "body": b"in time"})
        seen.append(operation.cause)

    async with shutdown.lifespan():
        wire = Wire(LAST)
        await wire.serve(app, shutdown=shutdown)
        assert wire.status == 200
        refused = Wire(LAST)
        await refused.serve(app, shutdown=shutdown)
        assert refused.status == 503
        assert (b"retry-after", b"7") in refused.sent[0]["headers"]
        socket = Wire(kind="websocket")
        await socket.serve(app, shutdown=shutdown)
        assert socket.sent[0]["type"] == "websocket.close"
    assert seen[0].signum == signal.SIGUSR1  # type: ignore[attr-defined]
    assert shutdown.is_shutting_down


async def test_who_does_not_end_within_the_grace_is_stopped() -> None:
    shutdown = GracefulShutdown(grace=5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        shutdown.begin()
        await anyio.sleep_forever()

    wire = Wire(LAST)
    await wire.serve(app, shutdown=shutdown)
    assert anyio.current_time() == 5
    assert wire.status == 503
    assert (b"retry-after", b"5") in wire.sent[0]["headers"]


async def test_a_lifespan_around_another() -> None:
    @asynccontextmanager
    async def inner(app: object) -> Any:
        yield {"app": app}

    shutdown = GracefulShutdown(signals=(signal.SIGUSR1,))
    async with shutdown.around(inner)("the app") as state:
        assert state == {"app": "the app"}
        signal.raise_signal(signal.SIGUSR1)
    assert shutdown.is_shutting_down
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
