"""Signals, heard in the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from cancelable_core import signal_hub

Signals = tuple[tuple[int, Callable[[], None]], ...]
"""Signals and what each of them does."""


def hear(signals: Signals, stack: ExitStack) -> None:
    """Hear signals until the stack is closed; those ignored at the start stay ignored."""
    loop = asyncio.get_running_loop()
    for number, action in signals:
        callback = partial(_ignoring_number, loop.call_soon_threadsafe, action)
        stack.enter_context(signal_hub.subscribe([number], callback, keep_ignored=True))


def _ignoring_number(
    call_soon: Callable[[Callable[[], None]], object], action: Callable[[], None], _number: int
) -> None:
    call_soon(action)
