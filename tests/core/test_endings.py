"""Blocks close whole: whatever fails while they end, nothing of them stays behind."""

from __future__ import annotations

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    OperationRegistry,
    OperationStatus,
    TimeoutCancelation,
    current_operation,
)

pytestmark = pytest.mark.anyio
Status = OperationStatus


def _fail(_: object) -> None:
    raise ZeroDivisionError("a callback")


async def _assert_nothing_is_left(cancel: Cancelable, registry: OperationRegistry) -> None:
    assert current_operation() is None
    assert len(registry) == 0
    cancel.cancel()
    await anyio.sleep(1)  # a scope that was left open would stop this


# -- callbacks that raise ----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_callback_that_raises_leaves_a_block_stopped_by_a_limit_closed(
    seconds: int,
) -> None:
    registry = OperationRegistry()
    heard: list[object] = []
    cancel = Cancelable.with_timeout(seconds, registry=registry).on_cancel(heard.append)
    cancel.register(_fail)
    with pytest.raises(ExceptionGroup) as caught:
        async with cancel:
            await anyio.sleep(5)
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
    assert isinstance(caught.value.__context__, TimeoutCancelation)
    assert len(heard) == 1
    assert cancel.status is Status.TIMEOUT
    assert registry.history()[-1].error == "ZeroDivisionError: a callback"
    await _assert_nothing_is_left(cancel, registry)


async def test_a_callback_that_raises_does_not_replace_a_cancelation_from_outside() -> None:
    registry = OperationRegistry()
    cancel = Cancelable(registry=registry)
    cancel.register(_fail)
    with anyio.move_on_after(1) as outer:
        async with cancel:
            await anyio.sleep(5)
    assert outer.cancelled_caught
    assert cancel.status is Status.CANCELLED
    assert cancel.context.reason is CancelationReason.EXTERNAL
    assert registry.history()[-1].error == "ZeroDivisionError: a callback"
    await _assert_nothing_is_left(cancel, registry)


async def test_who_reads_a_cause_does_not_get_what_callbacks_raise() -> None:
    registry = OperationRegistry()
    cancel = Cancelable.with_timeout(1, registry=registry)
    cancel.register(_fail)
    with pytest.raises(ExceptionGroup):
        async with cancel:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            (listed,) = registry.list()
            assert listed.cause is not None
            assert cancel.is_cancelled
            await anyio.sleep(5)
    await _assert_nothing_is_left(cancel, registry)


async def test_a_block_that_cannot_open_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = OperationRegistry()
    cancel = Cancelable(registry=registry)

    def fail(_: Cancelable) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Cancelable, "_listen", fail)
    with pytest.raises(ZeroDivisionError):
        await cancel.__aenter__()
    monkeypatch.undo()
    assert cancel.status is Status.FAILED
    await _assert_nothing_is_left(cancel, registry)
