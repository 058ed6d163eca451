"""A page in the browser that shows what runs and what ended, and can stop what runs.

Run: python examples/05_monitoring/02_monitoring_page.py    (and open http://127.0.0.1:8000)
With --demo it starts itself on a free port, asks itself a few things, and ends.

    GET  /          the page, 02_monitoring_page.html: one file that needs nothing from elsewhere
    GET  /events    the figures, twice a second, as Server-Sent Events
    POST /cancel    stops ?operation=ID, unless the page of another site asks for it
"""

from __future__ import annotations

import json
import math
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Annotated, Any

import anyio
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cancelable_core import Cancelable, OperationRegistry, OperationSnapshot
from cancelable_core.integrations.fastapi import (
    CancelableStreamingResponse,
    CancelationMiddleware,
    GracefulShutdown,
    cancelable_dependency,
)
from cancelable_core.monitoring import Monitor

PAGE = Path(__file__).with_suffix(".html")
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
WINDOW = 60.0
Operation = Annotated[Cancelable, Depends(cancelable_dependency)]
Work = Callable[[OperationRegistry], Awaitable[object]]


def make_app(
    registry: OperationRegistry, work: Work = OperationRegistry.wait_until_done
) -> FastAPI:
    monitor, shutdown = Monitor(registry, window=WINDOW), GracefulShutdown(grace=2)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with monitor:
            async with anyio.create_task_group() as group:
                group.start_soon(work, registry)
                yield
                group.cancel_scope.cancel()

    app = FastAPI(openapi_url=None, lifespan=shutdown.around(lifespan))
    app.add_middleware(CancelationMiddleware, shutdown=shutdown)
    # A foreign name that was made to lead here would have an Origin that fits.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.get("/")
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe()
        headers = {"content-security-policy": POLICY.format(nonce), "cache-control": "no-store"}
        return HTMLResponse(PAGE.read_text("utf-8").replace("{nonce}", nonce), headers=headers)

    @app.get("/events")
    async def events(cancel: Operation) -> CancelableStreamingResponse:
        async def stream() -> AsyncIterator[str]:
            while not shutdown.is_shutting_down:
                yield f"data: {json.dumps(figures(registry, monitor), allow_nan=False)}\n\n"
                await anyio.sleep(0.5)

        return CancelableStreamingResponse(stream(), cancel, media_type="text/event-stream")

    @app.post("/cancel")
    async def cancel(request: Request, operation: str) -> bool:
        own = f"{request.url.scheme}://{request.url.netloc}"
        if request.headers.get("origin", own) != own:
            raise HTTPException(403, "the page of another site may not cancel anything here")
        return registry.cancel(operation, message="from the page")

    return app


def figures(registry: OperationRegistry, monitor: Monitor) -> dict[str, Any]:
    now, known, history = time.time(), monitor.figures(), registry.history()
    return {
        "window": WINDOW,
        "perSecond": known.per_second,
        "p50": None if math.isnan(known.p50) else known.p50,
        "p95": None if math.isnan(known.p95) else known.p95,
        "recently": Counter(e.status for e in history if now - (e.ended_at or now) <= WINDOW),
        "inAll": known.by_status,
        "running": [as_row(each) for each in registry.list()],
        "ended": [as_row(each) for each in reversed(history[-20:])],
    }


def as_row(operation: OperationSnapshot) -> dict[str, Any]:
    stopping = operation.cause is not None and not operation.status.is_final
    causes = () if operation.cause is None else operation.cause.chain()
    return {
        "id": operation.id,
        "name": operation.label[:300],
        "state": "stopping" if stopping else operation.status,
        "seconds": operation.duration,
        "progress": (operation.progress or "")[:300],
        "reason": (operation.error or " ← ".join(map(str, causes)))[:300],
    }


async def job(registry: OperationRegistry, name: str, dice: random.Random) -> None:
    limit, steps = dice.uniform(6, 30), dice.randint(3, 20)
    operation = Cancelable.with_timeout(
        limit, name=name, registry=registry, when_cancelled="absorb"
    )
    async with operation as cancel:
        for step in range(steps):
            await cancel.report_progress(f"step {step + 1} of {steps}")
            await anyio.sleep(dice.uniform(0.5, 2))


async def load(registry: OperationRegistry) -> None:
    dice, number = random.Random(7), 0  # noqa: S311  (a show, no secret)
    async with anyio.create_task_group() as group:
        while True:
            number += 1
            group.start_soon(job, registry, f"import {number}", dice)
            await anyio.sleep(2)


async def one(registry: OperationRegistry) -> None:
    async with Cancelable("1", "<b>one</b>", registry=registry, when_cancelled="absorb"):
        await anyio.sleep_forever()


async def demo() -> None:
    app = make_app(OperationRegistry(), one)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for what in ("GET /", "GET /events"):
            print(what, "->", await anyio.to_thread.run_sync(ask, port, what))
        for origin in ("http://elsewhere.example", f"http://127.0.0.1:{port}"):
            answer = await anyio.to_thread.run_sync(ask, port, "POST /cancel?operation=1", origin)
            print("POST /cancel ->", answer)
        print("GET /events ->", await anyio.to_thread.run_sync(ask, port, "GET /events"))
        server.should_exit = True


def ask(port: int, what: str, origin: str = "") -> str:
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        connection.request(*what.split(), headers={"Origin": origin})
        answer = connection.getresponse()
        line = answer.readline().decode().strip()
    if line.startswith("data: "):
        shown = json.loads(line.removeprefix("data: "))
        line = str(
            [(e["name"], e["state"], e["reason"]) for e in shown["running"] + shown["ended"]]
        )
    return f"{answer.status} {line}"


if __name__ == "__main__":
    if "--demo" in sys.argv:
        anyio.run(demo)
    else:
        uvicorn.run(make_app(OperationRegistry(), load), port=8000)
