"""The options that every way of making an operation takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._operation import Cancelable
    from ._pause import PauseToken
    from ._ports import Registry
    from ._token import CancelationToken
    from ._types import WhenCancelled


class OperationOptions(TypedDict, total=False):
    """Options of :class:`Cancelable`, for those who pass them on."""

    operation_id: str | None
    name: str | None
    parent: Cancelable | None
    metadata: Mapping[str, Any] | None
    pause_token: PauseToken | None
    register_globally: bool
    registry: Registry | None
    when_cancelled: WhenCancelled


class LinkedOptions(OperationOptions, total=False):
    """The same, with tokens."""

    linked_to: tuple[CancelationToken, ...]
