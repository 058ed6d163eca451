"""An application for test_fastapi_served.py; prints what ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket

from cancelable_core import Cancelable, OperationRegistry, cancelable
from cancelable_core.integrations.fastapi import (
    CancelableStreamingResponse,
    CancelableWebSocket,
    CancelationMiddleware,
    GracefulShutdown,
    cancelable_dependency,
)

shutdown = GracefulShutdown(grace=float(os.environ.get("GRACE", "1")))
registry = OperationRegistry(history=10_000)
app = FastAPI(lifespan=shutdown.lifespan)
app.add_middleware(CancelationMiddleware, shutdown=shutdown, registry=registry)
Operation = Annotated[Cancelable, Depends(cancelable_dependency)]
Limited = Annotated[Cancelable, Depends(cancelable_dependency(timeout=0.05))]


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201  (how it tells the test)


@app.get("/limited")
async def limited(cancel: Limited) -> str:
    async with cancel:
        await anyio.sleep_forever()
    return "never"


@app.get("/decorated")
@cancelable(timeout=0.05)
async def decorated(cancel: Cancelable, number: int) -> str:
    await anyio.sleep(number)
    return cancel.name


@app.post("/upload")
async def upload(request: Request, cancel: Operation) -> dict[str, int]:
    size = total = 0
    async with cancel:
        try:
            async for part in request.stream():
                size += len(part)
                total = (total + sum(part)) % 65521
        finally:
            say("upload ended", size, cancel.parent_id is not None)
    return {"size": size, "sum": total}


async def ticks(name: str) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"tick\n"
            await anyio.sleep(0.01)
    finally:
        say("stream ended", name)


@app.get("/stream/{name}")
async def stream(name: str, cancel: Operation) -> CancelableStreamingResponse:
    return CancelableStreamingResponse(ticks(name), cancel, media_type="text/plain")


async def nothing_for_long() -> AsyncIterator[bytes]:
    await anyio.sleep_forever()
    yield b"never"


@app.get("/late")
async def late(cancel: Limited) -> CancelableStreamingResponse:
    return CancelableStreamingResponse(nothing_for_long(), cancel)


@app.get("/empty")
async def empty() -> CancelableStreamingResponse:
    async def none() -> AsyncIterator[str]:
        for _ in ():
            yield ""

    return CancelableStreamingResponse(none())


@app.get("/text")
async def text() -> CancelableStreamingResponse:
    async def words() -> AsyncIterator[str]:
        yield "one "
        yield "two"

    return CancelableStreamingResponse(words())


held = anyio.Event()


@app.get("/hold")
async def hold() -> str:
    await held.wait()
    return "held"


@app.get("/release")
async def release() -> None:
    held.set()


@app.get("/thread")
def thread(cancel: Operation) -> str:
    try:
        while True:
            cancel.check()
            time.sleep(0.005)
    finally:
        say("thread ended")


@app.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    async def later() -> None:
        await anyio.sleep(0.1)
        say("background done")

    tasks.add_task(later)
    return "answered"


@app.get("/statistics")
async def statistics() -> dict[str, Any]:
    return {"running": len(registry) - 1, "ended": registry.statistics().by_status}


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    connection = CancelableWebSocket(websocket)
    try:
        async with connection:
            text = await connection.receive_text()
            await connection.send_text(text.upper())
            await connection.send_bytes(await connection.receive_bytes())
            await connection.send_json({"now": "waiting"})
            await anyio.sleep_forever()
    finally:
        say("websocket ended", connection.disconnected, connection.operation.status)


@app.websocket("/ws-limited")
async def ws_limited(websocket: WebSocket) -> None:
    try:
        async with CancelableWebSocket(websocket, timeout=0.05) as connection:
            await connection.receive_text()
    except TimeoutError:
        say("websocket timed out")
        await websocket.close(code=4000)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(sys.argv[1]), log_level="info", lifespan="on")
