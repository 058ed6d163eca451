"""The snippets that users have known from the start, with the import changed.

They run as they were written, save the one that catches ``asyncio.CancelledError``: it needs
``when_cancelled="propagate"``.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from cancelable_core import (
    Cancelable,
    CancelationToken,
    OperationStatus,
    cancelable_stream,
)
from cancelable_core.integrations.fastapi import cancelable_dependency

pytestmark = pytest.mark.anyio


async def test_combining() -> None:
    async def do_work() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await anyio.sleep_forever()

    timeout_cancel = Cancelable.with_timeout(30.0)
    signal_cancel = Cancelable.with_signal(signal.SIGUSR1)
    combined = timeout_cancel.combine(signal_cancel)
    with pytest.raises(Exception, match="SIGUSR1"):
        async with combined as cancel:
            await do_work()
    assert cancel.context.reason == "signal"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_catching_the_loops_own_exception() -> None:
    cleaned: list[bool] = []

    async def long_running_operation() -> None:
        await asyncio.sleep(0.02)
        await asyncio.sleep(60)

    async def cleanup_resources() -> None:
        await asyncio.sleep(0)
        cleaned.append(True)

    try:
        async with Cancelable.with_timeout(5.0, when_cancelled="propagate") as cancel:
            await long_running_operation()
    except asyncio.CancelledError:
        await cleanup_resources()
    assert cleaned == [True]
    assert cancel.status is OperationStatus.TIMEOUT


async def test_reporting_progress() -> None:
    items, reports = ["a", "b"], []

    async def process_item(item: str) -> None:
        await anyio.sleep(1)
        reports.append(item)

    async with Cancelable(name="data_processor") as cancel:
        for item in items:
            await cancel.report_progress(f"Processing {item}")
            await process_item(item)
    assert reports == items
    assert cancel.context.progress == "Processing b"


async def test_processing_a_stream() -> None:
    processed: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def process_item(item: int) -> None:
        processed.append(item)

    data_stream = numbers()
    async with Cancelable.with_timeout(30.0) as cancel:
        async for item in cancelable_stream(data_stream, cancel):
            await process_item(item)
    assert processed == [0, 1, 2]


async def test_the_sources_by_their_names() -> None:
    token = CancelationToken()
    for operation in (
        Cancelable.with_timeout(1),
        Cancelable.with_signal(signal.SIGUSR1, signal.SIGUSR2),
        Cancelable.with_condition(lambda: False),
        Cancelable.with_token(token),
    ):
        async with operation:
            pass
    token.cancel()
    assert token.is_cancelled


def test_a_request_scoped_operation() -> None:
    app = FastAPI()

    async def fetch_data_with_cancelation() -> dict[str, int]:
        await anyio.lowlevel.checkpoint()
        return {"answer": 42}

    @app.get("/api/data")
    async def get_data(cancel: Cancelable = Depends(cancelable_dependency)) -> Any:  # noqa: B008, FAST002  (as people write it)
        async with cancel:
            return await fetch_data_with_cancelation()

    assert TestClient(app).get("/api/data").json() == {"answer": 42}
