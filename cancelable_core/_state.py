"""What an operation is, before anything is done with it: identity, life, result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._token import CancelationToken
from ._types import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anyio

    from ._context import OperationContext, OperationSnapshot, Partial
    from ._loops import Loop
    from ._operation import Cancelable
    from ._ports import OpenStream


class OperationState(CancelationToken):
    """An operation to read: the part of :class:`Cancelable` that watchers see."""

    __slots__ = (
        "_began",
        "_enclosing",
        "_error",
        "_id",
        "_loop",
        "_metadata",
        "_parent",
        "_partial",
        "_progress",
        "_scope",
        "_started_at",
        "_status",
        "_streams",
        "_took",
    )

    _loop: Loop
    _scope: anyio.CancelScope

    def __init__(
        self,
        operation_id: str | None,
        name: str | None,
        parent: Cancelable | None,
        linked_to: tuple[CancelationToken, ...],
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """Describe an operation that has not begun."""
        super().__init__(*linked_to, name=name)
        if parent is not None:
            self._upstream += (parent,)
        self._id = operation_id
        self._parent = parent
        self._metadata = metadata
        self._status = OperationStatus.PENDING
        self._enclosing: Cancelable | None = None
        self._streams: list[OpenStream] | None = None
        self._partial: Partial[Any] | None = None
        self._error: str | None = None
        self._progress: str | None = None
        self._began = 0.0
        self._took: float | None = None
        self._started_at: float | None = None

    @property
    def id(self) -> str:
        """Unique id."""
        if self._id is None:
            self._id = f"op-{os.urandom(6).hex()}"
        return self._id

    @property
    def name(self) -> str:
        """What people call it; empty when it was not named."""
        return self._name or ""

    @property
    def label(self) -> str:
        """The name, or the id where there is none."""
        return self._name or self.id

    @property
    def status(self) -> OperationStatus:
        """Where it is in its life."""
        return self._status

    @property
    def context(self) -> OperationContext:
        """All there is to read about it, during the block and after."""
        from ._context import OperationContext  # noqa: PLC0415  (start-up does not pay for it)

        return OperationContext(self)

    @property
    def token(self) -> CancelationToken:
        """This operation as a token."""
        return self

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the author attached."""
        return self._metadata or {}

    @property
    def parent_id(self) -> str | None:
        """Id of the operation around it, if any."""
        parent = self._parent or self._enclosing
        return None if parent is None else parent.id

    @property
    def partial_result(self) -> Partial[Any] | None:
        """What its last stream has handed over."""
        return self._streams[-1].partial if self._streams else self._partial

    def snapshot(self) -> OperationSnapshot:
        """All there is to read, at this moment."""
        from ._context import OperationSnapshot  # noqa: PLC0415  (start-up does not pay for it)

        ended = self._took is not None and self._started_at is not None
        return OperationSnapshot(
            id=self.id,
            name=self.name,
            parent_id=self.parent_id,
            status=self._status,
            cause=self.cause,
            started_at=self._started_at,
            ended_at=(self._started_at or 0.0) + (self._took or 0.0) if ended else None,
            duration=self._duration(),
            progress=self._progress,
            error=self._error,
            metadata=self.metadata,
        )

    def __repr__(self) -> str:
        """Say where it is, and why it was cancelled."""
        cause = f" {self._causes[0]}" if self._causes else ""
        return f"<Cancelable {self.label} {self._status}{cause}>"

    # -- for the other parts of an operation ---------------------------------------------

    def _has_ended(self) -> bool:
        return self._status not in {OperationStatus.PENDING, OperationStatus.RUNNING}

    def _duration(self) -> float:
        if self._took is not None or self._started_at is None:
            return self._took or 0.0
        return self._loop.time() - self._began

    def _require_pending(self, what: str) -> None:
        if self._status is not OperationStatus.PENDING:
            msg = f"operation {self.label} is {self._status} and cannot be {what}"
            raise RuntimeError(msg)

    def _track(self, stream: OpenStream) -> None:
        if self._streams is None:
            self._streams = []
        self._streams.append(stream)

    def _untrack(self, stream: OpenStream) -> None:
        streams = self._streams or []
        streams.remove(stream)
        self._partial = stream.partial

    async def _close_streams(self) -> BaseException | None:
        """Close them all, and say what went wrong first; what stops a task comes before errors."""
        failed: BaseException | None = None
        for stream in list(self._streams or ())[::-1]:
            try:
                await stream.aclose()
            except BaseException as error:  # noqa: BLE001  (raised from the block below)
                if failed is None or not isinstance(error, Exception):
                    failed = error
        return failed
