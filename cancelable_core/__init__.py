"""Cancelation for asyncio and trio: who asked, why, and what was done by then."""

from __future__ import annotations

from ._composites import AllOfSource, AnyOfSource
from ._context import OperationContext, OperationSnapshot, Partial
from ._errors import (
    CancelationError,
    ConditionCancelation,
    ManualCancelation,
    ParentCancelation,
    SignalCancelation,
    TimeoutCancelation,
)
from ._operation import Cancelable, current_operation
from ._pause import PauseToken
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
from ._types import CancelationReason, Cause, OperationStatus
