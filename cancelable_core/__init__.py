"""Cancelation for asyncio and trio: who asked, why, and how far the work had come.

The parts that a program may not need are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._errors import (
    CancelationError,
    ConditionCancelation,
    ManualCancelation,
    ParentCancelation,
    SignalCancelation,
    TimeoutCancelation,
)
from ._operation import Cancelable, current_operation
from ._signals import SignalHub, Subscription, signal_hub
from ._sources import (
    CancelationSource,
    ConditionSource,
    Notifier,
    SignalSource,
    SourceHost,
    TimeoutSource,
    TokenSource,
)
from ._token import CancelationToken, Registration
from ._types import CancelationReason, Cause, Closable, OperationStatus

if TYPE_CHECKING:
    from ._composites import AllOfSource, AnyOfSource
    from ._context import OperationContext, OperationSnapshot, Partial
    from ._decorators import (
        cancelable,
        cancelable_combine,
        cancelable_with_condition,
        cancelable_with_signal,
        cancelable_with_token,
        with_cancelable,
    )
    from ._helpers import with_timeout
    from ._pause import PauseToken
    from ._registry import (
        EventKind,
        Observation,
        OperationEvent,
        OperationRegistry,
        RegistryStatistics,
        default_registry,
    )
    from ._shield import Shield
    from ._stream import CancelableStream, ChunkedStream, chunked_cancelable_stream
    from ._stream_limits import cancelable_stream
    from ._threads import check_cancelled, current_token, run_in_thread

__all__ = (
    "AllOfSource",
    "AnyOfSource",
    "Cancelable",
    "CancelableStream",
    "CancelationError",
    "CancelationReason",
    "CancelationSource",
    "CancelationToken",
    "Cause",
    "ChunkedStream",
    "Closable",
    "ConditionCancelation",
    "ConditionSource",
    "EventKind",
    "ManualCancelation",
    "Notifier",
    "Observation",
    "OperationContext",
    "OperationEvent",
    "OperationRegistry",
    "OperationSnapshot",
    "OperationStatus",
    "ParentCancelation",
    "Partial",
    "PauseToken",
    "Registration",
    "RegistryStatistics",
    "Shield",
    "SignalCancelation",
    "SignalHub",
    "SignalSource",
    "SourceHost",
    "Subscription",
    "TimeoutCancelation",
    "TimeoutSource",
    "TokenSource",
    "cancelable",
    "cancelable_combine",
    "cancelable_stream",
    "cancelable_with_condition",
    "cancelable_with_signal",
    "cancelable_with_token",
    "check_cancelled",
    "chunked_cancelable_stream",
    "current_operation",
    "current_token",
    "default_registry",
    "run_in_thread",
    "signal_hub",
    "with_cancelable",
    "with_timeout",
)

_LOADED_ON_USE = {
    "_shield": ("Shield",),
    "_pause": ("PauseToken",),
    "_composites": ("AllOfSource", "AnyOfSource"),
    "_context": ("OperationContext", "OperationSnapshot", "Partial"),
    "_decorators": (
        "cancelable",
        "cancelable_combine",
        "cancelable_with_condition",
        "cancelable_with_signal",
        "cancelable_with_token",
        "with_cancelable",
    ),
    "_helpers": ("with_timeout",),
    "_registry": (
        "EventKind",
        "Observation",
        "OperationEvent",
        "OperationRegistry",
        "RegistryStatistics",
        "default_registry",
    ),
    "_stream": ("CancelableStream", "ChunkedStream", "chunked_cancelable_stream"),
    "_stream_limits": ("cancelable_stream",),
    "_threads": ("check_cancelled", "current_token", "run_in_thread"),
}
_HOME = {name: module for module, names in _LOADED_ON_USE.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what was left out at first."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Name everything, loaded or not."""
    return sorted({*globals(), *__all__})
