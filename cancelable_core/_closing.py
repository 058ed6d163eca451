"""What is closed where its ``with`` block ends: registrations, subscriptions, observations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


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
