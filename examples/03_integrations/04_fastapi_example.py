"""A FastAPI service whose requests end when they should.

Run: uvicorn examples.03_integrations.04_fastapi_example:app --port 8000
or:  python examples/03_integrations/04_fastapi_example.py
With --demo it starts itself on a free port, asks itself a few things, and shuts down.

    GET /data          an operation for the request
    GET /limited       ends after its time limit, with 504
    GET /stream        a stream that stops when the client leaves
    GET /blocking      a ``def`` endpoint that looks whether it should stop
    GET /operations    what runs
    WS  /echo          a WebSocket
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import uvicorn
from fastapi import Depends, FastAPI, WebSocket

from cancelable_core import Cancelable, OperationRegistry
from cancelable_core.integrations.fastapi import (
    CancelableStreamingResponse,
    CancelableWebSocket,
    CancelationMiddleware,
    GracefulShutdown,
    cancelable_dependency,
)

shutdown = GracefulShutdown(grace=10)
registry = OperationRegistry()
app = FastAPI(lifespan=shutdown.lifespan)
app.add_middleware(CancelationMiddleware, timeout=60, registry=registry, shutdown=shutdown)

Operation = Annotated[Cancelable, Depends(cancelable_dependency)]
Limited = Annotated[Cancelable, Depends(cancelable_dependency(timeout=0.2))]


@app.get("/data")
async def data(cancel: Operation) -> dict[str, str]:
    async with cancel:
        await cancel.report_progress("reading")
        return {"operation": cancel.context.name}


@app.get("/limited")
async def limited(cancel: Limited) -> str:
    async with cancel:
        await anyio.sleep(60)
    return "never"


async def ticks() -> AsyncIterator[str]:
    try:
        for number in range(100):
            yield f"tick {number}\n"
            await anyio.sleep(0.05)
    finally:
        print("the stream ended", flush=True)


@app.get("/stream")
async def stream(cancel: Operation) -> CancelableStreamingResponse:
    return CancelableStreamingResponse(ticks(), cancel, media_type="text/plain")


@app.get("/blocking")
def blocking(cancel: Operation) -> str:
    for _ in range(10):
        time.sleep(0.01)
        cancel.check()
    return "done"


@app.get("/operations")
async def operations() -> list[str]:
    return [f"{each.label} {each.status}" for each in registry.list()]


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    async with CancelableWebSocket(websocket) as connection:
        while True:
            await connection.send_text(await connection.receive_text())


async def demo() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for path in ("/data", "/limited", "/blocking", "/operations"):
            print(path, "->", await ask(port, path))
        print("/stream ->", await ask(port, "/stream", hang_up_after=b"tick 1"))
        await anyio.sleep(0.2)
        server.should_exit = True


async def ask(port: int, path: str, hang_up_after: bytes | None = None) -> str:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        async for part in stream:
            answer += part
            if hang_up_after is not None and hang_up_after in answer:
                return "hung up"
        head, _, body = answer.partition(b"\r\n\r\n")
        return f"{head.split()[1].decode()} {body.decode()}"


if __name__ == "__main__":
    if "--demo" in sys.argv:
        anyio.run(demo)
    else:
        uvicorn.run(app, port=8000)
