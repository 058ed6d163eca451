"""What is closed where its ``with`` block ends: registrations, subscriptions, observations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import raise_all

if TYPE_CHECKING:
    from typing import Self

    from ._types import Closable


class Closing:
    """Something with a ``close()`` that may be called twice."""

    __slots__ = ()

    def close(self) -> None:
        """Let it go; safe twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Use as a context manager that closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def close_all(parts: list[Closable]) -> None:
    """Close every part, last to first, and empty the list.

    Raises:
        Exception: What a part raised, when all were closed.
        ExceptionGroup: If several did.
    """
    errors: list[Exception] = []
    while parts:
        try:
            parts.pop().close()
        except Exception as error:  # noqa: BLE001  (raised when all were closed)
            errors.append(error)
    raise_all(errors, "closing sources raised")
