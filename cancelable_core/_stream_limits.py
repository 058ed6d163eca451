"""``cancelable_stream``: a stream under an operation, or under limits of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._operation import Cancelable
from ._sources import TimeoutSource
from ._stream import CancelableStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from ._token import CancelationToken
    from ._types import Seconds

T = TypeVar("T")


def cancelable_stream(  # noqa: PLR0913  (options, all by keyword)
    stream: AsyncIterable[T],
    cancel: Cancelable | None = None,
    *,
    timeout: Seconds | None = None,
    token: CancelationToken | None = None,
    buffer_partial: bool | int = False,
    report_interval: int | None = None,
) -> CancelableStream[T]:
    """Iterate ``stream`` until ``cancel``, the limit or the token stops it.

    Under a running ``cancel`` the whole block is stopped. A limit or a token given here
    covers the stream's own ``async with`` block; iterated without one, they only stop the
    pulling of items, and the loop's body is left alone.

    Args:
        stream: Where items come from; closed at the end.
        cancel: A running operation.
        timeout: Seconds for the whole stream.
        token: Stops the stream.
        buffer_partial: Keep what was handed over in ``partial``: all of it, or the last so
            many items.
        report_interval: Report progress to the operation every so many items.

    Raises:
        ValueError: If there is nothing that could stop it.
    """
    owns = timeout is not None or token is not None
    if owns:
        cancel = Cancelable(
            name="stream",
            linked_to=tuple(each for each in (token, cancel) if each is not None),
            sources=() if timeout is None else (TimeoutSource(timeout),),
        )
    if cancel is None:
        raise ValueError("a cancelable stream needs an operation, a timeout or a token")
    return CancelableStream(
        stream,
        cancel,
        buffer_partial=buffer_partial,
        report_interval=report_interval,
        owns=owns,
    )
